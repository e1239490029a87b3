"""Says how the programs run: `python -m sslhsic`."""

import importlib.metadata

_TEXT = """sslhsic {version}: self-supervised learning by kernel dependence maximisation

The installed package is the library. Use it in Python:

  import sslhsic
  from sslhsic import losses

  encoder = sslhsic.load(DIR)  # A run, an export or a safetensors file.
  loss = losses.create('ssl_hsic')

Programs and configurations run from a checkout, in its root directory:

  python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=DIR

README.md there lists the programs, docs/ describes them."""

if __name__ == '__main__':
  print(_TEXT.format(version=importlib.metadata.version('sslhsic')))
