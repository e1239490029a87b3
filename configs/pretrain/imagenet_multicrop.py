"""SSL-HSIC on ImageNet with eight views: two of 224 and six of 96 pixels.

Sizes and areas of the crops are SwAV's (Caron et al., 2020, arXiv:2006.09882): 224
pixels from 0.14 to 1 of the image, 96 pixels from 0.05 to 0.14. The target network sees
the two large ones. No result of SSL-HSIC with these views is published, and none is
known here.

python -m experiments.pretrain --config=configs/pretrain/imagenet_multicrop.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with other views."""
  config = imagenet.get_config()
  large = {'size': 224, 'area': (0.14, 1.0)}
  small = {'size': 96, 'area': (0.05, 0.14), 'is_global': False}
  policies = ('byol_view1', 'byol_view2')
  config.augment.views = tuple(
    {'policy': policies[number % 2], **crop}
    for number, crop in enumerate((large,) * 2 + (small,) * 6)
  )
  return config
