"""Maps of features to the plane."""

import numpy as np
from matplotlib import axes as axes_lib

from sslhsic import storage
from sslhsic.plots import charts, geometry, panels

# More points would hide each other, and t-SNE is slow.
_MAX_POINTS = 2000
MAX_LEGEND = 20  # Classes.


@panels.look()
def embedding_maps(
  features: dict[str, np.ndarray], labels: np.ndarray, path: storage.Path
) -> None:
  """Maps features to the plane by t-SNE, coloured by class, into a PNG.

  Args:
    features: [n, d] by the title of their panel.
    labels: [n], the classes.
    path: where the figure goes.
  """
  shown = labels[:_MAX_POINTS]
  figure, axes = panels.open_figure(
    len(features), columns=len(features), size=(4.6, 4.6)
  )
  for axis, (title, x) in zip(axes, features.items(), strict=True):
    by_class(axis, geometry.tsne(x[:_MAX_POINTS]), shown)
    axis.set_title(title)
  if len(np.unique(shown)) <= MAX_LEGEND:
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc='outside right center', title='class')
  panels.save(figure, path)


def by_class(axis: axes_lib.Axes, points: np.ndarray, labels: np.ndarray) -> None:
  """Draws points [n, 2] in one panel, coloured by class, of labels [n]."""
  groups = {str(name): points[labels == name] for name in np.unique(labels)}
  charts.clouds(axis, groups)
  charts.without_axes(axis)
