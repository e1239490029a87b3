"""What the tables share: what runs at each scale, and columns.

A table is a function of the base, the scale that it is made at:

  title, note: what it shows, and what is to be known about it.
  steps: the configurations that run for a row, FOLDER/NAME below configs/, by step.
  columns: title -> (step, name in its results.json, 'percent' or 'plain').
  rows: title -> what differs in the configuration of 'pretrain'; RANDOM for an encoder
    that was not trained; SUPERVISED for one that the step of that name trains on
    labels; PUBLISHED for a row without runs.
  published: row -> column -> value. What is not known is left out, and so are rows that
    have neither runs nor such values.
  baselines, if any: title of a row -> column -> name in the results of a row.
  of_changed_rows, if any: overrides of every row that differs from the base.

Evaluations use the encoder and normalisation of the row's pre-training, or the base's
if the row has no pre-training.
"""

from typing import Any

RANDOM = 'random'
SUPERVISED = 'supervised'
PUBLISHED = None

STEPS = {
  'digits': {
    'pretrain': 'pretrain/digits',
    'linear': 'linear_eval/digits',
    'few_label': 'few_label/digits',
    'finetune_1pct': 'finetune/digits_1pct',
    'finetune_10pct': 'finetune/digits_10pct',
    'transfer_linear': 'transfer/digits_linear',
    'transfer_finetune': 'transfer/digits_finetune',
  },
  'fashion_mnist_small': {
    'pretrain': 'pretrain/fashion_mnist_small',
    'linear': 'linear_eval/fashion_mnist_small',
    'few_label': 'few_label/fashion_mnist_small',
    'finetune_1pct': 'finetune/fashion_mnist_small_1pct',
    'finetune_10pct': 'finetune/fashion_mnist_small_10pct',
    'supervised': 'finetune/fashion_mnist_small_100pct',
    'transfer_linear': 'transfer/fashion_mnist_small_linear',
  },
  'cifar10': {
    'pretrain': 'pretrain/cifar10',
    'linear': 'linear_eval/cifar10',
    'few_label': 'few_label/cifar10',
    'finetune_1pct': 'finetune/cifar10_1pct',
    'finetune_10pct': 'finetune/cifar10_10pct',
  },
  'imagenette': {
    'pretrain': 'pretrain/imagenette',
    'linear': 'linear_eval/imagenette',
    'few_label': 'few_label/imagenette',
    'finetune_1pct': 'finetune/imagenette_1pct',
    'finetune_10pct': 'finetune/imagenette_10pct',
  },
  'imagenet': {
    'pretrain': 'pretrain/imagenet',
    'linear': 'linear_eval/imagenet',
    'few_label': 'few_label/imagenet',
    'finetune_1pct': 'finetune/imagenet_1pct',
    'finetune_10pct': 'finetune/imagenet_10pct',
    'finetune_100pct': 'finetune/imagenet_100pct',
    'transfer_linear': 'transfer/linear',
    'transfer_finetune': 'transfer/finetune',
    'segmentation': 'segmentation/voc',
    'depth': 'depth/nyu',
    'detection_coco': 'detection/coco_detectron2',
    'detection_voc': 'detection/voc_byol',
  },
  'shapes': {
    'pretrain': 'pretrain/shapes',
    'segmentation': 'segmentation/shapes',
    'depth': 'depth/shapes',
    'detection': 'detection/shapes',
  },
}

# What ablations of small data sets start from.
_SHORT = {
  'digits': 'pretrain/digits_40epochs',
  'fashion_mnist_small': 'pretrain/fashion_mnist_tiny',
}

CLASSIFICATION = ('digits', 'fashion_mnist_small', 'cifar10', 'imagenette', 'imagenet')
DENSE = ('shapes', 'imagenet')


def steps(base: str, *names: str) -> dict[str, str]:
  """What makes encoders, and these evaluations of them, at the scale of a base."""
  made = ('pretrain', 'supervised') if has_supervised(base) else ('pretrain',)
  return {name: STEPS[base][name] for name in (*made, *names)}


def has_supervised(base: str) -> bool:
  """Whether a base has a network that is trained on labels."""
  return 'supervised' in STEPS[base]


def of_imagenet(base: str, value: Any) -> Any:
  """What was published, or is said of it; at other scales than ImageNet's, nothing."""
  return value if base == 'imagenet' else type(value)()


def ablation(
  base: str, *, title: str, note: str, rows: dict[str, Any]
) -> dict[str, Any]:
  """A table of an ablation, in which pre-training is short.

  A linear classifier, kNN, and what one label per class is worth, which on small data
  sets tells encoders apart when all labels do not. Of these sets, pre-training itself
  measures all three, of pixels and the untrained encoder too, so that a row and a seed
  are one run of minutes. A supervised network, if the base has one, comes first.
  """
  if base in _SHORT:
    of_base = steps(base) | {'pretrain': _SHORT[base]}
    linear, few_label = ('pretrain', 'pretrain')
    few_labels = 'few_label_top1.trained.1'
    baselines = {
      row: {
        'linear top-1': f'representations.{name}.linear_top1',
        'kNN top-1': f'representations.{name}.knn_top1',
        '1 label per class': f'few_label_top1.{name}.1',
      }
      for row, name in (('pixels', 'pixels'), ('untrained encoder', 'untrained'))
    }
  else:
    of_base = steps(base, 'linear', 'few_label')
    of_base['pretrain'] += '_100epochs'
    linear, few_label = ('linear', 'few_label')
    few_labels = 'few_label_top1.1'
    baselines = {}
  columns = {
    'linear top-1': (linear, 'linear_top1', 'percent'),
    'kNN top-1': ('pretrain', 'knn_top1', 'percent'),
    '1 label per class': (few_label, few_labels, 'percent'),
  }
  supervised = {'supervised network': SUPERVISED} if has_supervised(base) else {}
  return {
    'title': title,
    'note': note,
    'steps': of_base,
    'columns': columns,
    'rows': supervised | rows,
    'published': {},
    'baselines': baselines,
    'of_changed_rows': of_changed_rows(base),
  }


def of_changed_rows(base: str) -> dict[str, Any]:
  """What rows of small data sets leave out, since it is the same in all of them."""
  if base not in _SHORT:
    return {}
  return {'evaluation.representations': ('trained',)}


def transferred(base: str) -> dict[str, Any]:
  """Rows of the tables on other tasks: encoders that are worth a comparison."""
  rows = {
    'SSL-HSIC, with target network': {'target_network': True},
    'SSL-HSIC, without': {'target_network': False},
    'BYOL': {'loss.name': 'byol'},
    'random initial values': RANDOM,
    'SimCLR': PUBLISHED,
    'supervised': SUPERVISED if has_supervised(base) else PUBLISHED,
  }
  if base == 'fashion_mnist_small':
    # Its runs would take half an hour of a core a seed; `losses` compares BYOL.
    del rows['BYOL']
  return rows
