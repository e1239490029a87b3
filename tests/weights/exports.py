"""What exports of tests are of."""

import json

from configs.pretrain import digits
from sslhsic.weights import card
from sslhsic.weights import settings as settings_lib

IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


def settings_of(encoder, crop_size=224, options=(), **normalization):
  """Settings of a network; normalised as ImageNet unless it is said."""
  return settings_lib.Settings(
    encoder,
    dict(options),
    crop_size,
    description='a run',
    **(normalization or IMAGENET),
  )


def facts(**changes):
  """Facts of a pre-training on the digits."""
  config = json.loads(digits.get_config().to_json())
  defaults = {
    'weights': 'weights of the last step',
    'steps': 898,
    'config': config,
    'results': {},
    'evaluations': [],
    'command': 'python -m experiments.export',
  }
  return card.Facts(**(defaults | changes))
