"""Semantic segmentation on PASCAL VOC 2012: a linear layer on frozen patch tokens.

The linear protocol of DINOv2 (Oquab et al. 2023, arXiv:2304.07193): batch norm and a
linear layer on the last patch tokens of a frozen ViT, upsampled bilinearly; AdamW,
learning rate, weight decay, steps, warm-up, batch, crop and scales are from its
configuration. Ours are a cosine instead of a linear decay, no colour distortion, no
decay of biases and scales, and the central 512 pixels at one scale instead of sliding
windows. No result of SSL-HSIC is known.

python -m experiments.segmentation --config=configs/segmentation/voc_vit.py \
  --workdir=DIR --config.init_from=RUN --config.data.train.source=voc:PATH \
  --config.data.test.source=voc:PATH
"""

import ml_collections

from configs.segmentation import voc


def get_config() -> ml_collections.ConfigDict:
  """The configuration of VOC, with the changes below."""
  config = voc.get_config()
  config.network.encoder = 'vit_s16_moco'  # As in configs/pretrain/imagenet_vit_s16.py.
  config.network.encoder_options = {}
  config.network.head = 'linear'
  config.data.train.split = 'train_aug'
  config.data.validation = {'source': '', 'split': ''}
  config.data.crop_size = 512  # Pixels, a multiple of the patch size.
  config.optimizer.name = 'adamw'
  config.optimizer.weight_decay = 1e-4
  config.training.update(
    batch_size=16,
    steps=40_000,
    learning_rates=(1e-3,),
    warmup_steps=1500,
    drops=(),
    train_encoder=False,
  )
  config.retrain = False
  return config
