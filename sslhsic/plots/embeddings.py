"""Pictures of features."""

import pathlib

import numpy as np
import threadpoolctl
from matplotlib import figure
from sklearn import decomposition, manifold

# More points would hide each other, and t-SNE is slow.
_MAX_POINTS = 2000
_MIN_POINTS = 4  # Fewer have no neighbours to be kept.


def embedding_maps(
  features: dict[str, np.ndarray], labels: np.ndarray, path: pathlib.Path
) -> None:
  """Maps features to the plane by t-SNE, coloured by class, into a PNG.

  Args:
    features: [n, d] by the title of their panel.
    labels: [n], the classes.
    path: where the picture goes.
  """
  picture = figure.Figure(figsize=(4.6 * len(features), 4.6))
  axes = picture.subplots(1, len(features), squeeze=False)
  for axis, (title, x) in zip(axes.flat, features.items(), strict=True):
    points = tsne(x[:_MAX_POINTS])
    scatter = axis.scatter(
      *points.T,
      c=labels[:_MAX_POINTS],
      s=9,
      cmap='tab10' if max(labels) < 10 else 'hsv',
    )
    axis.set_title(title)
    axis.set_xticks([])
    axis.set_yticks([])
  if max(labels) < 20:
    picture.legend(
      *scatter.legend_elements(num=None), loc='center right', title='class'
    )
  picture.tight_layout(rect=(0, 0, 0.93, 1))
  picture.savefig(path, dpi=110)


def few_label_curve(top1: dict[int, float], path: pathlib.Path) -> None:
  """Draws top-1 accuracy by labels per class into a PNG."""
  picture = figure.Figure(figsize=(4.6, 3.4))
  axis = picture.subplots()
  axis.plot(list(top1), list(top1.values()), marker='.')
  axis.set_xscale('log')
  axis.set_xticks(list(top1), [str(count) for count in top1])
  axis.minorticks_off()
  axis.set_xlabel('labels per class')
  axis.set_ylabel('top-1')
  axis.grid(alpha=0.3)
  picture.tight_layout()
  picture.savefig(path, dpi=110)


def tsne(x: np.ndarray) -> np.ndarray:
  """[n, d] -> [n, 2]; the cosine of features is what the loss shapes."""
  x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  if len(x) < _MIN_POINTS or x.shape[1] < 2:  # Nothing to map.
    return np.pad(x, ((0, 0), (0, 1)))[:, :2]
  x = decomposition.PCA(min(50, *x.shape), random_state=0).fit_transform(x)
  tsne = manifold.TSNE(perplexity=min(30, (len(x) - 1) / 3), random_state=0)
  # So few points are done sooner by one thread than by threads that wait for another.
  with threadpoolctl.threadpool_limits(1):
    return tsne.fit_transform(x)
