"""PASCAL VOC in its official folders, made up."""

import cv2
import numpy as np
import pytest

from sslhsic.data import sources

NAMES = [f'2007_{number:06}' for number in range(6)]
SPLITS = {'train': NAMES[:3], 'val': NAMES[3:5], 'trainval': NAMES[:5]}


def _classes(name, number=1):
  """A mask whose classes its name decides, with void."""
  classes = np.full((24, 40), int(name[-1]) + number, np.uint8)
  classes[5:8] = 255
  return cv2.imencode('.png', classes)[1].tobytes()


def _voc(folder, encoded_image, aug_list):
  lists = folder / 'ImageSets' / 'Segmentation'
  for path in (folder / 'JPEGImages', folder / 'SegmentationClass', lists):
    path.mkdir(parents=True)
  for split, names in SPLITS.items():
    (lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in names))
  for name in NAMES:
    (folder / 'JPEGImages' / f'{name}.jpg').write_bytes(encoded_image(0, '.jpg'))
  for name in SPLITS['trainval']:
    (folder / 'SegmentationClass' / f'{name}.png').write_bytes(_classes(name))
  if aug_list:
    (folder / 'SegmentationClassAug').mkdir()
    for name in NAMES:
      file = folder / 'SegmentationClassAug' / f'{name}.png'
      file.write_bytes(_classes(name, number=10))
    template = '/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n'
    if aug_list == 'trainaug':
      template = '{0}\n'
    lines = [template.format(name) for name in (*NAMES[:3], NAMES[5])]
    (lists / f'{aug_list}.txt').write_text(''.join(lines))


def test_images_and_masks_stay_encoded(tmp_path, encoded_image):
  _voc(tmp_path / 'VOCdevkit' / 'VOC2012', encoded_image, None)
  for path in (tmp_path, tmp_path / 'VOCdevkit', tmp_path / 'VOCdevkit' / 'VOC2012'):
    source = sources.create(f'voc:{path}', 'train')
    assert (len(source), source.num_classes) == (3, 0)
    assert source[1] == {
      'image': encoded_image(0, '.jpg'),
      'label': -1,
      'segmentation': _classes(NAMES[1]),
    }
  assert source.name(2).endswith('VOC2012/JPEGImages/2007_000002.jpg')
  np.testing.assert_array_equal(source.labels, [-1] * 3)
  annotations = sources.annotations(source, 'segmentation')
  names = annotations.segmentation_classes
  assert (len(names), names[0], names[15]) == (21, 'background', 'person')
  with pytest.raises(ValueError, match='has segmentation, but boxes is needed'):
    sources.annotations(source, 'boxes')


def test_splits_are_those_of_the_lists(tmp_path, encoded_image):
  _voc(tmp_path, encoded_image, None)
  for split, numbers in {
    'train+val': [0, 1, 2, 3, 4],
    'validation': [3, 4],
    'trainval[:80%]': [0, 1, 2, 3],
  }.items():
    source = sources.create(f'voc:{tmp_path}', split)
    found = [source[index]['segmentation'] for index in range(len(source))]
    assert found == [_classes(NAMES[number]) for number in numbers]
  with pytest.raises(ValueError, match=r"no split 'train_aug'; it has train \(3 ex"):
    sources.create(f'voc:{tmp_path}', 'train_aug')


@pytest.mark.parametrize('name', ['train_aug', 'trainaug'])
def test_augmented_list_has_masks_of_its_own(tmp_path, encoded_image, name):
  _voc(tmp_path, encoded_image, name)
  source = sources.create(f'voc:{tmp_path}', f'{name}+val[:1]')
  found = [source[index]['segmentation'] for index in range(len(source))]
  expected = [_classes(name, number=10) for name in (*NAMES[:3], NAMES[5])]
  assert found == [*expected, _classes(NAMES[3])]


def test_other_folders_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'no folder JPEGImages in .* use voc:PATH'):
    sources.create(f'voc:{tmp_path}', 'train')
  (tmp_path / 'JPEGImages').mkdir()
  with pytest.raises(ValueError, match=r'no list such as .*train\.txt.*unpack'):
    sources.create(f'voc:{tmp_path}', 'train')
