"""Linear evaluation on Imagenette, by the protocol of BYOL's paper.

The learning rate is chosen on a tenth of the training images. Nothing is published.

python -m experiments.linear_eval --config=configs/linear_eval/imagenette.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.linear_eval import imagenet_byol

SOURCE = 'tfds:imagenette/160px-v2'


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet_byol.get_config()
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {'project_first_shortcut': True},
  }
  config.data.update(
    train={'source': SOURCE, 'split': 'train, all but balanced 10%'},
    validation={'source': SOURCE, 'split': 'train, balanced 10%'},
    test={'source': SOURCE, 'split': 'validation'},
    crop_size=128,
    num_workers=4,
  )
  config.training.batch_size = 256
  config.runner.evaluate_every = 330  # 10 epochs.
  config.runner.checkpoint_every = 330
  return config
