"""A network fine-tuned on ten of scikit-learn's digits, one of each: 1 % of the labels.

python -m experiments.finetune --config=configs/finetune/digits_1pct.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

from configs.finetune import imagenet_1pct


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet_1pct.get_config()
  config.network.encoder = 'resnet_digits'
  config.data = {
    'train': {'source': 'digits', 'split': 'train[:80%], balanced 10'},
    'validation': {'source': 'digits', 'split': 'train[80%:]'},
    'test': {'source': 'digits', 'split': 'test'},
    'crop_size': 0,  # Whole images.
    'interpolation': 'bicubic',  # Of training crops; or 'bicubic_antialias'.
    'evaluation_crop': 'centre',
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.3053,),
    'std': (0.3760,),
    'num_workers': 0,  # A thread.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment.policy = 'digits'
  config.training.batch_size = 10
  config.training.learning_rate_batch_size = 10
  config.training.epochs = (30, 50)
  config.training.learning_rates = (0.01, 0.03, 0.1, 0.3, 1.0)
  config.evaluation.batch_size = 360
  return config
