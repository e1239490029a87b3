"""Depth estimation on NYU Depth v2: a linear layer on frozen patch tokens.

After the linear protocol of DINOv2 (Oquab et al. 2023, arXiv:2304.07193): batch norm
and a linear layer on the last patch tokens of a frozen ViT, upsampled bilinearly.
DINOv2 also uses the class token and classifies into 256 depths. Here the layer gives
the depth itself, with the loss and images of BYOL's protocol, in a crop that patches
of 16 pixels fill; optimiser and learning rate are ours. So results compare with each
other only. None is known.

python -m experiments.depth --config=configs/depth/nyu_vit.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.depth import nyu


def get_config() -> ml_collections.ConfigDict:
  """The configuration of NYU Depth v2, with the changes below."""
  config = nyu.get_config()
  config.network.encoder = 'vit_s16_moco'  # As in configs/pretrain/imagenet_vit_s16.py.
  config.network.head = 'linear'
  config.data.crop = (224, 304)
  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 1e-4
  config.training.update(learning_rates=(1e-3,), warmup_steps=300, train_encoder=False)
  return config
