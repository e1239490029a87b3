"""Linear evaluation on scikit-learn's digits, seconds on two CPU cores.

As in the paper of BYOL, with a learning rate chosen on a fifth of the training images.

python -m experiments.linear_eval --config=configs/linear_eval/digits.py --workdir=DIR \
  --config.init_from=runs/digits
"""

import ml_collections

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
    'evaluation_crop': 'centre',
    'mean': (0.3053,),
    'std': (0.3760,),
    'num_workers': 0,  # A thread.
    'max_bad_fraction': 0.001,
  }
  config.augment.policy = 'none'
  config.weight_ema_decay = 0.99
  config.optimizer.learning_rates = (0.1, 0.3, 1.0, 3.0, 10.0)
  config.optimizer.sgd.nesterov = True
  config.training = {'batch_size': 128, 'epochs': 100, 'warmup_steps': 0}
  config.evaluation.batch_size = 360
  config.runner = {
    'log_every': 100,
    'evaluate_every': 300,
    'checkpoint_every': 300,
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
  }
  return config
