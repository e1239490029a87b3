"""Time to fit a linear probe: `evaluation.probe` and scikit-learn, side by side.

Run `python -m benchmarks.probe`. Features are synthetic embeddings, class means plus
noise through a ReLU. Both solvers minimise the same objective in float32 on the same
machine. scikit-learn's LogisticRegression (its L-BFGS) is given the loosest tolerance
that brings it to within 1e-4 of the smaller of the two objectives, and only that fit is
timed. Ours is timed after compilation, which is reported by itself.

Prints a table and, as the last line, the same as JSON.
"""

import json
import os
import time
import warnings

import jax
import numpy as np
import sklearn
from sklearn import exceptions, linear_model

from sslhsic.evaluation import probe

L2S = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
SAME_OBJECTIVE = 1e-4


def synthetic_embeddings(
  num_examples: int, dim: int, num_classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Features [n, d], float32 and not negative, and labels [n] of balanced classes."""
  rng = np.random.default_rng(seed)
  labels = np.arange(num_examples) % num_classes
  means = 0.15 * rng.standard_normal((num_classes, dim))
  noise = rng.standard_normal((num_examples, dim))
  return np.maximum(means[labels] + noise, 0).astype(np.float32), labels


def seconds(fit, *args, **kwargs):
  """Calls a fit; returns what it returns and the wall time it took."""
  start = time.perf_counter()
  fitted = jax.block_until_ready(fit(*args, **kwargs))
  return fitted, time.perf_counter() - start


def fit_sklearn(features, labels, l2, tolerance):
  """scikit-learn's fit, as a LinearProbe."""
  model = linear_model.LogisticRegression(
    C=1 / (len(labels) * l2), tol=tolerance, max_iter=10_000
  )
  with warnings.catch_warnings():
    # Below the rounding error of float32 its line search gives up; f is checked here.
    warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
    model.fit(features, labels)
  return probe.LinearProbe(model.coef_.T, model.intercept_)


def compare(features, labels, num_classes, l2):
  """Times both solvers at one λ; returns a row of the table."""
  ours, our_seconds = seconds(
    probe.fit, features, labels, num_classes=num_classes, l2=l2
  )
  our_value = float(probe.objective(ours, features, labels, l2))
  for tolerance in TOLERANCES:
    theirs, their_seconds = seconds(fit_sklearn, features, labels, l2, tolerance)
    their_value = float(probe.objective(theirs, features, labels, l2))
    if their_value <= our_value * (1 + SAME_OBJECTIVE):
      break
  return {
    'l2': l2,
    'seconds': our_seconds,
    'sklearn_seconds': their_seconds,
    'ratio': their_seconds / our_seconds,
    'objective': our_value,
    'sklearn_objective': their_value,
    'sklearn_tolerance': tolerance,
    'same_objective': abs(our_value - their_value)
    <= SAME_OBJECTIVE * min(our_value, their_value),
  }


def measure(num_examples: int, dim: int, num_classes: int, l2s=L2S) -> dict:
  """Compares both solvers at every λ, then fits the whole path in one call."""
  features, labels = synthetic_embeddings(num_examples, dim, num_classes)
  fit = {'num_classes': num_classes, 'l2': l2s[0]}
  fit_path = {'num_classes': num_classes, 'l2s': l2s}
  first = seconds(probe.fit, features, labels, **fit)[1]
  again = seconds(probe.fit, features, labels, **fit)[1]
  rows = [compare(features, labels, num_classes, l2) for l2 in l2s]
  seconds(probe.fit_path, features, labels, **fit_path)  # compiles
  path_seconds = seconds(probe.fit_path, features, labels, **fit_path)[1]
  return {
    'benchmark': 'probe',
    'shape': [num_examples, dim, num_classes],
    'fits': rows,
    'ratio': sum(row['sklearn_seconds'] for row in rows)
    / sum(row['seconds'] for row in rows),
    'same_objective': all(row['same_objective'] for row in rows),
    'path_seconds': path_seconds,
    'compile_seconds': first - again,
    'device': jax.devices()[0].device_kind,
    'cores': os.cpu_count(),
    'versions': {'jax': jax.__version__, 'scikit-learn': sklearn.__version__},
  }


def table(measured: dict) -> str:
  """The measurements as lines of text."""
  columns = (
    'l2',
    'seconds',
    'sklearn_seconds',
    'ratio',
    'objective',
    'sklearn_objective',
  )
  lines = [' '.join(f'{column:>18}' for column in columns)]
  for row in measured['fits']:
    lines.append(' '.join(f'{row[column]:18.6g}' for column in columns))
  lines.append(
    f'all λ: {measured["ratio"]:.1f} times as fast; as one path '
    f'{measured["path_seconds"]:.1f} s; compilation {measured["compile_seconds"]:.1f} s'
  )
  return '\n'.join(lines)


def main() -> None:
  """Measures at the size of a small transfer task on ResNet-50 features."""
  measured = measure(num_examples=5000, dim=2048, num_classes=100)
  print(table(measured))
  print(json.dumps(measured))


if __name__ == '__main__':
  main()
