"""SSL-HSIC on Fashion-MNIST: a ResNet-18 with a 3×3 stem, for one GPU.

60,000 images of clothing, 28×28 pixels, grey, ten classes, and 10,000 to test
(Xiao et al., arXiv:1708.07747). Get them with `apt-get install dataset-fashion-mnist`,
or name another source, idx:PATH or tfds:fashion_mnist.

No result of SSL-HSIC is published for it, and the settings are untuned. To choose
settings, measure on training images that are held out, never on the test images:
  --config.data.train_split='train[:55000]'
  --config.evaluation.test_split='train[55000:]'

python -m experiments.pretrain --config=configs/pretrain/fashion_mnist.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet
from sslhsic import optim


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with the changes below."""
  config = imagenet.get_config()
  config.data = {
    'source': 'idx:/usr/share/datasets/fashion-mnist',
    'train_split': 'train',
    'crop_size': 0,  # Pixels; 0: whole images, the accelerator crops.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.2860,),  # Of the training images, as is usual.
    'std': (0.3530,),
    'num_workers': 0,  # Processes; 0: a thread, fast enough for whole small images.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment.views = ({'policy': 'gray'}, {'policy': 'gray'})
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {'stem': 'small'},
    'head': {'hidden_size': 2048, 'output_size': 256},
  }
  config.optimizer.update(
    base_learning_rate=1e-3,  # Times batch_size / 256.
    weight_decay=1e-4,
    **optim.settings('adamw'),
  )
  config.training = {
    'batch_size': 512,  # Over all devices.
    'epochs': 30,
    'warmup_epochs': 3,
    'precision': 'bfloat16',  # Of the networks; or 'float32'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  # Of kNN and classifiers, as in the small preset.
  config.evaluation.train_split = 'train[:10000]'
  config.evaluation.test_split = 'test'
  config.evaluation.batch_size = 1000
  config.evaluation.representations = ('pixels', 'untrained', 'trained')
  config.runner.log_every = 100
  config.runner.evaluate_every = 1170  # 10 epochs.
  config.runner.checkpoint_every = 1170
  return config
