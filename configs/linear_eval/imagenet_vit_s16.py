"""Linear evaluation of a ViT-S/16 on ImageNet, as in MoCo v3's code.

MoCo v3 (Chen et al., 2021, arXiv:2104.02057) reaches 73.2 top-1; no result of SSL-HSIC
is known. Averaged classifiers and the warm-up are ours.

python -m experiments.linear_eval --config=configs/linear_eval/imagenet_vit_s16.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.linear_eval import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the published code of SSL-HSIC, with the changes below."""
  config = imagenet.get_config()
  config.network.encoder = 'vit_s16_moco'
  config.optimizer.learning_rates = (3.0,)  # For batches of learning_rate_batch_size.
  config.training.batch_size = 1024  # Over all devices.
  config.training.epochs = 90
  config.runner.evaluate_every = 12_512  # 10 epochs.
  config.runner.checkpoint_every = 6256  # 5 epochs.
  return config
