"""In which types networks compute.

Parameters, all arithmetic of batch norm and layer norm, batch statistics, and what
leaves encoder and heads are float32 in every policy. With 'bfloat16', convolutions,
linear layers and what lies between them are bfloat16; it has the range of float32, so
that no loss needs scaling.
"""

import contextlib
from collections.abc import Iterator

import haiku as hk
import jmp

from sslhsic import networks
from sslhsic.networks import layers

POLICIES = {
  name: jmp.get_policy(f'params=float32,compute={name},output=float32')
  for name in ('float32', 'bfloat16')
}


def policy(
  name: str, *heads_of_task: type[hk.Module]
) -> contextlib.AbstractContextManager:
  """The context, and decorator, in which Haiku modules compute in a precision.

  Args:
    name: 'float32' or 'bfloat16'.
    *heads_of_task: modules besides the encoders and the heads of pre-training.

  Raises:
    ValueError: there is no such policy.
  """
  if name not in POLICIES:
    raise ValueError(f'unknown precision {name!r}; use one of {", ".join(POLICIES)}')
  return _pushed(POLICIES[name], heads_of_task)


@contextlib.contextmanager
def _pushed(
  of_networks: jmp.Policy, heads_of_task: tuple[type[hk.Module], ...]
) -> Iterator[None]:
  # Haiku would compute means and variances in the type of the activations.
  of_norms = jmp.Policy(
    param_dtype=of_networks.param_dtype,
    compute_dtype=of_networks.param_dtype,
    output_dtype=of_networks.compute_dtype,
  )
  push = hk.mixed_precision.push_policy
  with contextlib.ExitStack() as stack:
    encoders = {preset.network for preset in networks.ENCODERS.values()}
    modules: list[type[hk.Module]] = [*encoders, networks.MLP, *heads_of_task]
    for module in modules:
      stack.enter_context(push(module, of_networks))
    for module in (layers.BatchNorm, hk.LayerNorm):
      stack.enter_context(push(module, of_norms))
    yield
