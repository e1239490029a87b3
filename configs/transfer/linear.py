"""Transfer to twelve classification data sets, with a linear classifier.

The protocol of BYOL (arXiv:2006.07733), which SSL-HSIC takes over: no augmentation,
shorter side of 224 pixels, logistic regression on the frozen encoder. Expected: the
published rows below, for ResNet-50.

The sizes of the splits are those of the paper. Of a data set without validation split,
it is not published which images make it: here, the end of the training split as TFDS
stores it, or equally many images of each class, drawn by seed 0.

python -m experiments.transfer --config=configs/transfer/linear.py --workdir=DIR \
  --config.init_from=RUN [--config.only="('food101', 'dtd')"]
"""

import ml_collections

NAMES = (
  'food101',
  'cifar10',
  'cifar100',
  'birdsnap',
  'sun397',
  'cars',
  'aircraft',
  'voc2007',
  'dtd',
  'pets',
  'caltech101',
  'flowers102',
)


def get_config() -> ml_collections.ConfigDict:
  """The configuration."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.init_from = ''  # A pre-training run, DIR/checkpoints/STEP, or 'random'.
  config.network = {'encoder': 'resnet50', 'encoder_options': {}}
  config.protocol = 'linear'  # Or 'finetune'.
  config.only = NAMES  # Tasks to do, in the order of the table.
  config.tasks = tasks()
  config.data = {
    'crop_size': 224,  # Pixels.
    'evaluation_crop': 'shorter_side',  # Or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.485, 0.456, 0.406),  # As in the pre-training.
    'std': (0.229, 0.224, 0.225),
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.l2 = (1e-6, 1e5, 45)  # Log-spaced penalties: from, to, how many.
  config.evaluation = {'batch_size': 1024}  # Over all devices.
  config.published = {
    'BYOL': row('75.3 91.3 78.4 57.2 62.2 67.8 60.6 82.5 75.5 90.4 94.2 96.1'),
    'SimCLR': row('68.4 90.6 71.6 37.4 58.8 50.3 50.3 80.5 74.5 83.6 90.3 91.2'),
    'supervised': row('72.3 93.6 78.3 53.7 61.9 66.7 61.0 82.8 74.9 91.5 94.5 94.7'),
  }
  return config


def row(values: str) -> dict[str, float]:
  """Published values in the order of `NAMES`."""
  return dict(zip(NAMES, map(float, values.split()), strict=True))


def tasks() -> dict[str, dict[str, str]]:
  """Source, splits and metric of the twelve data sets."""
  official = ('train', 'validation', 'test')
  top1, per_class = 'top1', 'mean_per_class'
  rows = (
    ('tfds:food101', 'train[:68175]', 'train[68175:]', 'validation', top1),
    ('tfds:cifar10', 'train[:45000]', 'train[45000:]', 'test', top1),
    ('tfds:cifar100', 'train[:44933]', 'train[44933:]', 'test', top1),
    ('folder:birdsnap', *official, top1),
    (
      'tfds:sun397/standard-part1-120k',
      'train, balanced 15880',
      'train, all but balanced 15880',
      'test',
      top1,
    ),
    ('tfds:cars196', 'train[:6494]', 'train[6494:]', 'test', top1),
    ('folder:aircraft', *official, per_class),
    ('tfds:voc/2007', *official, 'mean_average_precision'),
    ('tfds:dtd', *official, top1),
    (
      'tfds:oxford_iiit_pet',
      'train, all but balanced 740',
      'train, balanced 740',
      'test',
      per_class,
    ),
    (
      'tfds:caltech101',
      'train, all but balanced 510',
      'train, balanced 510',
      'test',
      per_class,
    ),
    ('tfds:oxford_flowers102', *official, per_class),
  )
  fields = ('source', 'train', 'validation', 'test', 'metric')
  return {
    name: dict(zip(fields, row, strict=True))
    for name, row in zip(NAMES, rows, strict=True)
  }
