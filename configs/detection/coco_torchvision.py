"""Object detection on COCO 2017: Mask R-CNN with a ResNet-50 and a feature pyramid.

Anchors, numbers and thresholds of torchvision's maskrcnn_resnet50_fpn, images of 800 px
on the shorter side, and the schedule of coco_detectron2.py; batch norm learns, over all
devices. Nothing is published for it.

python -m experiments.detection --config=configs/detection/coco_torchvision.py \
  --workdir=DIR --config.init_from=RUN --config.data.train.source=coco:PATH \
  --config.data.test.source=coco:PATH
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from sslhsic import optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ''  # A pre-training run, DIR/checkpoints/STEP, or 'random'.
  config.network = {
    'architecture': 'fpn',  # Or 'c4'.
    'encoder': 'resnet50',
    'encoder_options': {},
    'with_masks': True,
    'pyramid_channels': 256,
    'box_size': 1024,  # Of the linear layers of the box head of fpn.
    'extra_batch_norm': False,  # After the last group in the box head of c4.
  }
  config.detector = detector_settings()
  config.data = _data()
  config.augment = {'policy': 'none'}  # On the accelerator, besides scale and flip.
  config.optimizer = {
    'weight_decay': 1e-4,
    'decayed': ('w',),  # Parameters that decay, by name; see optim.matching.
    **optim.settings('sgd', momentum=0.9),
  }
  config.training = {
    'batch_size': 16,  # Over all devices.
    'steps': 90_000,
    'learning_rates': (0.02,),  # Several: to choose from on the validation split.
    'warmup_steps': 1000,
    'drops': (2 / 3, 8 / 9),  # Parts after which the rate is a tenth; empty: cosine.
    'train_encoder': True,
    'freeze_batch_norm': False,  # Of the encoder.
    'precision': 'float32',  # Of the network; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.retrain = False  # With the best, on train and validation.
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


def _data() -> dict[str, Any]:
  """The images, and how they are resized."""
  return {
    'train': {'source': 'coco:coco', 'split': 'train'},
    'validation': {'source': '', 'split': ''},  # None: no evaluation on the way.
    'test': {'source': 'coco:coco', 'split': 'val'},
    'padded': (800, 1344),  # Height and width in pixels; upright images: 1344, 800.
    # An image's sides are at most numbers drawn from these: smallest, largest, step.
    'shorter': (800, 800, 1),
    'longer': (1333, 1333, 1),
    'flip': True,  # Half of the images.
    'test_shorter': 800,
    'test_longer': 1333,
    'max_objects': 100,  # Of an image, in training.
    'mask_size': 112,  # Rows and columns of a true mask in its box.
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'num_workers': 8,  # Processes, on each host.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }


def detector_settings() -> dict[str, Any]:
  """The settings of torchvision; see `sslhsic.tasks.detection.settings`."""
  return {
    'anchor_sizes': ((32,), (64,), (128,), (256,), (512,)),  # Pixels, level by level.
    'aspect_ratios': (0.5, 1.0, 2.0),
    'anchor_foreground': 0.7,
    'anchor_background': 0.3,
    'anchors_per_image': 256,
    'anchor_positive_fraction': 0.5,
    'before_nms_training': 2000,
    'before_nms': 1000,
    'after_nms_training': 2000,
    'after_nms': 1000,
    'proposal_nms': 0.7,
    'proposal_min_size': 1e-3,
    'roi_foreground': 0.5,
    'rois_per_image': 512,
    'roi_positive_fraction': 0.25,
    'box_weights': (10.0, 10.0, 5.0, 5.0),
    'smooth_l1_beta': 1 / 9,
    'ignored_overlap': 0.5,
    'score_threshold': 0.05,
    'detection_nms': 0.5,
    'detection_min_size': 1e-2,
    'detections_per_image': 100,
    'box_pool': 7,
    'mask_pool': 14,
    'sampling_ratio': 2,
    'max_sampling_ratio': 4,  # Of sampling_ratio 0.
    'canonical_size': 224.0,
  }
