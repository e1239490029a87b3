"""Experiments of full size of which nothing is computed: shapes stand for arrays.

Data sets that are not here are blank, batches repeat one example, arrays on the devices
are shapes, and what is mapped over the devices is traced and remembered.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sslhsic import parallel
from sslhsic.data import loader, reading, sources
from sslhsic.data.annotations import Annotations
from sslhsic.evaluation import encoder

_create, _pmap = sources.create, parallel.pmap

# Heights and widths of images, where they are not 375×500.
_SIZES = {'tfds:nyu_depth_v2': (480, 640), 'coco:coco': (480, 640)}
NUM_EXAMPLES = 1_000_000  # Of a blank data set.


@dataclasses.dataclass(frozen=True)
class Blank:
  """A source of equal, blank examples, with two objects each."""

  image_size: tuple[int, int]
  num_classes: int
  label: np.ndarray
  channels: int = 3
  num_examples: int = NUM_EXAMPLES

  annotations: ClassVar = Annotations(
    kinds=frozenset({'segmentation', 'depth', 'boxes', 'masks'}),
    segmentation_classes=('class',) * 21,
    object_classes=('class',) * 80,
  )

  # There are labels of few examples alone, see below.
  has_slow_labels: ClassVar[bool] = True

  def __len__(self) -> int:
    return self.num_examples

  @property
  def sizes(self) -> np.ndarray:
    """Heights and widths, [n, 2]."""
    return np.broadcast_to(np.array(self.image_size), (len(self), 2))

  def __getitem__(self, index: int) -> dict[str, Any]:
    size = height, width = self.image_size
    boxes = np.array([[0.1, 0.1, 0.5, 0.6], [0.2, 0.2, 0.9, 0.9]], np.float32)
    return {
      'image': np.zeros((*size, self.channels), np.uint8),
      'label': self.label,
      'segmentation': np.zeros(size, np.uint8),
      'depth': np.ones(size, np.float32),
      'boxes': boxes * np.float32([width, height, width, height]),
      'classes': np.array([0, 1], np.int32),
      'ignore': np.array([False, True]),
      'area': np.array([99, 99], np.float32),
      'masks': np.zeros((2, *size), np.uint8),
    }

  @property
  def labels(self) -> np.ndarray:
    """Of few of the examples, all classes among them."""
    if self.label.ndim:
      return np.eye(self.num_classes, dtype=np.int32)
    return np.tile(np.arange(self.num_classes, dtype=np.int32), 20)

  def name(self, index: int) -> str:
    """The same of every example."""
    return 'blank'


class Traced:
  """In the place of a mapped function: it is traced only.

  Attributes:
    last: the one that was called last, of all.
  """

  last: ClassVar['Traced | None'] = None

  def __init__(self, function: Any, **settings: Any):
    self._mapped = _pmap(function, **settings)
    self._arguments: tuple = ()

  def __call__(self, *arguments: chex.ArrayTree) -> chex.ArrayTree:
    """The shapes of the results."""
    self._arguments, Traced.last = arguments, self
    return jax.eval_shape(self._mapped, *arguments)

  def lower(self) -> jax.stages.Lowered:
    """The program of the last call."""
    return self._mapped.lower(*self._arguments)


def create(name: str, split: str, num_examples: int = NUM_EXAMPLES) -> sources.Source:
  """The source itself, if it needs no files, or a blank one in its place."""
  if name.partition(':')[0] in ('digits', 'shapes'):
    return _create(name, split)
  blank = functools.partial(Blank, num_examples=num_examples)
  if name.startswith('idx:'):
    return blank((28, 28), 10, np.int32(0), channels=1)
  size = _SIZES.get(name, (375, 500))
  if split == 'unlabelled':
    return blank(size, 0, np.int32(-1))
  if name == 'tfds:voc/2007':  # An image is of several classes; here, upright too.
    return blank(size[::-1], 20, np.zeros(20, np.int32))
  return blank(size, 1000, np.int32(0))


def shard(batch: chex.ArrayTree) -> chex.ArrayTree:
  """Shapes in the place of `parallel.shard`."""
  count = len(parallel.devices())
  split = lambda x: (count, parallel.per_device(len(x)), *x.shape[1:])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(split(x), x.dtype), batch)


def _replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
  count = len(parallel.devices())
  stack = lambda x: jnp.broadcast_to(x[None], (count, *x.shape))
  return jax.eval_shape(lambda tree: jax.tree.map(stack, tree), tree)


def _next_batch(stream: loader.Stream) -> loader.Batch:
  return _repeated(stream._chunks.load(0), stream._chunks.batch_size)


class _DeviceIterator(loader.DeviceIterator):
  """Makes a batch when it is asked for: a thread would outlive the context."""

  def __next__(self) -> dict[str, Any]:
    return parallel.shard(next(self._batches))


def _every_example(source, *, make, batch_size, **_) -> Iterator[loader.Batch]:
  yield _repeated(reading.Example(source, make)(0), batch_size)


def _repeated(loaded, batch_size: int) -> loader.Batch:
  """A batch of one example, which takes no memory."""
  example, _ = loaded
  repeat = lambda x: np.broadcast_to(x, (batch_size, *np.shape(x)))
  return jax.tree.map(repeat, example)


def _initial_values(network, image_shape, seed):
  init = lambda rng, images: network.init(rng, images, True)
  images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
  shapes = jax.eval_shape(init, jax.random.key(seed), images)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@contextlib.contextmanager
def shapes_only(num_examples: int = NUM_EXAMPLES) -> Iterator[None]:
  """A context in which experiments are built of shapes, and only traced.

  Args:
    num_examples: of a blank data set.
  """
  sized = functools.partial(create, num_examples=num_examples)
  with contextlib.ExitStack() as stack:
    for module, name, value in (
      (sources, 'create', sized),
      (loader.Stream, '__next__', _next_batch),
      (loader, 'DeviceIterator', _DeviceIterator),
      (loader, 'every_example', _every_example),
      (encoder, 'initial_values', _initial_values),
      (parallel, 'replicate', _replicate),
      (parallel, 'shard', shard),
      (parallel, 'pmap', Traced),
    ):
      stack.enter_context(mock.patch.object(module, name, value))
    yield
  Traced.last = None  # It holds an experiment.
