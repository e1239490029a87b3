"""SSL-HSIC on made-up pictures of shapes: an encoder to try the dense evaluations with.

Pictures are drawn on the fly; nothing is downloaded. A ResNet-18 with half the blocks
and fewer channels; minutes on two CPU cores. A label is the class of the largest of
several shapes, which says little of what an encoder knows of the others.

python -m experiments.pretrain --config=configs/pretrain/shapes.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of the digits, but for what follows."""
  config = digits.get_config()
  config.data = {
    'source': 'shapes',
    'train_split': 'train',
    'crop_size': 48,  # Pixels, of pictures of 96.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.565, 0.563, 0.572),
    'std': (0.168, 0.168, 0.168),
    'num_workers': 0,  # Processes; 0: a thread.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment = {
    'views': ({'policy': 'byol_view1'}, {'policy': 'byol_view2'}),
    'options': {},
  }
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {
      'blocks_per_group': (1, 1, 1, 1),
      'channels_per_group': (32, 64, 128, 128),
      'zero_init_last_scale': True,
    },
    'head': {'hidden_size': 256, 'output_size': 64},
  }
  config.training.epochs = 15
  config.training.warmup_epochs = 2
  config.evaluation.batch_size = 250
  config.runner.evaluate_every = 155  # 5 epochs.
  config.runner.checkpoint_every = 155
  return config
