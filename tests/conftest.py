"""Every test runs on eight fake CPU devices, with strict promotion rules."""

import gc
import importlib.metadata
import os
import pathlib

# Set before JAX starts: the number of devices cannot change afterwards.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=8'
  # Compiling takes most of the time of a suite of tiny shapes.
  + ' --xla_backend_optimization_level=0'
  + ' --xla_cpu_parallel_codegen_split_count=1'
  + ' --xla_llvm_disable_expensive_passes=true'
  + ' --xla_cpu_prefer_vector_width=128'
  # On a busy machine, devices and processes wait for each other for longer than the
  # 40 s after which XLA aborts.
  + ' --xla_cpu_collective_call_terminate_timeout_seconds=600'
  + ' --xla_cpu_collective_timeout_seconds=600'
)
# XLA aborts on a flag that it does not know, and jaxlib 0.11 has dropped this one.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
else:
  # YNNPACK, which jaxlib 0.11 uses for more: the gradient of HSIC on one and on two
  # devices then differs by 2e-5, without it by 1e-6.
  os.environ['XLA_FLAGS'] += ' --xla_cpu_experimental_ynn_fusion_type='
# Errors too are silent, but not what XLA says when it aborts.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# Tracing takes most of the rest: keep no stack for each operation.
os.environ['JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS'] = 'false'
os.environ['JAX_TRACEBACK_IN_LOCATIONS_LIMIT'] = '1'

# Eight devices that wait for each other hang now and then in less than sixteen threads.
os.environ['PJRT_NPROC'] = '32'

import cv2
import haiku as hk
import jax
import numpy as np
import pytest
from absl import flags

from sslhsic.evaluation import encoder
from sslhsic.networks import classifier

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Tracing makes many objects, few of them garbage.
gc.set_threshold(100_000)

jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(ROOT / '.jax_cache'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)

# Grain's worker processes read flags, which no program has parsed here.
flags.FLAGS.mark_as_parsed()

DATA = ROOT / 'tests' / 'data'


_MAPPINGS = pathlib.Path('/proc/self/maps')
_MAX_MAPPINGS = 30_000  # Linux allows 65,530 by default; a program takes about 13.


@pytest.fixture(scope='module', autouse=True)
def programs_are_freed():
  """Forgets compiled programs before their code takes all mappings of a process.

  Without this, XLA ends with 'Unable to allocate section memory' late in the suite.
  """
  yield
  if not _MAPPINGS.exists():
    return
  if _MAPPINGS.read_bytes().count(b'\n') > _MAX_MAPPINGS:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session')
def golden_values():
  """Computed with the published implementation of SSL-HSIC, random draws replaced.

  Keys 'caseN/NAME': views [M, B, d], frequencies [2, D, d] at unit scale and phases
  [2, D] of draws a and b, scale, gamma; hsic_zy, hsic_zz, loss, grad_views;
  kernel_grad_log_norm over all pairs of the views, and its derivative by the scale.
  """
  with np.load(DATA / 'ssl_hsic_published.npz', allow_pickle=False) as file:
    return dict(file)


@pytest.fixture(scope='session')
def encoded_image():
  """A function of a number and a suffix: the bytes of a smooth image that it decides.

  Images are 24 to 55 pixels high and 40 wide; their blue channel is the number.
  """

  def encode(number, suffix='.png'):
    rng = np.random.default_rng(number)
    shape = (24 + number % 32, 40, 3)
    image = cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 3)
    image[..., 0] = number
    return cv2.imencode(suffix, image)[1].tobytes()

  return encode


@pytest.fixture(scope='session')
def write_images(encoded_image):
  """A function that writes images into a folder, numbered from `first`."""

  def write(folder, count, first=0, suffix='.jpg'):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
      (folder / f'{number}{suffix}').write_bytes(encoded_image(number, suffix.lower()))

  return write


@pytest.fixture(scope='session')
def random_encoder():
  """A function of a network's name and options: its parameters and statistics."""

  made = {}  # To trace a whole network takes seconds.

  def make(name, channels=3, **options):
    key = name, channels, *sorted(options.items())
    if key not in made:
      made[key] = _make(name, channels, options)
    return jax.tree.map(np.copy, made[key])

  def _make(name, channels, options):
    network = classifier.encoder(encoder=name, encoder_options=options)
    rng = np.random.default_rng(0)

    def value(module, name, shape):
      if name == 'counter':
        return np.int32(7)
      if name == 'w':
        fan_in = np.prod(shape.shape[:3])
        return rng.normal(0, fan_in**-0.5, shape.shape).astype(np.float32)
      is_scale = name == 'scale' or module.endswith('var_ema')
      centre = 1.0 if is_scale else 0.0
      return (centre + rng.uniform(-0.5, 0.5, shape.shape)).astype(np.float32)

    size = options.get('image_size', 32)
    trees = encoder.shapes(network, (size, size, channels))
    return tuple(hk.data_structures.map(value, tree) for tree in trees)

  return make
