"""Semi-supervised learning: a network fine-tuned on 1 % of the labels of ImageNet.

The protocol of BYOL (arXiv:2006.07733), which SSL-HSIC takes over. Expected top-1 and
top-5 for a ResNet-50:
BYOL 53.2 and 78.4, SimCLR 48.3 and 75.5, supervised 25.4 and 48.4 (BYOL paper).

The learning rates are the paper's, times batch size / 256, with cosine decay as
in its code. Some of the images that choose the setting are among the 1 %, which the
published subsets do not allow to avoid.

python -m experiments.finetune --config=configs/finetune/imagenet_1pct.py \
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
    'train': {'source': 'tfds:imagenet2012_subset/1pct', 'split': 'train'},
    'validation': {'source': 'tfds:imagenet2012', 'split': 'train[-10009:]'},
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
  config.metric = 'top1'  # What chooses, and is reported.
  config.retrain = False  # At last, on training and validation examples.
  config.optimizer = {
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('sgd', momentum=0.9, nesterov=True),
  }
  # Each combination of lengths, learning rates and weight decays is tried.
  config.training = {
    'batch_size': 1024,  # Over all devices.
    'epochs': (30, 50),  # Lengths; or 'steps', the other empty.
    'steps': (),
    'learning_rates': (0.01, 0.02, 0.05, 0.1, 0.005),  # For batches of …
    'learning_rate_batch_size': 256,
    'weight_decays': (0.0,),  # Each is divided by the learning rate.
    'short_batch_norm': False,  # Decay of statistics by the steps of an epoch.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {'batch_size': 1024}
  config.runner = {
    'log_every': 20,
    'evaluate_every': 0,  # Each training ends with its validation.
    'checkpoint_every': 125,
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
  }
  return config
