"""Sheets of images: into a file with titles, or inside a page with frames."""

import base64
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np

from sslhsic import storage
from sslhsic.data.annotations import VOID
from sslhsic.plots import panels

_INCHES = 2.0  # Width of an image on the sheet.
_LEAST_HEIGHT = 384  # Pixels, of an image with letters, or so.
_GAP = 4  # Transparent pixels on each side of an image, after it is enlarged.
_LEAST_SIDE = 56  # Pixels of an image inside a page; small ones are enlarged.
_MARK = (214, 55, 55, 255)


def sheet(columns: Mapping[str, Sequence[np.ndarray]], path: storage.Path) -> None:
  """Puts images side by side into a PNG, a row for each example.

  Args:
    columns: uint8 [H, W, 3] of every example, by the title of their column.
    path: where the sheet goes.
  """
  rows = list(zip(*columns.values(), strict=True))
  height, width, _ = rows[0][0].shape
  # Room for the titles.
  size = _INCHES, _INCHES * height / width + 0.3 / len(rows)
  figure, axes = panels.open_figure(
    len(rows) * len(columns), columns=len(columns), size=size
  )
  for axis, image in zip(axes, [x for row in rows for x in row], strict=True):
    axis.imshow(image, interpolation='nearest')
    axis.set_axis_off()
  for axis, title in zip(axes, columns, strict=False):
    axis.set_title(title)
  panels.save(figure, path)


def data_address(
  rows: Sequence[Sequence[np.ndarray]], marked: np.ndarray | None = None
) -> str:
  """Puts images side by side into a PNG with transparent gaps, as an address with it.

  Args:
    rows: uint8 [H, W, 1 or 3], all of one shape.
    marked: [rows, columns], which have a red frame.
  """
  # Rounded up: images are enlarged by whole factors, so that pixels stay square.
  factor = max(1, -(-_LEAST_SIDE // rows[0][0].shape[0]))
  cells = [
    [
      _framed(image, factor, marked is not None and bool(marked[i][j]))
      for j, image in enumerate(row)
    ]
    for i, row in enumerate(rows)
  ]
  pixels = np.concatenate([np.concatenate(row, axis=1) for row in cells])
  # OpenCV writes channels as blue, green, red.
  is_done, png = cv2.imencode('.png', cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
  assert is_done
  return f'data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}'


def _framed(image: np.ndarray, factor: int, is_marked: bool) -> np.ndarray:
  height, width, channels = image.shape
  # Of many channels the first three are shown, of two the first.
  colours = image[..., :3] if channels > 2 else image[..., :1].repeat(3, axis=2)
  colours = colours.repeat(factor, axis=0).repeat(factor, axis=1)
  frame = np.zeros((factor * height + 2 * _GAP, factor * width + 2 * _GAP, 4), np.uint8)
  if is_marked:
    frame[1:-1, 1:-1] = _MARK
  inside = frame[_GAP:-_GAP, _GAP:-_GAP]
  inside[..., :3], inside[..., 3] = colours, 255
  return frame


def of_classes(classes: np.ndarray) -> np.ndarray:
  """Colours [H, W, 3] of classes [H, W]: 0 (background) is black, void is white."""
  colours = np.full((256, 3), 255)
  # tab20 again and again; the last number, void, stays white.
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
      # Halved first: the sum of two uint8 would overflow.
      picture[inside] = picture[inside] // 2 + colour // 2
    x1, y1, x2, y2 = (round(factor * float(x)) for x in box)
    drawing = {'color': colour.tolist(), 'thickness': 2}
    cv2.rectangle(picture, (x1, y1), (x2, y2), **drawing)
    # Above the box, or inside it where the box touches the top of the image.
    corner = x1 + 2, max(y1 - 5, 14)
    cv2.putText(
      picture, names[number], corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, **drawing
    )
  return picture
