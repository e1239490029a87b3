"""How embeddings lie in space: maps to the plane, spectrum, neighbours."""

import numpy as np
import threadpoolctl

_MIN_POINTS = 4  # Fewer have no neighbours to be kept.
_SMALLEST_SPREAD = 1e-6  # Of directions; less are rounding errors.


def maps(features: np.ndarray) -> dict[str, np.ndarray]:
  """Maps of features [n, d] to the plane, [n, 2], by method.

  Both look at directions alone, which is what the losses shape.
  """
  directions = unit_norm(np.asarray(features, np.float64))
  centred = directions - directions.mean(axis=0)
  _, _, axes = np.linalg.svd(centred, full_matrices=False)
  return {'PCA': centred @ axes[:2].T, 't-SNE': tsne(features)}


def tsne(features: np.ndarray) -> np.ndarray:
  """Map [n, 2] of features [n, d] by t-SNE; of directions, which the losses shape.

  Features that do not vary are all mapped to 0.
  """
  # Here, since it takes a quarter of the time in which a program starts.
  from sklearn import decomposition, manifold

  x = unit_norm(features)
  if len(x) < _MIN_POINTS or x.shape[1] < 2:  # Nothing to map.
    # The first two coordinates; 0 in place of a second that is not there.
    return np.pad(x, ((0, 0), (0, 1)))[:, :2]
  # scikit-learn divides by the spread; of none it makes NaN, which ends the process.
  if x.std(axis=0).max() < _SMALLEST_SPREAD:
    return np.zeros((len(x), 2))
  # Fewer dimensions first, as van der Maaten and Hinton (2008): faster, less noise.
  x = decomposition.PCA(min(50, *x.shape), random_state=0).fit_transform(x)
  # scikit-learn requires a perplexity below the number of points.
  tsne = manifold.TSNE(perplexity=min(30, (len(x) - 1) / 3), random_state=0)
  # So few points are done sooner by one thread than by threads that wait for another.
  with threadpoolctl.threadpool_limits(1):
    return tsne.fit_transform(x)


def spectrum(features: np.ndarray) -> np.ndarray:
  """Eigenvalues of the covariance of features [n, d], as parts of their sum.

  Returns:
    [min(n, d)], the largest first; zeros if the features do not vary.
  """
  centred = features - features.mean(axis=0)
  # Eigenvalues of the covariance up to a factor, which the shares drop.
  variances = np.linalg.svd(centred, compute_uv=False) ** 2
  total = variances.sum()
  return variances / total if total > 0 else variances


def neighbours(features: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
  """The rows [q, count] whose features are nearest to those of `rows`, nearest first.

  By cosine; a feature is not its own neighbour.
  """
  directions = unit_norm(np.asarray(features, np.float64))
  similarity = directions[rows] @ directions.T
  similarity[np.arange(len(rows)), rows] = -np.inf
  return np.argsort(-similarity, axis=1, kind='stable')[:, :count]


def unit_norm(features: np.ndarray) -> np.ndarray:
  """Features [n, d] of length one."""
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
