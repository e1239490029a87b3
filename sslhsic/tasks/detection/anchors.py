"""Anchors: the boxes that a region proposal network judges, as torchvision lays them.

Ren et al. (2015), https://arxiv.org/abs/1506.01497, section 3.1.1.
"""

from collections.abc import Sequence

import numpy as np


def of_cell(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
  """Anchors of one position, around the origin, with corners at whole pixels.

  Args:
    sizes: roots of their areas.
    aspect_ratios: heights divided by widths.

  Returns:
    [ratios·sizes, 4] float32, ratio by ratio.
  """
  roots = np.sqrt(np.asarray(aspect_ratios, np.float32))
  sizes = np.asarray(sizes, np.float32)
  # Width size/√r and height size·√r have the area size² and the ratio r.
  widths = (1 / roots[:, None] * sizes).ravel()
  heights = (roots[:, None] * sizes).ravel()
  return np.round(np.stack([-widths, -heights, widths, heights], axis=1) / 2)


def grid(cell: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
  """Anchors of every position of a feature map.

  Args:
    cell: anchors of one position, [A, 4].
    height, width: of the feature map.
    stride: pixels of the image from one position to the next; the first is at 0, 0.

  Returns:
    [height·width·A, 4] float32, row by row, the anchors of a position together.
  """
  y, x = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
  # [height, width, 4]: one offset for each of x1, y1, x2, y2.
  shifts = np.stack([x, y, x, y], axis=-1).astype(np.float32) * stride
  return (shifts[:, :, None] + cell).reshape(-1, 4)
