"""SSL-HSIC on CIFAR-100: a ResNet-18 with a 3×3 stem, 50,000 images of 32 pixels.

No result of SSL-HSIC is published for it. For comparison, online linear top-1 of other
methods with a ResNet-18 after 1000 epochs (solo-learn): BYOL 70.46, SimCLR 65.78,
Barlow Twins 70.90, VICReg 68.54. Base learning rate, weight decay and target decay are
BYOL's for 1000 epochs.

python -m experiments.pretrain --config=configs/pretrain/cifar100.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import cifar10


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of CIFAR-10, but for what follows."""
  config = cifar10.get_config()
  config.data.source = 'tfds:cifar100'
  config.data.mean = (0.5071, 0.4865, 0.4409)  # Of the training images, as is usual.
  config.data.std = (0.2673, 0.2564, 0.2762)
  return config
