"""Made-up pictures: what is said of them agrees with what is drawn."""

import pickle

import numpy as np
import pytest

from sslhsic.data import shapes_scene, sources

COUNT = 60


@pytest.fixture(scope='module')
def source():
  return sources.create('shapes', f'train[:{COUNT}]')


@pytest.fixture(scope='module')
def examples(source):
  return [source[index] for index in range(len(source))]


def _assert_equal(one, other):
  assert one.keys() == other.keys()
  for key, value in one.items():
    np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_example_is_a_function_of_its_split_and_number(source, examples):
  part = pickle.loads(pickle.dumps(sources.create('shapes', 'train[20:30]')))
  for index in (9, 0, 3):
    _assert_equal(part[index], examples[20 + index])
    assert part.name(index) == f'example {20 + index} of shapes, train'
  both = sources.create('shapes', 'test[:1]+train[4:5]')
  _assert_equal(both[1], examples[4])
  assert both.name(0) == 'example 0 of shapes, test'
  pictures = {both[0]['image'].tobytes(), *(x['image'].tobytes() for x in examples)}
  assert len(pictures) == COUNT + 1


def test_types_are_those_of_the_contract(source, examples):
  assert len(sources.create('shapes', 'train')) == 4000
  assert len(sources.create('shapes', 'test')) == 500
  annotations = sources.annotations(source, 'masks')
  assert len(annotations.segmentation_classes) == 1 + len(annotations.object_classes)
  for example in examples:
    count = len(example['classes'])
    found = {key: (value.dtype.name, value.shape) for key, value in example.items()}
    assert found == {
      'image': ('uint8', (96, 96, 3)),
      'label': ('int32', ()),
      'segmentation': ('uint8', (96, 96)),
      'depth': ('float32', (96, 96)),
      'boxes': ('float32', (count, 4)),
      'classes': ('int32', (count,)),
      'ignore': ('bool', (count,)),
      'area': ('float32', (count,)),
      'masks': ('uint8', (count, 96, 96)),
    }


def test_boxes_are_the_bounds_of_masks(examples):
  for example in examples:
    masks, boxes = example['masks'], example['boxes']
    assert masks.sum(axis=0).max() == 1  # What one object hides, no other shows.
    np.testing.assert_array_equal(example['area'], masks.sum((1, 2)))
    for mask, box in zip(masks, boxes, strict=True):
      rows, columns = np.nonzero(mask)
      bounds = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
      np.testing.assert_array_equal(box, bounds)


def test_segmentation_agrees_with_masks(examples):
  num_ignored = 0
  for example in examples:
    segmentation = example['segmentation']
    classes = np.zeros((96, 96), np.int64)
    for number, ignore, mask in zip(
      example['classes'], example['ignore'], example['masks'], strict=True
    ):
      classes[mask == 1] = 255 if ignore else number + 1
      num_ignored += ignore
    is_judged = segmentation != 255
    np.testing.assert_array_equal(segmentation[is_judged], classes[is_judged])
    # Between two classes there is always void.
    for first, second in (
      (segmentation[:, :-1], segmentation[:, 1:]),
      (segmentation[:-1], segmentation[1:]),
    ):
      assert np.all((first == second) | (first == 255) | (second == 255))
    is_void = np.sum(~is_judged & (classes != 255))
    assert 0 < is_void < 0.2 * segmentation.size
  assert num_ignored > 0


def test_what_is_nearer_hides_what_is_farther(source, examples):
  for row, example in zip(source.rows, examples, strict=True):
    room, shapes = shapes_scene.draw_layout(np.random.default_rng(row))
    surfaces = [room.depth(96)]
    for shape in shapes:
      covered = shapes_scene.coverage(shape.outlines, 96) > 127
      surfaces.append(np.where(covered, np.float32(shape.depth), np.inf))
    np.testing.assert_array_equal(example['depth'], np.min(surfaces, axis=0))
    assert 1.9 < example['depth'].min() < example['depth'].max() < 10.5
    visible = {}
    for shape, surface in zip(shapes, surfaces[1:], strict=True):
      seen = surface == example['depth']
      visible[np.float32(shape.depth)] = (
        shape.number,
        np.sum(seen),
        np.sum(surface < np.inf),
      )
    for number, ignore, mask in zip(
      example['classes'], example['ignore'], example['masks'], strict=True
    ):
      (depth,) = np.unique(example['depth'][mask == 1])
      expected, seen, whole = visible[depth]
      assert (number, np.sum(mask), ignore) == (expected, seen, seen < 0.3 * whole)


def test_label_is_the_class_of_the_largest_object(source, examples):
  for label, example in zip(source.labels, examples, strict=True):
    assert label == example['label'] == example['classes'][example['area'].argmax()]
    assert not example['ignore'][example['area'].argmax()]
  assert set(source.labels) == set(range(source.num_classes))


def test_another_size_shows_the_same(examples):
  large = sources.create('shapes:192', 'train[:5]')
  for index in range(5):
    example = large[index]
    mean = example['depth'].reshape(96, 2, 96, 2).mean((1, 3))
    assert np.mean(np.abs(mean - examples[index]['depth']) < 0.2) > 0.9
    np.testing.assert_allclose(
      example['image'].mean((0, 1)), examples[index]['image'].mean((0, 1)), atol=4
    )


def test_colour_says_nothing_of_the_class():
  source = sources.create('shapes:32', 'train[:600]')
  sums, counts = np.zeros((6, 3)), np.zeros(6)
  for example in (source[index] for index in range(600)):
    for number, mask in zip(example['classes'], example['masks'], strict=True):
      sums[number] += example['image'][mask == 1].mean(axis=0)
      counts[number] += 1
  # Of 400 colours with a standard deviation of 60, the mean has one of 3.
  means = sums / counts[:, None]
  assert np.all(np.abs(means - means.mean(axis=0)) < 12)


@pytest.mark.parametrize('argument', ['16', '1024', 'large', '-64'])
def test_wrong_sizes_are_refused(argument):
  with pytest.raises(ValueError, match='with pictures of 32 to 512 pixels'):
    sources.create(f'shapes:{argument}', 'train')
