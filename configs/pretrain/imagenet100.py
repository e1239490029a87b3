"""SSL-HSIC on ImageNet-100: a ResNet-50 on a hundred classes of ImageNet.

No result of SSL-HSIC is published for it. docs/data.md says how to make the folder;
results depend on the choice of its classes. Base learning rate, weight decay and target
decay are BYOL's for 300 epochs.

python -m experiments.pretrain --config=configs/pretrain/imagenet100.py --workdir=DIR
"""

import ml_collections

from configs.pretrain import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: that of ImageNet, but for what follows."""
  config = imagenet.get_config()
  config.data.source = 'folder:data/imagenet100'
  config.target_base_decay = 0.99
  config.optimizer.base_learning_rate = 0.3  # Times batch_size / 256.
  config.optimizer.weight_decay = 1e-6
  config.training = {
    'batch_size': 512,  # Over all devices.
    'epochs': 300,
    'warmup_epochs': 10,
    'precision': 'float32',  # Of the networks; or 'bfloat16'.
    'num_microbatches': 1,  # Of a device's batch, one after another; saves memory.
  }
  config.evaluation.train_split = 'train[:50000]'  # What kNN looks in.
  config.evaluation.test_split = 'validation'
  config.evaluation.batch_size = 1024
  config.runner.log_every = 100
  config.runner.evaluate_every = 4950  # 20 epochs.
  config.runner.checkpoint_every = 4950
  return config
