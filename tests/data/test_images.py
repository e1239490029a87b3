"""Decoding; crops: their law, their pixels against slices and a reference."""

import io
import math
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sslhsic.data import images
from sslhsic.data.errors import DecodeError


def _photo(height=60, width=80):
  """A smooth image [H, W, 3]."""
  noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  return cv2.normalize(
    cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX
  )


def _encode(image, suffix, **options):
  file = io.BytesIO()
  image.save(file, suffix, **options)
  return file.getvalue()


@pytest.mark.parametrize(
  ('suffix', 'mode'),
  [
    *(('JPEG', mode) for mode in ('RGB', 'L', 'CMYK')),
    *(('PNG', mode) for mode in ('RGB', 'L', 'P', '1')),
    *(('WEBP', mode) for mode in ('RGB', 'L')),
  ],
)
def test_images_of_every_kind_become_rgb(suffix, mode):
  encoded = _encode(Image.fromarray(_photo()).convert(mode), suffix)
  expected = np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))
  decoded = images.decode(encoded)
  assert decoded.dtype == np.uint8
  # Decoders round differently.
  np.testing.assert_allclose(decoded.astype(int), expected, atol=2)


def test_sixteen_bits_become_eight():
  gray = _photo()[..., 0]
  encoded = _encode(Image.fromarray(gray.astype(np.uint16) * 256 + 7), 'PNG')
  np.testing.assert_array_equal(images.decode(encoded), np.stack([gray] * 3, axis=-1))


def test_gray_images_may_keep_their_one_channel():
  gray = _photo()[..., :1]
  encoded = _encode(Image.fromarray(gray[..., 0]), 'PNG')
  np.testing.assert_array_equal(images.decode_gray(encoded), gray)
  with pytest.raises(DecodeError):
    images.decode_gray(encoded[:20])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_jpeg_is_turned_as_its_exif_says(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  encoded = _encode(Image.fromarray(_photo()), 'JPEG', exif=exif, quality=95)
  upright = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: x.transpose(1, 0, 2)[::-1],
  }[orientation](_photo())
  decoded = images.decode(encoded)
  assert decoded.shape == upright.shape
  assert np.abs(decoded.astype(int) - upright).mean() < 3


@pytest.mark.parametrize('suffix', ['PNG', 'WEBP', 'TIFF'])
def test_what_is_transparent_lies_on_white(suffix):
  photo = _photo()
  opacity = np.linspace(0, 255, 80).astype(np.uint8)[None, :, None].repeat(60, axis=0)
  image = Image.fromarray(np.concatenate([photo, opacity], axis=-1))
  decoded = images.decode(_encode(image, suffix, lossless=True, exact=True))
  expected = 255 - (255.0 - photo) * opacity / 255
  np.testing.assert_allclose(decoded, expected, atol=0.51)
  luma = expected @ [0.299, 0.587, 0.114]
  gray = images.decode_gray(_encode(image, suffix, lossless=True, exact=True))
  np.testing.assert_allclose(gray[..., 0], luma, atol=1.01)


def test_array_is_taken_as_it_is():
  image = _photo()
  assert images.decode(image) is image


@pytest.mark.parametrize('suffix', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_image_is_refused(suffix, share):
  encoded = _encode(Image.fromarray(_photo()), suffix)
  with pytest.raises(DecodeError):
    images.decode(encoded[: int(share * len(encoded))])


def test_what_is_no_image_is_refused():
  with pytest.raises(DecodeError, match=r"15 bytes are no image .* b'<html>404</h'"):
    images.decode(b'<html>404</html>'[:15])


@pytest.mark.parametrize(
  ('suffix', 'mode'),
  [('TIFF', 'RGB'), ('BMP', 'RGB'), ('GIF', 'L'), ('PPM', 'RGB'), ('TIFF', 'CMYK')],
)
def test_lossless_formats_are_read_as_pillow_reads_them(suffix, mode):
  encoded = _encode(Image.fromarray(_photo()).convert(mode), suffix)
  expected = np.asarray(Image.open(io.BytesIO(encoded)).convert('RGB'))
  np.testing.assert_allclose(images.decode(encoded).astype(int), expected, atol=1)
  assert images.suffix('a.TIF') in images.SUFFIXES
  assert {'.jpe', '.jfif', '.bmp', '.gif'} <= images.SUFFIXES


@pytest.mark.parametrize('decode', [images.decode, images.decode_gray])
def test_fourth_band_of_a_tiff_is_opacity_only_if_it_says_so(decode):
  bands = np.zeros((6, 8, 4), np.uint8)
  # Pillow's RGBX leaves open what it is, as files with infrared do.
  encoded = _encode(Image.frombytes('RGBX', (8, 6), bands.tobytes()), 'TIFF')
  with pytest.raises(DecodeError, match=r'not marked as opacity; .* images=npy'):
    decode(encoded)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('kind', [1, 2])
def test_opacity_of_a_tiff_may_be_in_its_colours(dtype, kind):
  """Of 8 bits OpenCV multiplies them, of 16 bits it does not."""
  photo = _photo(6, 8)
  opacity = np.linspace(0, 255, 8).astype(np.uint8)[None, :, None].repeat(6, axis=0)
  colours = photo * (opacity / 255) if kind == 1 else photo
  bgra = np.concatenate([colours.round().astype(np.uint8)[..., ::-1], opacity], -1)
  bits = np.iinfo(dtype).bits
  encoded = cv2.imencode('.tif', bgra.astype(dtype) * dtype(257 if bits == 16 else 1))
  marked = _with_opacity(encoded[1].tobytes(), kind)
  expected = 255 - (255.0 - photo) * opacity / 255
  assert np.abs(images.decode(marked) - expected).max() < 2


def _with_opacity(tiff, kind):
  """A TIFF whose only directory gets the field ExtraSamples."""
  start = int.from_bytes(tiff[4:8], 'little')
  count = int.from_bytes(tiff[start : start + 2], 'little')
  entries = tiff[start + 2 : start + 2 + 12 * count]
  entry = np.array([338, 3], '<u2').tobytes() + np.array([1, kind], '<u4').tobytes()
  directory = np.array(count + 1, '<u2').tobytes() + entries + entry + bytes(4)
  return tiff[:4] + np.array(len(tiff), '<u4').tobytes() + tiff[8:] + directory


@pytest.mark.parametrize('suffix', ['PNG', 'JPEG', 'TIFF', 'WEBP', 'GIF', 'BMP'])
def test_size_is_limited_before_an_image_is_decoded(suffix, monkeypatch):
  encoded = _encode(Image.fromarray(_photo()), suffix)
  assert images.decode(encoded, max_pixels=4800).shape == (60, 80, 3)
  assert images.size(encoded) == (60, 80)
  monkeypatch.setattr(cv2, 'imdecode', None)
  match = f'a {suffix} of 60×80 pixels, 4,800 in all, more than config.data.max_pixels'
  with pytest.raises(DecodeError, match=match):
    images.decode(encoded, max_pixels=4799)


def test_large_header_is_an_error_also_where_pillow_raises_its_own():
  encoded = bytearray(_encode(Image.fromarray(_photo()), 'PNG'))
  encoded[16:24] = (60_000).to_bytes(4) * 2
  encoded[29:33] = zlib.crc32(encoded[12:29]).to_bytes(4)
  with pytest.raises(DecodeError, match='60000×60000 pixels, 3,600,000,000 in all'):
    images.decode(bytes(encoded))
  with pytest.raises(DecodeError, match='max_pixels'):
    images.decode_classes(bytes(encoded))


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_sixteen_bits_are_scaled_by_the_range_that_is_used(bits):
  values = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
  encoded = _encode(Image.fromarray(values), 'PNG')
  expected = np.floor(values / 2 ** (bits - 8))
  np.testing.assert_array_equal(images.decode(encoded)[..., 0], expected)
  np.testing.assert_array_equal(images.decode_gray(encoded)[..., 0], expected)


def test_transparent_images_of_sixteen_bits_lie_on_white():
  pixels = np.zeros((2, 2, 4), np.uint16)
  pixels[0] = [40000, 20000, 60000, 65535]
  expected = [[[60000 >> 8, 20000 >> 8, 40000 >> 8]] * 2, [[255] * 3] * 2]
  encoded = cv2.imencode('.png', pixels)[1].tobytes()
  np.testing.assert_array_equal(images.decode(encoded), expected)


@pytest.mark.parametrize('dtype', [np.int32, np.float32])
def test_pixels_without_a_known_range_are_an_error(dtype):
  encoded = _encode(Image.fromarray(np.ones((3, 4), dtype)), 'TIFF')
  with pytest.raises(DecodeError, match=f'{dtype.__name__}.* 8 or 16 bits'):
    images.decode(encoded)


def _cubic(distance):
  """Keys' kernel with a = -0.5."""
  a, x = -0.5, np.abs(distance)
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
  return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _interpolation(size, wanted):
  """[wanted, size]: weights of the pixels, centres at halves, none outside."""
  centres = (np.arange(wanted) + 0.5) * size / wanted - 0.5
  weights = _cubic(centres[:, None] - np.arange(size))
  return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize('shape', [(60, 80), (20, 31), (32, 32), (150, 40)])
def test_resized_crop_equals_a_bicubic_reference(shape):
  image = _photo(*shape)
  rows, columns = _interpolation(shape[0], 32), _interpolation(shape[1], 32)
  exact = np.einsum('ih,jw,hwc->ijc', rows, columns, image)
  resized = images.resize_to(image, 32, 32)
  np.testing.assert_allclose(resized, np.clip(exact, 0, 255), atol=1.01)
  assert np.abs(resized - np.clip(exact, 0, 255)).mean() < 0.5


def test_shorter_side_keeps_the_aspect_and_takes_the_middle():
  image = _photo(40, 100)
  rows, columns = _interpolation(40, 20), _interpolation(100, 50)[15:35]
  exact = np.einsum('ih,jw,hwc->ijc', rows, columns, image)
  np.testing.assert_allclose(
    images.shorter_side(image, 20), np.clip(exact, 0, 255), atol=1.01
  )


def _coordinates(height, width):
  """An image whose pixel (i, j) is (i, j)."""
  return np.stack(np.indices((height, width)), axis=-1).astype(np.uint8)


def test_random_crops_follow_the_stated_law(monkeypatch):
  monkeypatch.setattr(images.resampling, 'resize', lambda image, *_: image)
  rng = np.random.default_rng(0)
  crops = [
    images.random_resized_crop(rng, _coordinates(200, 200), 32) for _ in range(2000)
  ]
  areas = np.array([crop.shape[0] * crop.shape[1] for crop in crops]) / 200**2
  aspects = np.array([crop.shape[1] / crop.shape[0] for crop in crops])
  assert 0.07 < areas.min() < 0.1
  assert areas.max() > 0.9
  small = aspects[areas < 0.6]  # Not clipped by the image.
  log_aspect = np.log(small)
  assert np.all(np.abs(log_aspect) < math.log(4 / 3) + 0.05)
  np.testing.assert_allclose(log_aspect.mean(), 0, atol=0.02)
  # The standard deviation of a uniform distribution is its width / √12.
  np.testing.assert_allclose(log_aspect.std(), 2 * math.log(4 / 3) / 12**0.5, rtol=0.06)
  # Area is uniform as far as no side is clipped.
  np.testing.assert_allclose((areas < 0.31).mean(), (0.31 - 0.08) / 0.92, atol=0.04)


def test_random_crops_reach_every_corner(monkeypatch):
  monkeypatch.setattr(images.resampling, 'resize', lambda image, *_: image)
  rng = np.random.default_rng(0)
  corners = np.array(
    [
      (*crop[0, 0], *crop[-1, -1])
      for crop in (
        images.random_resized_crop(rng, _coordinates(20, 30), 8) for _ in range(500)
      )
    ]
  )
  np.testing.assert_array_equal(corners.min(axis=0)[:2], [0, 0])
  np.testing.assert_array_equal(corners.max(axis=0)[2:], [19, 29])


@pytest.mark.parametrize('shape', [(32, 48, 3), (40, 40, 1), (7, 3, 3), (1, 1, 1)])
def test_crops_have_the_wanted_shape_and_type(shape):
  image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  for crop in (
    images.random_resized_crop(np.random.default_rng(1), image, 16),
    images.centre_crop(image, 16),
    images.shorter_side(image, 16),
  ):
    assert crop.shape == (16, 16, shape[2])
    assert crop.dtype == np.uint8


@pytest.mark.parametrize('shape', [(256, 341), (375, 500), (500, 333), (257, 259)])
def test_centre_crop_is_the_published_window(shape, monkeypatch):
  """BYOL's: a side of int(0.875·min(h, w)), at offset (h − side + 1)//2."""
  monkeypatch.setattr(images.resampling, 'resize', lambda image, *_: image)
  places = np.stack(np.indices(shape), axis=-1)
  crop = images.centre_crop(places, 224)
  side = int(0.875 * min(shape))
  assert crop.shape == (side, side, 2)
  np.testing.assert_array_equal(crop[0, 0], [(x - side + 1) // 2 for x in shape])


def test_window_of_other_sizes_leaves_a_border_of_16_pixels():
  """128/160 of the image at 128 px; without resizing, the central pixels."""
  image = _coordinates(160, 200)
  crop = images.centre_crop(image, 128)
  np.testing.assert_array_equal(crop, image[16:144, 36:164])


def test_classes_are_the_indices_of_a_palette_or_gray_values():
  classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
  palette = Image.fromarray(classes, mode='P')
  palette.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
  for picture in (palette, Image.fromarray(classes)):
    decoded = images.decode_classes(_png(picture))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, classes)
  assert images.decode_classes(classes) is classes


@pytest.mark.parametrize('damage', ['colours', 'truncated', 'nothing', 'lossy'])
def test_what_is_no_segmentation_is_refused(damage):
  noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  encoded = {
    'colours': _png(Image.fromarray(noise)),
    'truncated': _png(Image.fromarray(noise[..., 0]))[:-500],
    'nothing': b'',
    'lossy': _encode(Image.fromarray(noise[..., 0]), 'JPEG'),
  }[damage]
  with pytest.raises(DecodeError):
    images.decode_classes(encoded)


def _png(picture):
  stream = io.BytesIO()
  picture.save(stream, 'PNG')
  return stream.getvalue()


def test_nearest_is_that_of_half_pixel_centres():
  x = np.arange(6, dtype=np.float32)[None]
  np.testing.assert_array_equal(images.nearest(x, 1, 3), [[1, 3, 5]])
  np.testing.assert_array_equal(images.nearest(x, 1, 12), [np.repeat(x[0], 2)])


def _npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


@pytest.mark.parametrize('shape', [(6, 4, 1), (6, 4, 2), (6, 4, 16), (6, 4)])
def test_array_in_a_file_has_its_channels(shape):
  array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  for ordered in (array, np.asfortranarray(array)):
    encoded = _npy(ordered)
    np.testing.assert_array_equal(images.decode(encoded), array.reshape(6, 4, -1))
    assert images.size(encoded) == (6, 4)
  with pytest.raises(DecodeError, match='24 in all, more than'):
    images.decode(encoded, max_pixels=23)


@pytest.mark.parametrize(
  ('encoded', 'message'),
  [
    (_npy(np.zeros((6, 4, 17), np.uint8)), r'uint8\[6, 4, 17\]; use uint8 \[H, W, C\]'),
    (_npy(np.zeros((6, 4, 0), np.uint8)), r'\[6, 4, 0\]; use'),
    (_npy(np.zeros((6, 4, 3))), r'float64\[6, 4, 3\]; use uint8'),
    (_npy(np.zeros(6, np.uint8)), r'uint8\[6\]; use'),
    (_npy(np.array([[None]])), r'object\[1, 1\]; use uint8'),
    (_npy(np.zeros((6, 4, 3), np.uint8))[:-1], 'NPY of 6×4 pixels that is truncated'),
    (_npy(np.zeros((6, 4, 3), np.uint8))[:40], 'an NPY with a damaged header'),
    (b'\x93NUMPY', 'an NPY with a damaged header'),
    (b'\x93NUMPY\x09\x00' + bytes(99), 'an NPY with a damaged header'),
  ],
)
def test_array_in_a_file_must_be_an_image(encoded, message):
  with pytest.raises(DecodeError, match=message):
    images.decode(encoded)
