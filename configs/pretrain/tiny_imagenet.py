"""SSL-HSIC on Tiny ImageNet: a ResNet-18 with a 3×3 stem, 100,000 images of 64 pixels.

No result of SSL-HSIC is published for it. TFDS does not have this data set;
docs/data.md says how to make its folder. Base learning rate, weight decay and target
decay are BYOL's for 300 epochs.

python -m experiments.pretrain --config=configs/pretrain/tiny_imagenet.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.data = {
    'source': 'folder:data/tiny-imagenet-200',
    'train_split': 'train',
    'crop_size': 64,  # Pixels.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
    'num_workers': 8,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {'stem': 'small'},
    'head': {'hidden_size': 4096, 'output_size': 256},
  }
  config.target_base_decay = 0.99
  config.optimizer.base_learning_rate = 0.3  # Times batch_size / 256.
  config.optimizer.weight_decay = 1e-6
  config.training = {
    'batch_size': 256,  # Over all devices.
    'epochs': 300,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.train_split = 'train'
  config.evaluation.test_split = 'validation'
  config.evaluation.batch_size = 1024
  config.runner.log_every = 100
  config.runner.evaluate_every = 3906  # 10 epochs.
  config.runner.checkpoint_every = 3906
  return config
