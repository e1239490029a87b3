"""Sheets of examples: what went in, what is true, what was predicted."""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import figure

from sslhsic.data.dense import VOID

_INCHES = 2.0  # Of a picture on the sheet.


def sheet(columns: Mapping[str, Sequence[np.ndarray]], path: pathlib.Path) -> None:
  """Puts pictures side by side into a PNG, a row for each example.

  Args:
    columns: uint8 [H, W, 3] of every example, by the title of their column.
    path: where the sheet goes.
  """
  rows = len(next(iter(columns.values())))
  height, width, _ = next(iter(columns.values()))[0].shape
  size = _INCHES * len(columns), _INCHES * rows * height / width + 0.3
  picture = figure.Figure(figsize=size, layout='constrained')
  axes = picture.subplots(rows, len(columns), squeeze=False)
  for column, (title, images) in zip(axes.T, columns.items(), strict=True):
    column[0].set_title(title, fontsize=10)
    for axis, image in zip(column, images, strict=True):
      axis.imshow(image, interpolation='nearest')
      axis.set_axis_off()
  picture.savefig(path, dpi=110)


def of_classes(classes: np.ndarray) -> np.ndarray:
  """Colours [H, W, 3] of classes [H, W]: 0 (background) is black, void is white."""
  colours = np.full((256, 3), 255)
  colours[:VOID] = 255 * np.resize(matplotlib.colormaps['tab20'].colors, (VOID, 3))
  colours[0] = 0
  return colours[classes].astype(np.uint8)


def of_depths(depth: np.ndarray, largest: float) -> np.ndarray:
  """Colours [H, W, 3] of depths [H, W]; near is bright, what is not known is black."""
  colours = matplotlib.colormaps['magma_r'](np.clip(depth / largest, 0, 1))[..., :3]
  return (255 * np.where(depth[..., None] > 0, colours, 0)).astype(np.uint8)
