"""SSL-HSIC on ImageNet with ViT-S/16, by the recipe of MoCo v3 (Chen et al., 2021).

From MoCo v3 (arXiv:2104.02057, and its code) are the network (12 heads, fixed
positions, frozen embedding of patches), AdamW, learning rate, weight decay, batch,
length and the target network's decay. Ours are the loss, the heads (BYOL's, of two
layers; MoCo v3's projector has three, and batch norm on what the heads give out) and
what decays: MoCo v3 decays everything. No result of SSL-HSIC with it is known; MoCo v3
has 73.2 linear top-1.

ViT-B/16 is --config.network.encoder=vit_b16_moco.

python -m experiments.pretrain --config=configs/pretrain/imagenet_vit_s16.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with the changes below."""
  config = imagenet.get_config()
  config.network.encoder = 'vit_s16_moco'
  config.network.encoder_options = {'freeze_patch_embedding': True}
  config.target_base_decay = 0.99
  config.optimizer.name = 'adamw'
  config.optimizer.base_learning_rate = 1.5e-4  # Times batch_size / 256.
  config.optimizer.weight_decay = 0.1
  # Neither biases, norms, positions and tokens, which have other names than w, nor what
  # is frozen.
  config.optimizer.decayed = ('w', '!encoder/patch_embedding/*')
  config.training.batch_size = 4096
  config.training.epochs = 300
  config.training.warmup_epochs = 40
  config.training.precision = 'bfloat16'
  return config
