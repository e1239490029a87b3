"""Draws a room with flat shapes in it, whose geometry is known.

The camera looks into a room with a floor and a wall. A plane's inverse depth is linear
in image coordinates, which run from 0 to 1, x to the right and y downwards. Shapes hang
upright at one depth each, larger if they are near; the floor, the wall and the shapes
have textures whose scale is in proportion to 1 / depth, too.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

CLASSES = ('disc', 'square', 'triangle', 'star', 'ring', 'cross')

NEAREST = 2.0  # Metres; the floor's at the lower edge of the picture.
_FARTHEST_SHAPE = 4.5
_RADIUS = 0.24  # Of a shape at the depth NEAREST.
_LARGEST_TURN = np.pi / 6
_HAZE = np.array([205, 215, 225], np.float32)
_HAZE_DEPTH = 30.0  # Metres, after which 1 / e of the colour is left.

_TEXTURE_SIDE = 128
_TEXELS = 64  # Of a texture, per metre and unit of image coordinates.


class Strength(NamedTuple):
  """How much a texture stands out, as fractions.

  Attributes:
    saturation: of its colours.
    contrast: between its two colours.
  """

  saturation: float
  contrast: float


_VIVID = Strength(saturation=0.8, contrast=0.25)  # Shapes.
_PALE = Strength(saturation=0.2, contrast=0.4)  # All else.


class Room(NamedTuple):
  """Where floor and wall are.

  Attributes:
    horizon: y where the floor would end if there was no wall.
    wall: depth of its middle.
    tilt: by how much the wall's inverse depth grows from left to right, as a fraction.
  """

  horizon: float
  wall: float
  tilt: float

  def depth(self, side: int) -> np.ndarray:
    """Of floor and wall, without shapes: float32 [side, side]."""
    places = centres(side)
    wall = (1 + self.tilt * (places - 0.5)) / self.wall
    # Inverse depth, linear in y: 0 at the horizon, 1 / NEAREST at the lower edge.
    floor = (places - self.horizon) / ((1 - self.horizon) * NEAREST)
    # The nearer surface hides the other one: the larger inverse depth counts.
    return 1 / np.maximum(wall, floor[:, None])

  def lowest(self, depth: float) -> float:
    """The y at which something of this depth stands on the floor."""
    return self.horizon + (1 - self.horizon) * NEAREST / depth


class Shape(NamedTuple):
  """An object.

  Attributes:
    number: of its class.
    depth: in metres.
    outlines: [p, 2] each, (x, y) of its corners.
  """

  number: int
  depth: float
  outlines: list[np.ndarray]


def centres(side: int) -> np.ndarray:
  """Coordinates of the pixels of a row, float32 [side]."""
  return (np.arange(side, dtype=np.float32) + 0.5) / side


def draw_layout(rng: np.random.Generator) -> tuple[Room, list[Shape]]:
  """A random room, and two to four shapes in it: the nearest last."""
  room = Room(rng.uniform(0.3, 0.36), rng.uniform(3, 8), rng.uniform(-0.4, 0.4))
  # In front of the wall, whose inverse depth is at most (1 + |tilt| / 2) / wall.
  farthest = min(0.95 * room.wall / (1 + abs(room.tilt) / 2), _FARTHEST_SHAPE)
  count = rng.integers(2, 5)
  # Log-uniform from NEAREST to the farthest.
  depths = np.sort(NEAREST * (farthest / NEAREST) ** rng.random(count))[::-1]
  return room, [_draw_shape(rng, room, depth) for depth in depths]


def _draw_shape(rng: np.random.Generator, room: Room, depth: float) -> Shape:
  number = int(rng.integers(len(CLASSES)))
  radius = _RADIUS * NEAREST / depth * rng.uniform(0.9, 1.1)
  # The farthest corner is 1.3 radii away, and must not be below the floor.
  height = rng.uniform(0.6 * radius, room.lowest(depth) - 1.4 * radius)
  centre = np.array([rng.uniform(0.08, 0.92), height])
  angle = rng.uniform(-_LARGEST_TURN, _LARGEST_TURN)
  turn = radius * np.array(
    [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  )
  outlines = [centre + outline @ turn for outline in _outlines()[CLASSES[number]]]
  return Shape(number, float(depth), outlines)


@functools.cache
def _outlines() -> dict[str, list[np.ndarray]]:
  """Of every class, at the origin, of about equal size; a second one is a hole."""
  arm = [(1, 0.33), (0.33, 0.33), (0.33, 1)]
  quarter = np.array([[0, 1], [-1, 0]])
  # One arm's corners, turned by 0, 90, 180 and 270 degrees.
  cross = [1.1 * np.array(arm) @ np.linalg.matrix_power(quarter, n) for n in range(4)]
  return {
    'disc': [_polygon(np.full(32, 0.95))],
    'square': [_polygon(np.full(4, 1.2))],
    'triangle': [_polygon(np.full(3, 1.3))],
    'star': [_polygon(np.tile([1.3, 0.52], 5))],
    'ring': [_polygon(np.full(32, 1.05)), _polygon(np.full(32, 0.55))],
    'cross': [np.concatenate(cross)],
  }


def _polygon(radii: np.ndarray) -> np.ndarray:
  """Corners at equal angles: [p, 2]."""
  angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
  return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def coverage(outlines: list[np.ndarray], side: int) -> np.ndarray:
  """How much of every pixel lies inside outlines, 0 to 255: uint8 [side, side]."""
  covered = np.zeros((side, side), np.uint8)
  # Fixed-point numbers with 4 fractional bits; whole numbers are centres of pixels.
  corners = [np.round(16 * (side * x - 0.5)).astype(np.int32) for x in outlines]
  return cv2.fillPoly(covered, corners, 255, cv2.LINE_AA, shift=4)


def instances(shapes: list[Shape], side: int) -> tuple[np.ndarray, np.ndarray]:
  """Which shape is seen at every pixel.

  Returns:
    Its number + 1, 0 where there is none, uint8 [side, side]; and the coverage of every
    shape as if it was alone, uint8 [k, side, side].
  """
  covered = np.stack([coverage(shape.outlines, side) for shape in shapes])
  seen = np.zeros((side, side), np.uint8)
  # The nearest come last, and cover those behind them.
  for number, one in enumerate(covered, start=1):
    seen[one > 127] = number
  return seen, covered


def paint(
  rng: np.random.Generator, room: Room, shapes: list[Shape], covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The picture, and its depth.

  Args:
    rng: decides textures, colours and what is painted on floor and wall.
    room: with floor and wall.
    shapes: the nearest last.
    covered: coverage of each.

  Returns:
    uint8 [side, side, 3] and float32 [side, side].
  """
  side = covered.shape[1]
  depth = room.depth(side)
  image = _paint_room(rng, room, depth)
  _paint_clutter(rng, image, depth)
  for shape, one in zip(shapes, covered, strict=True):
    _fill(rng, image, one, shape.depth, _VIVID)
    depth[one > 127] = shape.depth
  # haze + exp(−depth / haze depth) · (image − haze), in place.
  image -= _HAZE
  image *= np.exp(-depth / _HAZE_DEPTH)[..., None]
  image += _HAZE
  # Uniform noise in [−4, 4), a byte for each value.
  noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
  image += noise.astype(np.float32) / 32 - 4
  return np.clip(image, 0, 255).astype(np.uint8), depth


def _paint_room(rng: np.random.Generator, room: Room, depth: np.ndarray) -> np.ndarray:
  """Floor and wall, in colours that are paler than those of shapes."""
  places = centres(len(depth))
  # A pinhole camera: image coordinates times depth are metres on the surface.
  x = (places - 0.5) * depth
  y = (places[:, None] - room.horizon) * depth
  wall = _texture(rng, x, y, _PALE)
  floor = _texture(rng, x, depth, _PALE)
  # On the floor y is the camera's height; on the wall, less.
  is_floor = y > 0.999 * (1 - room.horizon) * NEAREST
  return np.where(is_floor[..., None], floor, wall)


def _paint_clutter(
  rng: np.random.Generator, image: np.ndarray, depth: np.ndarray
) -> None:
  """Blobs and strokes of no class, on floor and wall."""
  side = len(image)
  for _ in range(rng.integers(0, 3)):
    x, y = rng.uniform(0, 1, 2)
    distance = depth[int(y * side), int(x * side)]
    angles = np.arange(24) * (2 * np.pi / 24)
    waves = np.cos(np.outer(angles, [2, 3, 4]) + rng.uniform(0, 2 * np.pi, 3))
    radii = 0.9 + waves @ rng.uniform(0.15, 0.35, 3)
    blob = [x, y] + _RADIUS * NEAREST / distance * _polygon(radii)
    _fill(rng, image, coverage([blob], side), distance, _PALE)
  for _ in range(rng.integers(0, 4)):
    stroke = rng.uniform(0, 1, 2) + np.cumsum(rng.uniform(-0.2, 0.2, (4, 2)), axis=0)
    corners = [np.round(16 * side * stroke).astype(np.int32)]
    thickness = max(round(rng.uniform(0.01, 0.03) * side), 1)
    colour = rng.uniform(0, 255, 3)
    cv2.polylines(image, corners, False, colour, thickness, cv2.LINE_AA, shift=4)


def _fill(
  rng: np.random.Generator,
  image: np.ndarray,
  covered: np.ndarray,
  depth: float,
  strength: Strength,
) -> None:
  """Paints what is covered with a texture."""
  left, top, width, height = cv2.boundingRect(covered)
  if not width:
    return
  rows, columns = slice(top, top + height), slice(left, left + width)
  places = centres(len(image)) * np.float32(depth)
  x, y = np.meshgrid(places[columns], places[rows])
  # A view: what is added to it changes the image.
  region = image[rows, columns]
  weight = covered[rows, columns, None] * np.float32(1 / 255)
  region += weight * (_texture(rng, x, y, strength) - region)


def _texture(
  rng: np.random.Generator, x: np.ndarray, y: np.ndarray, strength: Strength
) -> np.ndarray:
  """A texture of two colours, at places in metres.

  Returns:
    float32 [height, width, 3], 0 to 255.
  """
  pattern = _patterns()[rng.integers(len(_patterns()))]
  shift = rng.uniform(0, _TEXTURE_SIDE, 2).astype(np.float32)
  u, v = _TEXELS * x + shift[0], _TEXELS * y + shift[1]
  share = cv2.remap(pattern, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
  first, second = rng.uniform(0, 1, (2, 3)).astype(np.float32)
  grey = np.float32(rng.uniform(90, 190))
  first = grey + strength.saturation * (_pure(first) - grey)
  second = grey + strength.saturation * (_pure(second) - grey)
  second = first + strength.contrast * (second - first)
  # first + share · (second − first) of each channel, as a 3×2 affine map of `share`.
  return cv2.transform(share, np.stack([second - first, first], axis=1))


def _pure(colour: np.ndarray) -> np.ndarray:
  """A colour of the same hue without grey in it."""
  return 255 * (colour - colour.min()) / max(np.ptp(colour), 1e-3)


@functools.cache
def _patterns() -> list[np.ndarray]:
  """Stripes, dots, checks, gradients and noise: 0 to 1, [side, side] each."""
  rng = np.random.default_rng(0)
  # A whole number of periods: textures repeat without seams.
  ramp = np.arange(_TEXTURE_SIDE, dtype=np.float32) / _TEXTURE_SIDE
  x, y = np.meshgrid(ramp, ramp)
  wave = lambda a, b: np.sin(2 * np.pi * (a * x + b * y), dtype=np.float32)
  directions = [(3, 0), (0, 4), (2, 2), (4, -3), (1, 5), (6, 1), (5, 5), (3, -5)]
  sharpen = lambda values: np.clip(0.5 + 4 * values, 0, 1)
  stripes = [sharpen(wave(a, b)) for a, b in directions]
  dots = [sharpen(wave(a, b) * wave(-b, a) - 0.35) for a, b in directions]
  checks = [sharpen(wave(a, b) * wave(-b, a)) for a, b in directions[:5]]
  gradients = [0.5 + 0.5 * wave(a, b) for a, b in [(1, 0), (0, 1), (1, 1), (1, -1)]]
  noise = [_noise(rng, width) for width in (2, 3, 4, 6, 8, 12)]
  return [*stripes, *dots, *checks, *gradients, *noise]


def _noise(rng: np.random.Generator, width: float) -> np.ndarray:
  """Smooth noise that repeats without seams."""
  white = rng.normal(size=(_TEXTURE_SIDE, _TEXTURE_SIDE)).astype(np.float32)
  # The middle of 3×3 blurred tiles is periodic.
  smooth = cv2.GaussianBlur(np.tile(white, (3, 3)), (0, 0), width)
  middle = smooth[_TEXTURE_SIDE:-_TEXTURE_SIDE, _TEXTURE_SIDE:-_TEXTURE_SIDE]
  return np.clip(0.5 + 0.3 * middle / middle.std(), 0, 1)
