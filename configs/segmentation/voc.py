"""Semantic segmentation on PASCAL VOC 2012: a fully convolutional ResNet-50.

The protocol of BYOL (arXiv:2006.07733), which SSL-HSIC takes over. Expected mean IoU:
SSL-HSIC 76 (secondary source), BYOL 76.3, SimCLR 75.2, MoCo 72.5, supervised 74.4 (BYOL
paper; mean of 5 seeds).

A run is the whole protocol: a training for each of five learning rates; one more, on
all of train_aug, with the best of them on its last 2,119 images; then, once, val.

python -m experiments.segmentation --config=configs/segmentation/voc.py --workdir=DIR \
  --config.init_from=RUN --config.data.train.source=voc:PATH \
  --config.data.validation.source=voc:PATH --config.data.test.source=voc:PATH
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
    # All 3×3 convolutions of the last group have dilation 2 and stride 1.
    'encoder_options': {'output_stride': 16, 'dilate_first_block': True},
    'head': 'fcn',  # Or 'linear', which has neither channels nor dilation.
    'channels': 256,  # Of the head.
    'dilation': 6,
  }
  config.data = {
    'train': {'source': 'voc:VOCdevkit/VOC2012', 'split': 'train_aug[:-2119]'},
    'validation': {'source': 'voc:VOCdevkit/VOC2012', 'split': 'train_aug[-2119:]'},
    'test': {'source': 'voc:VOCdevkit/VOC2012', 'split': 'val'},
    'crop_size': 513,  # Pixels.
    'scales': (0.5, 2.0),  # Of images, in training.
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'num_workers': 8,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {'policy': 'none'}  # On the accelerator, besides scale and crop.
  config.optimizer = {
    'weight_decay': 1e-4,
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('sgd', momentum=0.9),
  }
  config.training = {
    'batch_size': 16,  # Over all devices.
    'steps': 30_000,
    # To choose from on the validation split; or one.
    'learning_rates': (1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1),
    'warmup_steps': 0,
    'drops': (0.7, 0.9),  # Parts after which the rate is a tenth; empty: cosine.
    'train_encoder': True,
    'freeze_batch_norm': False,  # Of the encoder.
    'precision': 'float32',  # Of the network; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.retrain = True  # With the best, on train and validation.
  config.evaluation = {'batch_size': 16}
  config.runner = {
    'log_every': 50,
    'evaluate_every': 0,  # Of the validation split; 0: at the end of a training.
    'checkpoint_every': 1000,
    'checkpoint_minutes': config_dict.placeholder(float),  # Or so often; None: not.
    'keep_checkpoints': 2,
    'on_save_error': 'stop',  # Or 'continue', without having saved.
    'writers': ('jsonl', 'tensorboard'),  # And 'wandb', 'mlflow', 'module:Class'.
  }
  return config
