"""Sheets of images, pixel by pixel."""

import base64

import cv2
import numpy as np
import pytest

from sslhsic.plots import sheets


def test_sheet_has_a_row_for_each_example(tmp_path):
  grey = lambda value: np.full((10, 20, 3), value, np.uint8)
  columns = {'input': [grey(10), grey(60)], 'truth': [grey(110), grey(160)]}
  sheets.sheet(columns, tmp_path / 'sheet.png')
  pixels = cv2.imread(str(tmp_path / 'sheet.png'))
  height, width, _ = pixels.shape
  for row, values in ((3, (10, 110)), (7, (60, 160))):
    for column, value in zip((1, 3), values, strict=True):
      found = pixels[row * height // 9, column * width // 4]
      assert found.tolist() == [value] * 3


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_address_shows_images_and_frames(channels):
  images = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * 40
  images = np.broadcast_to(images, (2, 3, 8, 8, channels))
  address = sheets.data_address(images, np.array([[0, 1, 0], [0, 0, 0]], bool))
  header, _, png = address.partition(',')
  assert header == 'data:image/png;base64'
  pixels = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), -1)
  side = 8 * 7 + 8  # Enlarged seven times, a gap of four on either side.
  assert pixels.shape == (2 * side, 3 * side, 4)
  for row in range(2):
    for column in range(3):
      cell = pixels[row * side :, column * side :][:side, :side]
      value = 40 * (3 * row + column)
      assert cell[side // 2, side // 2].tolist() == [value, value, value, 255]
      is_marked = cell[2, 2, 3] == 255
      assert is_marked == ((row, column) == (0, 1))
