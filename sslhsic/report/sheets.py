"""Sheets of images, as pictures inside the page."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

_GAP = 4  # Transparent pixels between images, before they are enlarged.
_LEAST_SIDE = 56  # Pixels of an image as shown; small ones are enlarged.
_WRONG = (214, 55, 55, 255)


def sheet(
  rows: Sequence[Sequence[np.ndarray]], marked: np.ndarray | None = None
) -> str:
  """Images in rows, as the address of a PNG with transparent gaps.

  Args:
    rows: uint8 [H, W, 1 or 3], all of one shape.
    marked: [rows, columns], which have a red frame.
  """
  factor = max(1, -(-_LEAST_SIDE // rows[0][0].shape[0]))
  cells = [
    [
      _framed(image, factor, marked is not None and bool(marked[i][j]))
      for j, image in enumerate(row)
    ]
    for i, row in enumerate(rows)
  ]
  picture = np.concatenate([np.concatenate(row, axis=1) for row in cells])
  return data_address(picture)


def data_address(picture: np.ndarray) -> str:
  """A picture, uint8 [H, W, 4] of red, green, blue, alpha, as an address with it."""
  is_done, png = cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA))
  assert is_done
  return f'data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}'


def _framed(image: np.ndarray, factor: int, is_marked: bool) -> np.ndarray:
  height, width, channels = image.shape
  colours = np.repeat(image, 3, axis=2) if channels == 1 else image
  colours = colours.repeat(factor, axis=0).repeat(factor, axis=1)
  frame = np.zeros((factor * height + 2 * _GAP, factor * width + 2 * _GAP, 4), np.uint8)
  if is_marked:
    frame[1:-1, 1:-1] = _WRONG
  inside = frame[_GAP:-_GAP, _GAP:-_GAP]
  inside[..., :3], inside[..., 3] = colours, 255
  return frame
