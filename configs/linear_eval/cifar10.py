"""Linear evaluation on CIFAR-10, by the protocol of BYOL's paper.

The learning rate is chosen on the last 5,000 training images. Nothing is published.

python -m experiments.linear_eval --config=configs/linear_eval/cifar10.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections

from configs.linear_eval import imagenet_byol


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet_byol.get_config()
  config.network = {'encoder': 'resnet18', 'encoder_options': {'stem': 'small'}}
  config.data.update(
    train={'source': 'tfds:cifar10', 'split': 'train[:45000]'},
    validation={'source': 'tfds:cifar10', 'split': 'train[45000:]'},
    test={'source': 'tfds:cifar10', 'split': 'test'},
    crop_size=32,
    evaluation_crop='shorter_side',  # Whole images.
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    num_workers=4,
  )
  config.runner.evaluate_every = 430  # 10 epochs.
  config.runner.checkpoint_every = 430
  return config
