"""The losses that are measured, by the names that tables give them."""

import functools
from typing import Any

import chex

from benchmarks import loss
from sslhsic import losses


def _hsic(estimator: str, **settings: Any) -> tuple[str, dict[str, Any]]:
  """SSL-HSIC by an estimator, with no setting of another one."""
  others = dict.fromkeys(('block_size', 'num_features', 'sampler'))
  return 'ssl_hsic', {'estimator': estimator, **others, **settings}


# Name -> name and settings of the loss.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
  'ssl_hsic, pairs': _hsic('pairs', block_size=16),
  'ssl_hsic, covariance': _hsic('pairs', block_size=16, covariance=True),
  'ssl_hsic, exact': _hsic('exact'),
  'ssl_hsic, 512 iid': _hsic('features', num_features=512, sampler='iid'),
  'ssl_hsic, 512 stratified': _hsic('features', num_features=512, sampler='stratified'),
  'ssl_hsic, 64 stratified': _hsic('features', num_features=64, sampler='stratified'),
  **{name: (name, {}) for name in losses.LOSSES if name != 'ssl_hsic'},
}


def function(method: str):
  """A function (projections, rng, axis_name=None) -> loss.

  Besides the names in `METHODS` there is `loss.BASELINE`.
  """
  if method == loss.BASELINE:
    return loss.published
  name, chosen = METHODS[method]
  return functools.partial(_value, losses.create(name, **chosen))


def _value(
  objective: losses.SSLHSIC,
  projections: losses.Projections,
  rng: chex.PRNGKey,
  axis_name: str | None = None,
) -> chex.Array:
  return objective(
    objective.init(rng, projections.online.shape[-1]), rng, projections, axis_name
  )[0]
