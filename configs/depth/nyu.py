"""Depth estimation on NYU Depth v2: a ResNet-50 with fast up-projections.

The protocol of BYOL (arXiv:2006.07733), after Laina et al. (arXiv:1606.00373), which
SSL-HSIC takes over. Expected <1.25, <1.25², <1.25³, rms and rel: BYOL 84.6, 96.7, 99.1,
0.541, 0.129; SimCLR 83.3, 96.5, 99.1, 0.557, 0.134; supervised 81.1, 95.3, 98.8, 0.573,
0.127 (BYOL paper); SSL-HSIC rms 0.539 (secondary source).

The cosine decay of the learning rate is ours, as is that depths are compared at half
the size of the frames, in the centre that the network sees.

python -m experiments.depth --config=configs/depth/nyu.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections
from ml_collections import config_dict

from sslhsic import optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ''  # A pre-training run, DIR/checkpoints/STEP, or 'random'.
  config.network = {
    'encoder': 'resnet50',
    'encoder_options': {},
    'head': 'up_projections',  # Or 'linear', which has no channels.
    'channels': (512, 256, 128, 64),  # Of the up-projections.
  }
  config.data = {
    'train': {'source': 'tfds:nyu_depth_v2', 'split': 'train'},
    'validation': {'source': '', 'split': ''},  # None: no evaluation on the way.
    'test': {'source': 'tfds:nyu_depth_v2', 'split': 'validation'},
    'resized': (240, 320),  # Height and width; empty: as they are.
    'crop': (228, 304),
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'num_workers': 16,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {'policy': 'depth'}  # Colours, on the accelerator.
  config.optimizer = {
    'weight_decay': 5e-4,
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('sgd', momentum=0.9),
  }
  config.training = {
    'batch_size': 256,  # Over all devices.
    'steps': 7500,
    'learning_rates': (0.16,),  # Several: to choose from on the validation split.
    'warmup_steps': 0,
    'drops': (),  # Parts after which the rate is a tenth; empty: cosine.
    'train_encoder': True,
    'freeze_batch_norm': False,  # Of the encoder.
    'precision': 'float32',  # Of the network; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.retrain = False  # With the best, on train and validation.
  config.evaluation = {'batch_size': 64}
  config.runner = {
    'log_every': 50,
    'evaluate_every': 0,  # Of the validation split; 0: at the end of a training.
    'checkpoint_every': 500,
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
  }
  return config
