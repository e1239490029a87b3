"""Weighted kNN on ImageNet, with the whole training set.

Every k is tried with every T, and the first pair is reported as the result. They are
our choice: nothing is published for SSL-HSIC.

python -m experiments.knn --config=configs/knn/imagenet.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ''  # A pre-training run, DIR/checkpoints/STEP, or 'random'.
  config.network = {'encoder': 'resnet50', 'encoder_options': {}}
  config.data = {
    'train': {'source': 'tfds:imagenet2012', 'split': 'train'},
    'test': {'source': 'tfds:imagenet2012', 'split': 'validation'},
    'crop_size': 224,  # Pixels.
    'evaluation_crop': 'centre',  # Or 'shorter_side'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.protocol = {'k': (200, 20), 'temperature': (0.07,)}
  config.evaluation = {
    'batch_size': 4096,  # Over all devices.
    'extra_tests': {},  # Further test sets, {NAME: {'source': …, 'split': …}, …}.
  }
  return config
