"""SSL-HSIC on CIFAR-10: a ResNet-18 with a 3×3 stem, 50,000 images of 32 pixels.

No result of SSL-HSIC is published for it. For comparison, online linear top-1 of other
methods with a ResNet-18 after 1000 epochs (solo-learn): BYOL 92.58, SimCLR 90.74,
Barlow Twins 92.10, VICReg 92.07. Base learning rate, weight decay and target decay are
BYOL's for 1000 epochs.

python -m experiments.pretrain --config=configs/pretrain/cifar10.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.data = {
    'source': 'tfds:cifar10',
    'train_split': 'train',
    'crop_size': 32,  # Pixels.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.4914, 0.4822, 0.4465),  # Of the training images, as is usual.
    'std': (0.2470, 0.2435, 0.2616),
    'num_workers': 4,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {'stem': 'small'},
    'head': {'hidden_size': 4096, 'output_size': 256},
  }
  config.target_base_decay = 0.996
  config.optimizer.base_learning_rate = 0.2  # Times batch_size / 256.
  config.optimizer.weight_decay = 1.5e-6
  config.training = {
    'batch_size': 256,  # Over all devices.
    'epochs': 1000,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.train_split = 'train'
  config.evaluation.test_split = 'test'
  config.evaluation.batch_size = 1024
  config.runner.log_every = 100
  config.runner.evaluate_every = 3906  # 20 epochs.
  config.runner.checkpoint_every = 3906
  return config
