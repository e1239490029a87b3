"""SSL-HSIC on STL-10: a ResNet-18 with a 3×3 stem, 100,000 unlabelled images of 96 px.

No result of SSL-HSIC is published for it. There is no online classifier, for lack of
labels; kNN looks in the 5,000 labelled training images. Base learning rate, weight
decay and target decay are BYOL's for 100 epochs.

python -m experiments.pretrain --config=configs/pretrain/stl10.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.data = {
    'source': 'tfds:stl10',
    'train_split': 'unlabelled',
    'crop_size': 96,  # Pixels.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.4467, 0.4398, 0.4066),  # Of the labelled training images, as is usual.
    'std': (0.2603, 0.2566, 0.2713),
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
  config.optimizer.base_learning_rate = 0.45  # Times batch_size / 256.
  config.optimizer.weight_decay = 1e-6
  config.training = {
    'batch_size': 256,  # Over all devices.
    'epochs': 100,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.train_split = 'train'  # Labelled, unlike what is trained on.
  config.evaluation.test_split = 'test'
  config.evaluation.batch_size = 1024
  config.runner.log_every = 100
  config.runner.evaluate_every = 3906  # 10 epochs.
  config.runner.checkpoint_every = 3906
  return config
