"""In which types the networks of pre-training compute.

Parameters, batch statistics with all arithmetic of batch norm, and what leaves encoder
and heads are float32 in every policy. With 'bfloat16', convolutions, linear layers and
what lies between them are bfloat16; it has the range of float32, so that no loss needs
scaling.
"""

import contextlib
from collections.abc import Iterator

import haiku as hk
import jmp

from sslhsic.networks import heads, resnet

POLICIES = {
  name: jmp.get_policy(f'params=float32,compute={name},output=float32')
  for name in ('float32', 'bfloat16')
}


def policy(name: str) -> contextlib.AbstractContextManager:
  """The context, and decorator, in which Haiku modules compute in a precision.

  Args:
    name: 'float32' or 'bfloat16'.

  Raises:
    ValueError: there is no such policy.
  """
  if name not in POLICIES:
    raise ValueError(f'unknown precision {name!r}; use one of {", ".join(POLICIES)}')
  return _pushed(POLICIES[name])


@contextlib.contextmanager
def _pushed(of_networks: jmp.Policy) -> Iterator[None]:
  # Haiku would compute batch statistics in the type of the activations.
  of_batch_norm = jmp.Policy(
    param_dtype=of_networks.param_dtype,
    compute_dtype=of_networks.param_dtype,
    output_dtype=of_networks.compute_dtype,
  )
  push = hk.mixed_precision.push_policy
  with (
    push(resnet.ResNet, of_networks),
    push(heads.MLP, of_networks),
    push(hk.BatchNorm, of_batch_norm),
  ):
    yield
