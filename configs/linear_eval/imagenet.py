"""Linear evaluation on ImageNet, as in the published code of SSL-HSIC.

Expected: 74.8 top-1 for a ResNet-50 that was pre-trained for 1000 epochs with target
network, the value of the published code's README.

python -m experiments.linear_eval --config=configs/linear_eval/imagenet.py \
  --workdir=DIR --config.init_from=RUN
"""

import ml_collections
from ml_collections import config_dict

from sslhsic import optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ''  # A pre-training run, DIR/checkpoints/STEP, or 'random'.
  config.network = {'encoder': 'resnet50', 'encoder_options': {}}
  config.data = {
    'train': {'source': 'tfds:imagenet2012', 'split': 'train'},
    'validation': {'source': '', 'split': ''},  # Chooses the learning rate.
    'test': {'source': 'tfds:imagenet2012', 'split': 'validation'},
    'crop_size': 224,  # Pixels.
    'interpolation': 'bicubic',  # Of training crops; or 'bicubic_antialias'.
    'evaluation_crop': 'centre',  # Or 'shorter_side'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'num_workers': 16,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {'policy': 'flip', 'options': {}}
  config.weight_ema_decay = 0.999  # Of the classifiers; 0: no average.
  config.optimizer = {
    'learning_rates': (0.5,),  # For batches of learning_rate_batch_size.
    'learning_rate_batch_size': 256,
    'weight_decay': 0.0,
    'decayed': ('weights',),  # Not the biases; see optim.matching.
    **optim.settings('sgd', momentum=0.9, nesterov=False),
  }
  config.training = {
    'batch_size': 4096,  # Over all devices.
    'epochs': 90,
    'warmup_steps': 100,
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {
    'batch_size': 4096,
    'extra_tests': {},  # Further test sets, {NAME: {'source': …, 'split': …}, …}.
  }
  config.runner = {
    'log_every': 100,
    'evaluate_every': 3128,  # 10 epochs.
    'checkpoint_every': 1564,  # 5 epochs.
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
  }
  return config
