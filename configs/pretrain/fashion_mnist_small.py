"""SSL-HSIC on Fashion-MNIST: a small ResNet, about ten minutes of a CPU core.

60,000 images of clothing, 28×28 pixels, grey, ten classes, and 10,000 to test
(Xiao et al., arXiv:1708.07747). Get them with `apt-get install dataset-fashion-mnist`,
or name another source, idx:PATH or tfds:fashion_mnist.

On train[55000:], kNN finds no difference (0.836) to a network of twice the cost, with
a small stem and channels (8, 32, 64, 128); learning rate, augmentation and length
are untuned. To choose settings, measure on training images that are held out, never on
the test images:
  --config.data.train_split='train[:55000]'
  --config.evaluation.test_split='train[55000:]'

python -m experiments.pretrain --config=configs/pretrain/fashion_mnist_small.py \
  --workdir=DIR
"""

import ml_collections

from configs.pretrain import digits


def get_config() -> ml_collections.ConfigDict:
  """The configuration of the digits, with the changes below."""
  config = digits.get_config()
  config.data = {
    'source': 'idx:/usr/share/datasets/fashion-mnist',
    'train_split': 'train',
    'crop_size': 0,  # Pixels; 0: whole images, the accelerator crops.
    'interpolation': 'bicubic',  # Of crops; or 'bicubic_antialias'.
    'evaluation_crop': 'shorter_side',  # Of whole images; or 'centre'.
    'evaluation_interpolation': 'bicubic_antialias',  # Published: 'bicubic'.
    'mean': (0.2860,),  # Of the training images, as is usual.
    'std': (0.3530,),
    'num_workers': 0,  # Processes; 0: a thread.
    'max_bad_fraction': 0.001,  # Of images that may be bad.
    'max_pixels': 178_956_970,  # Of an image; larger ones are bad.
    'allow_overlap': False,  # Whether to test on images that are trained on.
  }
  config.augment.views = ({'policy': 'gray'}, {'policy': 'gray'})
  config.network = {
    'encoder': 'resnet18',
    'encoder_options': {
      'blocks_per_group': (1, 1, 1),
      'channels_per_group': (32, 64, 128),
    },
    'head': {'hidden_size': 256, 'output_size': 64},
  }
  config.optimizer.base_learning_rate = 4e-3  # Times batch_size / 256.
  config.training.batch_size = 256
  config.training.epochs = 6
  config.training.warmup_epochs = 1
  # Of kNN and classifiers; with all 60,000 those of pixels alone take many minutes.
  config.evaluation.train_split = 'train[:10000]'
  config.evaluation.batch_size = 1000
  config.runner.log_every = 50
  config.runner.evaluate_every = 702  # 3 epochs.
  config.runner.checkpoint_every = 702
  return config
