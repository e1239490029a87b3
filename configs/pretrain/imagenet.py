"""SSL-HSIC on ImageNet: the published run (Li et al., NeurIPS 2021, and its code).

Expected: 74.8 linear top-1 (ResNet-50, 1000 epochs, with target network), the value of
the published code's README. The published run took 128 Cloud TPU cores.

python -m experiments.pretrain --config=configs/pretrain/imagenet.py --workdir=DIR
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
    'source': 'tfds:imagenet2012',
    'train_split': 'train',
    'crop_size': 224,  # Pixels.
    'mean': (0.485, 0.456, 0.406),
    'std': (0.229, 0.224, 0.225),
    'num_workers': 16,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be corrupt.
  }
  config.augment = {
    'views': ({'policy': 'byol_view1'}, {'policy': 'byol_view2'}),
    'options': {},
  }
  config.network = {
    'encoder': 'resnet50',
    'encoder_options': {},
    'head': {'hidden_size': 4096, 'output_size': 256},
  }
  config.target_network = True
  config.target_base_decay = 0.99
  config.target_decay_schedule = 'cosine'
  config.weight_ema_decay = 0.999
  config.loss = {
    'name': 'ssl_hsic',
    'learning_rate': 3e-4,  # Adam, for the kernel scale.
    # Published: estimator 'features' with its defaults, 512 independent features, with
    # another draw on each of 128 devices. Pairs are used here: their gradient has a
    # fraction of the noise at a fraction of the work (docs/estimator.md).
    'ssl_hsic': {
      'gamma': 3.0,
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
    'name': 'lars',
    'base_learning_rate': 0.4,  # Times batch_size / 256.
    'weight_decay': 1e-6,
  }
  config.training = {
    'batch_size': 4096,  # Over all devices.
    'epochs': 1000,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation = {
    'train_split': 'train[:100000]',  # What kNN looks in.
    'test_split': 'validation',
    'batch_size': 4096,
    'compare_representations': False,
    'protocol': {'k': 20, 'temperature': 0.07, 'labels_per_class': (1, 5, 10)},
  }
  config.runner = {
    'log_every': 100,
    'evaluate_every': 6256,  # 20 epochs.
    'checkpoint_every': 1564,  # 5 epochs.
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
