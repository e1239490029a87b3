"""COCO in its official folders, made up; pycocotools reads the same files."""

import contextlib
import io
import json
import pickle

import cv2
import numpy as np
import pytest
from pycocotools import coco
from pycocotools import mask as coco_mask

from sslhsic.data import sources

CATEGORIES = [(18, 'dog'), (1, 'person'), (90, 'toothbrush')]


def _outline(rng, height, width):
  """One or two polygons, with two decimals."""
  centre = rng.uniform(0.3, 0.7, 2) * [width, height]
  return [
    np.round(centre + rng.uniform(-0.3, 0.3, (6, 2)) * [width, height], 2)
    .ravel()
    .tolist()
    for _ in range(rng.integers(1, 3))
  ]


def _annotation(rng, image, number):
  """An object; every fifth is a crowd, and every tenth has its runs compressed."""
  height, width = image['height'], image['width']
  runs = coco_mask.merge(
    coco_mask.frPyObjects(_outline(rng, height, width), height, width)
  )
  outline, is_crowd = _outline(rng, height, width), number % 5 == 0
  if is_crowd:
    outline = {'size': [height, width], 'counts': runs['counts'].decode()}
  if number % 10 == 5:
    pixels = coco_mask.decode(runs).ravel(order='F')
    changes = np.flatnonzero(np.diff(pixels, prepend=0))
    counts = np.diff([0, *changes, pixels.size]).tolist()
    outline = {'size': [height, width], 'counts': counts}
  return {
    'id': 1000 + number,
    'image_id': image['id'],
    'category_id': int(rng.choice([category for category, _ in CATEGORIES])),
    'bbox': np.round(rng.uniform(1, 12, 4), 2).tolist(),
    'area': round(float(rng.uniform(10, 500)), 2),
    'iscrowd': int(is_crowd),
    'segmentation': outline,
  }


def _write(root, split, counts, first, encoded_image):
  """A file and images with so many objects each."""
  rng = np.random.default_rng(first)
  images, annotations = [], []
  (root / split).mkdir(parents=True)
  for number, count in enumerate(counts, start=first):
    encoded = encoded_image(number, '.jpg')
    (root / split / f'{number:012}.jpg').write_bytes(encoded)
    height, width = cv2.imdecode(np.frombuffer(encoded, np.uint8), 0).shape
    image = {'id': number, 'file_name': f'{number:012}.jpg'}
    images.append(image | {'height': height, 'width': width, 'license': 1})
    start = len(annotations)
    annotations += [_annotation(rng, images[-1], start + i) for i in range(count)]
  rng.shuffle(annotations)
  content = {
    'info': {'year': 2017},
    'images': images,
    'annotations': annotations,
    'categories': [{'id': i, 'name': x, 'supercategory': 'a'} for i, x in CATEGORIES],
  }
  (root / 'annotations').mkdir(exist_ok=True)
  file = root / 'annotations' / f'instances_{split}.json'
  file.write_text(json.dumps(content))


@pytest.fixture(scope='module')
def root(tmp_path_factory, encoded_image):
  root = tmp_path_factory.mktemp('coco')
  # The only object of image 10 is a crowd, and image 12 has none.
  _write(root, 'train2017', [1, 5, 0, 3], 10, encoded_image)
  _write(root, 'val2017', [2, 0, 7], 20, encoded_image)
  return root


@pytest.mark.parametrize(
  ('split', 'file', 'numbers'),
  [('train', 'train2017', [11, 13]), ('validation', 'val2017', [20, 21, 22])],
)
def test_objects_are_those_that_pycocotools_reads(root, split, file, numbers):
  source = pickle.loads(pickle.dumps(sources.create(f'coco:{root}', split)))
  with contextlib.redirect_stdout(io.StringIO()):
    expected = coco.COCO(root / 'annotations' / f'instances_{file}.json')
  assert source.image_ids.tolist() == numbers
  assert source.category_ids == (1, 18, 90)
  for index, number in enumerate(numbers):
    example = source[index]
    path = root / file / f'{number:012}.jpg'
    assert (source.name(index), example['image']) == (str(path), path.read_bytes())
    there = expected.loadAnns(expected.getAnnIds(number))
    assert len(there) == len(example['boxes']) == len(example['masks'])
    for place, entry in enumerate(there):
      x, y, width, height = entry['bbox']
      box = [x, y, x + width, y + height]
      np.testing.assert_allclose(example['boxes'][place], box, rtol=1e-6)
      category = source.category_ids[example['classes'][place]]
      assert category == entry['category_id']
      assert example['ignore'][place] == entry['iscrowd']
      assert example['area'][place] == np.float32(entry['area'])
      np.testing.assert_array_equal(
        example['masks'][place], expected.annToMask(entry), err_msg=str(entry)
      )


def test_types_are_those_of_the_contract(root):
  source = sources.create(f'coco:{root}', 'train+val')
  assert (len(source), source.num_classes) == (5, 0)
  np.testing.assert_array_equal(source.labels, [-1] * 5)
  annotations = sources.annotations(source, 'masks')
  assert annotations.object_classes == ('person', 'dog', 'toothbrush')
  example = source[3]  # Without objects.
  found = {key: (x.dtype.name, x.shape) for key, x in example.items() if key != 'image'}
  assert found == {
    'label': ('int32', ()),
    'boxes': ('float32', (0, 4)),
    'classes': ('int32', (0,)),
    'ignore': ('bool', (0,)),
    'area': ('float32', (0,)),
    'masks': ('uint8', (0, 24 + 21, 40)),
    'annotated_size': ('int64', (2,)),
  }
  assert sources.create(f'coco:{root}', 'validation[2:]').image_ids == [22]


def test_objects_without_extent_are_left_out(root, tmp_path):
  content = json.loads((root / 'annotations' / 'instances_val2017.json').read_text())
  content['annotations'][0]['bbox'][3] = 0
  (tmp_path / 'annotations').mkdir()
  file = tmp_path / 'annotations' / 'instances_val2017.json'
  file.write_text(json.dumps(content))
  source = sources.create(f'coco:{tmp_path}', 'validation')
  assert len(source.objects.boxes) == len(content['annotations']) - 1


def test_what_is_not_there_is_refused(root, tmp_path):
  with pytest.raises(
    ValueError, match=r'no .*instances_train2017\.json; use coco:PATH'
  ):
    sources.create(f'coco:{tmp_path}', 'train')
  with pytest.raises(ValueError, match=r"no split 'test'; it has .*train \(2 examples"):
    sources.create(f'coco:{root}', 'test')
