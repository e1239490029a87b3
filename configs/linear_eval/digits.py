"""Linear evaluation on scikit-learn's digits, seconds on two CPU cores.

As in the paper of BYOL, with a learning rate chosen on a fifth of the training images.

python -m experiments.linear_eval --config=configs/linear_eval/digits.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections
from ml_collections import config_dict

from configs.linear_eval import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.network.encoder = 'resnet_digits'
  config.data = {
    'train': {'source': 'digits', 'split': 'train[:80%]'},
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
  config.augment.policy = 'none'
  config.weight_ema_decay = 0.99
  config.optimizer.learning_rates = (0.1, 0.3, 1.0, 3.0, 10.0)
  config.optimizer.sgd.nesterov = True
  config.training = {
    'batch_size': 128,
    'epochs': 100,
    'warmup_steps': 0,
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.batch_size = 360
  config.runner = {
    'log_every': 100,
    'evaluate_every': 300,
    'checkpoint_every': 300,
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
  }
  return config
