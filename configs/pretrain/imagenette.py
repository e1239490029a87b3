"""SSL-HSIC on Imagenette: a ResNet-18 on ten classes of ImageNet, at 128 pixels.

No result of SSL-HSIC is published for it. For comparison, BYOL reaches about 92.3
online top-1 with this batch size, length, learning rate and weight decay, in about 4 h
on one V100 (README of BYOL's code). The network is the ResNet-18 of that code, whose
first shortcut is projected. The target decay is BYOL's for 1000 epochs.

python -m experiments.pretrain --config=configs/pretrain/imagenette.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.data = {
    'source': 'tfds:imagenette/160px-v2',
    'train_split': 'train',
    'crop_size': 128,  # Pixels.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'centre',  # Or 'shorter_side', of whole images.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
    'num_workers': 4,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {'project_first_shortcut': True},
    'head': {'hidden_size': 4096, 'output_size': 256},
  }
  config.target_base_decay = 0.996
  config.optimizer.base_learning_rate = 2.0  # Times batch_size / 256.
  config.optimizer.weight_decay = 1e-6
  config.training = {
    'batch_size': 256,  # Over all devices.
    'epochs': 1000,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.train_split = 'train'
  config.evaluation.test_split = 'validation'
  config.evaluation.batch_size = 1024
  config.runner.log_every = 20
  config.runner.evaluate_every = 738  # 20 epochs.
  config.runner.checkpoint_every = 738
  return config
