"""Singular values of features that are spread over hosts.

They are functions of sums of d and d×d numbers, which are added up in float64: rounding
is then below what float32 features have by themselves.
"""

from typing import NamedTuple

import chex
import numpy as np

from sslhsic import parallel
from sslhsic.evaluation import features as features_lib

# What the last layers of a network lose of float32, as a factor.
_LOST_DIGITS = 16


class Moments(NamedTuple):
  """Sums over the features x of all hosts, float64.

  Attributes:
    num_features: n.
    total: Σ x, [d].
    products: Σ x xᵀ, [d, d].
  """

  num_features: int
  total: np.ndarray
  products: np.ndarray


def moments(features: chex.Array) -> Moments:
  """The sums for features [n, d] of this host and the others."""
  features = np.asarray(features)
  chex.assert_rank(features, 2)
  dim = features.shape[1]
  total, products = np.zeros(dim), np.zeros((dim, dim))
  for part in features_lib.chunks(features):
    part = part.astype(np.float64)
    total += part.sum(axis=0)
    products += part.T @ part
  count = parallel.sum_of_hosts(len(features))
  return Moments(
    int(count), parallel.sum_of_hosts(total), parallel.sum_of_hosts(products)
  )


def singular_values(of: Moments, *, centred: bool) -> np.ndarray:
  """Of the matrix [n, d] of all features, from large to small, [min(n, d)] float64.

  Args:
    of: the sums.
    centred: whether the mean of the features is subtracted.
  """
  products = of.products
  if centred:
    products = products - np.outer(of.total, of.total) / of.num_features
  # Rounding can make zeros negative.
  squares = np.maximum(np.linalg.eigvalsh(products)[::-1], 0)
  return np.sqrt(squares[: min(of.num_features, len(squares))])


def rounding_error(of: Moments) -> float:
  """Singular values below this are rounding errors of float32 features."""
  # Relative to the norm before centring, where the rounding errors arise. If every
  # number is wrong by a part ε of it, no singular value is by more than ε of the norm.
  norm = np.sqrt(np.trace(of.products))
  return float(_LOST_DIGITS * np.finfo(np.float32).eps * norm)
