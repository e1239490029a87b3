"""SSL-HSIC on scikit-learn's digits: 1,437 real images, minutes on two CPU cores.

python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = 'random'  # Or a run, DIR/checkpoints/STEP, or a safetensors file.
  config.init_what = 'state'  # What is taken from it: all; or 'encoder'.
  config.data = {
    'source': 'digits',
    'train_split': 'train',
    'crop_size': 0,  # Pixels; 0: whole images, the accelerator crops.
    'mean': (0.3053,),
    'std': (0.3760,),
    'num_workers': 0,  # Processes; 0: a thread.
    'max_bad_fraction': 0.001,  # Of images that may be corrupt.
  }
  config.augment = {
    'views': ({'policy': 'digits'}, {'policy': 'digits'}),
    'options': {},
  }
  config.network = {
    'encoder': 'resnet_digits',
    'encoder_options': {},
    'head': {'hidden_size': 256, 'output_size': 64},
  }
  config.target_network = True
  config.target_base_decay = 0.9
  config.target_decay_schedule = 'cosine'
  config.weight_ema_decay = 0.99
  config.loss = {
    'name': 'ssl_hsic',
    'learning_rate': 3e-4,  # Adam, for the kernel scale.
    # At the published γ = 3, small networks without a target network collapse.
    'ssl_hsic': {
      'gamma': 1.0,
      'estimator': 'pairs',  # Or 'exact', or 'features', the published one.
      # Of the estimator; None: its default, which for 'features' is the published one.
      'block_size': config_dict.placeholder(int),
      'covariance': config_dict.placeholder(bool),
      'num_features': config_dict.placeholder(int),
      'sampler': config_dict.placeholder(str),
      'initial_scale': 1.0,
      'kernel': 'inverse_multiquadric',
      'regularizer': 'root_hsic_zz',
    },
    'info_nce': {'temperature': 0.1, 'queue_size': 0},
    'byol': {},
    'barlow_twins': {'redundancy_weight': 5e-3},
    'vicreg': {
      'invariance_weight': 25.0,
      'variance_weight': 25.0,
      'covariance_weight': 1.0,
    },
  }
  config.instruments = False  # Logs HSIC, InfoNCE and more of every batch, exactly.
  config.optimizer = {
    'name': 'adamw',
    'base_learning_rate': 8e-3,  # Times batch_size / 256.
    'weight_decay': 1e-4,
  }
  config.training = {
    'batch_size': 128,  # Over all devices.
    'epochs': 80,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {
    'train_split': 'train',
    'test_split': 'test',
    'batch_size': 360,
    'compare_representations': True,
    'protocol': {'k': 20, 'temperature': 0.07, 'labels_per_class': (1, 5, 10)},
  }
  config.runner = {
    'log_every': 20,
    'evaluate_every': 200,
    'checkpoint_every': 200,
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    # Warns when one of these was smaller so often in a row.
    'collapse': {
      'minima': {'projection_std': 0.1, 'embedding_std': 0.03, 'effective_rank': 2.0},
      'patience': 3,
    },
  }
  return config
