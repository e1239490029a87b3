"""Annotation files in COCO's format, with the faults that labelling tools make."""

import copy
import json

import numpy as np
import pytest

from sslhsic.data import reading, sources
from sslhsic.data.errors import DecodeError

POLYGON = [[10, 10, 30, 10, 30, 20, 10, 20]]
GOOD = {
  'images': [
    {'id': number, 'file_name': f'{number}.png', 'height': 24 + number, 'width': 40}
    for number in (1, 2)
  ],
  'categories': [{'id': 3, 'name': 'dog'}, {'id': 1, 'name': 'cat'}],
  'annotations': [
    {
      'id': 7,
      'image_id': 1,
      'category_id': 3,
      'bbox': [10, 10, 20, 10],
      'area': 200,
      'iscrowd': 0,
      'segmentation': POLYGON,
    },
    {
      'id': 8,
      'image_id': 2,
      'category_id': 1,
      'bbox': [0, 0, 40, 26],
      'area': 1040,
      'iscrowd': 0,
      'segmentation': [[0, 0, 40, 0, 40, 26, 0, 26]],
    },
  ],
}


@pytest.fixture
def create(tmp_path, write_images):
  """A function of a file's content, or of its text: the source."""

  def make(content):
    write_images(tmp_path / 'val2017', 3, suffix='.png')
    file = tmp_path / 'annotations' / 'instances_val2017.json'
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return sources.create(f'coco:{tmp_path}', 'val')

  return make


def _with(part, **fields):
  """The file with other fields of the first entry of a part; None removes one."""
  content = copy.deepcopy(GOOD)
  entry = content[part][0]
  entry.update({key: value for key, value in fields.items() if value is not None})
  for key, value in fields.items():
    if value is None:
      del entry[key]
  return content


def _runs(size, counts):
  return {'segmentation': {'size': size, 'counts': counts}}


def test_missing_fields_have_the_values_that_they_can_have(create):
  content = copy.deepcopy(GOOD)
  for entry in content['annotations']:
    for key in ('area', 'iscrowd', 'id'):
      del entry[key]
  source = create(content)
  example = source[0]
  assert source.class_names == ('cat', 'dog')
  np.testing.assert_array_equal(example['area'], [200])
  np.testing.assert_array_equal(example['ignore'], [False])
  np.testing.assert_array_equal(example['classes'], [1])
  assert example['masks'].shape == (1, 25, 40)
  np.testing.assert_array_equal(
    np.argwhere(example['masks'][0])[[0, -1]], [[10, 10], [19, 29]]
  )


@pytest.mark.parametrize('outline', [None, []])
def test_without_an_outline_there_are_boxes_only(create, outline):
  content = copy.deepcopy(GOOD)
  content['annotations'][0]['segmentation'] = outline
  source = create(content)
  assert sources.annotations(source, 'boxes').kinds == {'boxes'}
  assert 'masks' not in source[0]
  np.testing.assert_array_equal(source[0]['boxes'], [[10, 10, 30, 20]])


def test_masks_are_drawn_when_they_are_asked_for(create, monkeypatch):
  source = create(GOOD)
  monkeypatch.setattr(type(source.objects), 'mask', None)
  example, bad = reading.first_decodable(source, [0])
  assert not bad
  assert len(example['masks']) == 1


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'category_id': 2}, r'annotation 7 \(image 1\) has the category_id 2, which no'),
    ({'category_id': '3'}, "category_id '3'"),
    ({'image_id': '1'}, "annotation 7 has the image_id '1', which no image has"),
    ({'image_id': 9}, 'image_id 9'),
    ({'image_id': None}, 'has no image_id'),
    ({'bbox': None}, 'annotation 7 has no bbox'),
    (
      {'bbox': []},
      r'annotation 7 \(image 1\): bbox is \(\); it has to be four',
    ),
    ({'bbox': [1, 2, 3]}, 'four numbers'),
    ({'bbox': [1, 2, 3, 4, 0.9]}, 'four numbers'),
    ({'bbox': ['1', '2', '3', '4']}, 'four numbers'),
    ({'bbox': [1, 2, True, 4]}, 'four numbers'),
    ({'bbox': [1, 2, float('nan'), 4]}, 'not finite'),
    ({'bbox': [1, 2, float('inf'), 4]}, 'not finite'),
    ({'bbox': [30, 20, -10, -10]}, 'of no extent'),
    ({'bbox': [10, 10, 50, 10]}, r'20 pixels beyond the image of 25×40'),
    ({'bbox': [-5, 10, 20, 10]}, '5 pixels beyond'),
    ({'bbox': [1, 2, 10**400, 4]}, 'not finite'),
    ({'bbox': [1, 2, 10**300, 10**300], 'area': None}, 'area 10{39};'),
    ({'area': 10**400}, 'area 10{39};'),
    ({'area': 'x'}, "area 'x'"),
    ({'area': -1.0}, 'area -1.0'),
    ({'iscrowd': 2}, 'iscrowd 2'),
    ({'segmentation': [[]]}, 'annotation 7 has a segmentation that is no list of poly'),
    ({'segmentation': POLYGON[0]}, 'no list of polygons'),
    ({'segmentation': [[1, 2, 3, 4]]}, 'no list of polygons'),
    ({'segmentation': [[1, 2, 3, 4, 5, 6, 7]]}, 'no list of polygons'),
    ({'segmentation': [*POLYGON, ['1'] * 6]}, 'no list of polygons'),
    ({'segmentation': [[1, 2, 3, 4, 5, float('nan')]]}, 'no list of polygons'),
    ({'segmentation': 'x'}, "segmentation is 'x'"),
    (
      {'segmentation': {'size': [25, 40], 'counts': [5]}},
      'counts of 5 pixels, the image has',
    ),
    (
      {'segmentation': {'size': [25, 40], 'counts': [-1, 1001]}},
      'counts of 1,000 pixels',
    ),
    (
      {'segmentation': {'size': [40, 25], 'counts': [1000]}},
      r'of size \[40, 25\], not',
    ),
    ({'segmentation': {'size': [25, 40], 'counts': 7}}, 'no run lengths'),
    ({'segmentation': {'counts': [1000]}}, 'of size None'),
  ],
)
def test_faulty_objects_are_named(create, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    create(_with('annotations', **fields))
  assert 'instances_val2017.json has 1 fault(s): annotation' in str(error.value)
  assert '\n' not in str(error.value)


def test_image_may_have_the_field_of_an_object(create):
  assert len(create(_with('images', image_id=7))) == len(create(GOOD))


@pytest.mark.parametrize(
  ('part', 'fields', 'message'),
  [
    ('images', {'file_name': '../secret.png'}, r"image 1 has the file_name '../secret"),
    ('images', {'file_name': 'a/../../b.png'}, 'outside the folder of images'),
    ('images', {'file_name': '/etc/passwd'}, 'outside the folder'),
    ('images', {'file_name': None}, 'image 1 has no file_name'),
    ('images', {'height': None}, 'image 1 has the height None'),
    ('images', {'width': 0}, 'image 1 has the width 0'),
    ('images', {'id': 2}, 'image 2 is there twice'),
    ('categories', {'name': None}, 'category 3 has no whole number id, or no name'),
    ('categories', {'id': 1}, r"category 1 \('cat'\) is there twice"),
    ('categories', {'name': 'cat'}, r"category 1 \('cat'\) is there twice"),
  ],
)
def test_faulty_images_and_categories_are_named(create, part, fields, message):
  with pytest.raises(ValueError, match=message):
    create(_with(part, **fields))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (json.dumps(GOOD)[:-30], 'no valid JSON, it may be truncated'),
    ('', 'no valid JSON'),
    ('[' * 100_000, 'no valid JSON'),
    ('[]', "has no list 'images'"),
    (json.dumps({**GOOD, 'annotations': {}}), "has no list 'annotations'"),
    (json.dumps({**GOOD, 'categories': []}), 'categories is empty'),
    (json.dumps({'images': []}), "has no list 'annotations'"),
  ],
)
def test_file_of_another_format_raises_an_error(create, text, message):
  with pytest.raises(ValueError, match=message) as error:
    create(text)
  assert 'instances_val2017.json' in str(error.value)


def test_many_faults_are_counted(create):
  content = copy.deepcopy(GOOD)
  content['annotations'] = [{**GOOD['annotations'][0], 'category_id': 5}] * 10
  with pytest.raises(ValueError, match=r'has 10 fault\(s\): .*; and 7 more'):
    create(content)


def test_damaged_run_length_code_is_found_when_it_is_drawn(create):
  source = create(
    _with('annotations', segmentation={'size': [25, 40], 'counts': 'PPYo'})
  )
  with pytest.raises(DecodeError, match='segmentation of object 0: '):
    _ = source[0]['masks'][0]


def test_box_without_extent_is_left_out(create):
  content = _with('annotations', bbox=[10, 10, 0, 5])
  assert len(create(content)[0]['boxes']) == 0


def test_image_of_another_size_is_bad(create):
  content = _with('images', height=40, width=25)
  content['annotations'][0]['bbox'] = [0, 0, 20, 20]
  source = create(content)
  _, bad = reading.first_decodable(source, [0, 1])
  assert 'is 40×25 (height × width), but its own is 25×40' in bad[0]
