"""Is the training still sound: are its numbers finite, do its features vary?"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp

from sslhsic.runs.experiment import Scalars

# What must be finite, of the scalars of a step.
_WATCHED = ('loss', 'gradient_norm')


class NotFiniteError(Exception):
  """A number that must be finite is not.

  Attributes:
    step: after how many updates.
    terms: name -> value, as text (JSON has no infinity).
  """

  def __init__(self, step: int, terms: dict[str, str]):
    self.step = step
    self.terms = terms
    named = ', '.join(f'{name} is {value}' for name, value in terms.items())
    super().__init__(f'step {step} is not finite: {named}')


def prefetch(scalars: Scalars) -> None:
  """Lets what `check_scalars` reads come to the host as soon as it is there."""
  for name in _WATCHED:
    if isinstance(scalars.get(name), jax.Array):
      scalars[name].copy_to_host_async()


def check_scalars(step: int, scalars: Scalars) -> None:
  """Checks loss and gradient norm of a step that is finished.

  Raises:
    NotFiniteError: one is not finite; it names every scalar that is not.
  """
  # The common case fetches two numbers; the others follow only if one is not finite.
  watched = jax.device_get({x: scalars[x] for x in _WATCHED if x in scalars})
  if all(map(math.isfinite, watched.values())):
    return
  values = {name: float(value) for name, value in scalars.items()}
  bad = {name: str(x) for name, x in values.items() if not math.isfinite(x)}
  raise NotFiniteError(step, bad)


def check_arrays(step: int, arrays: chex.ArrayTree) -> None:
  """Checks what is about to be saved, on the device.

  Raises:
    NotFiniteError: an array is not finite; it names the first such.
  """
  paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(arrays), strict=True)
  # One Boolean an array leaves the device.
  finite = jax.device_get(_are_finite(leaves))
  for path, is_finite in zip(paths, finite, strict=True):
    if not is_finite:
      raise NotFiniteError(step, {jax.tree_util.keystr(path): 'not finite'})


@jax.jit
def _are_finite(leaves: Iterable[chex.Array]) -> list[chex.Array]:
  return [
    jnp.isfinite(x).all() if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.bool_(True)
    for x in leaves
  ]


class CollapseWatch:
  """Notices features that have stopped to vary, from scalars that are logged anyway.

  Args:
    minima: scalar -> the least value that is sound.
    patience: how often in a row a scalar may be below.

  Attributes:
    warning: what is below now, for so long, or nothing.
  """

  def __init__(self, minima: Mapping[str, float], patience: int):
    self._minima = dict(minima)
    self._patience = patience
    self._times_below = dict.fromkeys(self._minima, 0)
    self._shown = {}

  @property
  def warning(self) -> str:
    """What is too low for too long, or the empty string."""
    return ', '.join(self._shown.values())

  def look(self, scalars: Mapping[str, Any]) -> str:
    """Counts these scalars in.

    Returns:
      What has become too low by them; once, until it has recovered.
    """
    news = []
    for name, minimum in self._minima.items():
      if name not in scalars:
        continue
      # NaN fails this comparison, and so counts as too low.
      if scalars[name] >= minimum:
        self._times_below[name] = 0
        self._shown.pop(name, None)
        continue
      self._times_below[name] += 1
      if self._times_below[name] >= self._patience:
        if name not in self._shown:
          news.append(name)
        self._shown[name] = f'collapse? {name} {scalars[name]:.2g} < {minimum:g}'
    return ', '.join(self._shown[name] for name in news)
