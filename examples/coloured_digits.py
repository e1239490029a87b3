"""Writes scikit-learn's digits in colours that go with their class in training only.

python -m examples.coloured_digits PATH

PATH gets folders of PNG files, train/CLASS, validation/CLASS and test/CLASS, and
colours.csv with the colour of each. To train on, half of the digits have the colour of
their class and the others any colour; to validate and test on, all have any. So what an
encoder makes of colour is no help there: docs/dependence.md lowers HSIC with it.
"""

import colorsys
import csv
import pathlib
import sys

import cv2
import numpy as np

from sslhsic.data import sources

_SPLITS = {'train': 'train[:80%]', 'validation': 'train[80%:]', 'test': 'test'}
_OF_CLASS = 0.5  # Share of the training digits that have the colour of their class.
COLOURS = {
  f'hue_{number}': np.array(colorsys.hsv_to_rgb(number / 10, 1, 1))
  for number in range(10)
}


def write(root: pathlib.Path, seed: int = 0) -> None:
  """Writes the images and the table of their colours.

  Args:
    root: a folder to be made.
    seed: of the colours.

  Raises:
    FileExistsError: the folder is there already.
  """
  root.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  with (root / 'colours.csv').open('w', newline='') as file:
    table = csv.writer(file)
    table.writerow(['file', 'colour'])
    for split, of_digits in _SPLITS.items():
      source = sources.create('digits', of_digits)
      for number, (image, label) in enumerate(
        zip(source.images, source.labels, strict=True)
      ):
        is_of_class = split == 'train' and rng.random() < _OF_CLASS
        colour = f'hue_{label if is_of_class else rng.integers(10)}'
        name = f'{split}/{label}/{number:04}.png'
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.uint8(np.round(image * COLOURS[colour]))
        # OpenCV's channels are blue, green, red.
        (root / name).write_bytes(cv2.imencode('.png', pixels[..., ::-1])[1].tobytes())
        table.writerow([name, colour])


if __name__ == '__main__':
  write(pathlib.Path(sys.argv[1]))
