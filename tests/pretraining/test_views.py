"""Settings of views: what they crop, and what is wrong with them."""

import numpy as np
import pytest

from configs.pretrain import digits_multicrop, imagenet_multicrop
from sslhsic.pretraining import views

GLOBAL, LOCAL = {'policy': 'none'}, {'policy': 'none', 'is_global': False}


def test_crop_has_its_size_or_that_of_the_data_or_is_the_whole_image():
  rng, image = np.random.default_rng(0), np.zeros((40, 50, 3), np.uint8)
  own, default, whole = views.parse(
    [{**GLOBAL, 'size': 6}, GLOBAL, {**GLOBAL, 'size': 0}]
  )
  shape = lambda view: view.crop(8, 'bicubic')(rng, image).shape
  assert [shape(x) for x in (own, default, whole)] == [
    (6, 6, 3),
    (8, 8, 3),
    (40, 50, 3),
  ]


def test_area_is_the_share_of_the_image_that_is_cropped():
  """Every crop of a tenth of a gradient spans about a third of its range."""
  rng = np.random.default_rng(0)
  ramp = np.tile(np.arange(240, dtype=np.uint8)[None, :, None], (240, 1, 1))
  (small, _) = views.parse([{**GLOBAL, 'size': 16, 'area': (0.1, 0.1)}, GLOBAL])
  spans = [np.ptp(small.crop(0, 'bicubic')(rng, ramp).astype(int)) for _ in range(20)]
  # The side is √0.1 of 240, by an aspect ratio of up to 4/3.
  assert min(spans) > 0.9 * 240 * (0.1 * 3 / 4) ** 0.5
  assert max(spans) < 1.1 * 240 * (0.1 * 4 / 3) ** 0.5


@pytest.mark.parametrize('preset', [digits_multicrop, imagenet_multicrop])
def test_presets_have_two_global_views(preset):
  parsed = views.parse(preset.get_config().augment.views)
  assert [view.is_global for view in parsed[:3]] == [True, True, False]


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ([GLOBAL], 'has 1 views; use two or more'),
    ([LOCAL, LOCAL], 'put the global views first, at least one'),
    ([GLOBAL, LOCAL, GLOBAL], 'put the global views first'),
    (['none', 'none'], r'config\.augment\.views\[0\] is .none.; use {"policy": NAME}'),
    ([GLOBAL, {'policy': 'none', 'scale': 1}], r"views\[1\] has no field 'scale'"),
    ([GLOBAL, {**GLOBAL, 'size': -1}], r'views\[1\]\.size is -1; use pixels'),
    ([GLOBAL, {**GLOBAL, 'area': (0.5, 0.1)}], r'area is \(0\.5, 0\.1\); use \(least'),
    ([GLOBAL, {**GLOBAL, 'area': (0.0, 0.1)}], r'area is \(0\.0, 0\.1\)'),
  ],
)
def test_settings_that_cannot_be(settings, message):
  with pytest.raises(ValueError, match=message):
    views.parse(settings)
