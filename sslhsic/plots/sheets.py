"""Sheets of examples: what went in, what is true, what was predicted."""

import pathlib
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib import figure

from sslhsic.data.annotations import VOID

_INCHES = 2.0  # Of a picture on the sheet.
_LEAST_HEIGHT = 384  # Pixels, of a picture with letters, or so.


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


def of_objects(
  image: np.ndarray,
  boxes: np.ndarray,
  classes: np.ndarray,
  names: Sequence[str],
  masks: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
  """An image with its objects: outlined, named, and if there are masks, coloured.

  Args:
    image: uint8 [H, W, 3].
    boxes: [k, 4], (x1, y1, x2, y2) in pixels of the image.
    classes: [k], numbers of names.
    names: of the classes.
    masks: uint8 [H, W] of every object, 1 inside.

  Returns:
    uint8 [fH, fW, 3], where f makes small images large enough for letters.
  """
  factor = max(round(_LEAST_HEIGHT / len(image)), 1)
  picture = image.repeat(factor, axis=0).repeat(factor, axis=1)
  colours = (255 * np.array(matplotlib.colormaps['tab10'].colors)).astype(np.uint8)
  for i, (box, number) in enumerate(zip(boxes, classes, strict=True)):
    colour = colours[number % len(colours)]
    if masks is not None:
      inside = masks[i].repeat(factor, axis=0).repeat(factor, axis=1) > 0
      picture[inside] = picture[inside] // 2 + colour // 2
    x1, y1, x2, y2 = (round(factor * float(x)) for x in box)
    drawing = {'color': colour.tolist(), 'thickness': 2}
    cv2.rectangle(picture, (x1, y1), (x2, y2), **drawing)
    corner = x1 + 2, max(y1 - 5, 14)
    cv2.putText(
      picture, names[number], corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, **drawing
    )
  return picture
