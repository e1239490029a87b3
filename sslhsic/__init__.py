"""Self-supervised learning by kernel dependence maximisation (SSL-HSIC)."""

import pathlib
import typing

if typing.TYPE_CHECKING:
  from sslhsic.inference import Encoder


def load(init_from: str | pathlib.Path) -> 'Encoder':
  """A pre-trained encoder as a function, with its preprocessing; see `Encoder`.

  Args:
    init_from: a pre-training run, DIR/checkpoints/STEP, what `experiments.export` has
      made of one, a finished fine-tuning, or a safetensors file of a ResNet of
      torchvision, timm or Hugging Face.

  Raises:
    ValueError: there is none, or it cannot be used.
  """
  # Whoever wants the losses alone does not wait for what reads checkpoints.
  from sslhsic import inference

  return inference.Encoder(init_from)
