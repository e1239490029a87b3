"""The training step of `benchmarks.step` in PyTorch, for comparison.

The same networks, images and loader, two views, BYOL's loss, a target network, SGD with
momentum, and the monitoring classifier; no augmentation but the loader's crop. With
channels_last, autocast to bfloat16, TF32 for float32, and torch.compile where that
works. PyTorch is no dependency of the project.
"""

import collections
import functools
import sys
import time
from collections.abc import Iterator

import ml_collections
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sslhsic.data import loader, sources
from sslhsic.networks import resnet as resnet_lib
from sslhsic.pretraining import views as views_lib
from sslhsic.weights import resnet


class Block(nn.Module):
  """Residual block, as `sslhsic.networks.resnet.Block`."""

  def __init__(
    self,
    inputs: int,
    outputs: int,
    stride: int,
    *,
    bottleneck: bool,
    projects: bool,
    zero_init_last_scale: bool,
  ):
    """Sets the channels, the stride of the first 3×3 convolution, and initial values.

    Args:
      inputs, outputs: channels.
      stride: of the first 3×3 convolution and the shortcut.
      bottleneck: whether the block is a bottleneck or basic.
      projects: whether the shortcut is projected even if its shape stays.
      zero_init_last_scale: whether the block starts as its shortcut.
    """
    super().__init__()
    inner = outputs // 4
    layers = (
      [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
      if bottleneck
      else [(outputs, 3, stride), (outputs, 3, 1)]
    )
    modules, channels = [], inputs
    for width, kernel_size, layer_stride in layers:
      modules += [*_convolution(channels, width, kernel_size, layer_stride), nn.ReLU()]
      channels = width
    self.body = nn.Sequential(*modules[:-1])
    if zero_init_last_scale:
      nn.init.zeros_(modules[-2].weight)
    is_same = stride == 1 and inputs == outputs and not projects
    self.shortcut = nn.Sequential(
      *([] if is_same else _convolution(inputs, outputs, 1, stride))
    )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps [n, inputs, h, w] to [n, outputs, h/stride, w/stride]."""
    return functional.relu(self.body(x) + self.shortcut(x))


def _convolution(
  inputs: int, outputs: int, kernel_size: int, stride: int
) -> list[nn.Module]:
  padding = (kernel_size - 1) // 2
  return [
    nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False),
    nn.BatchNorm2d(outputs),
  ]


def encoder(name: str, channels: int, **options) -> tuple[nn.Module, int]:
  """A ResNet by its name, for images of some channels; and its width."""
  shape = resnet.architecture(name, options)
  zero_init = (resnet_lib.PRESETS[name] | options).get('zero_init_last_scale')
  inputs, large = shape.stem_channels, shape.stem == 'imagenet'
  stem = _convolution(channels, inputs, *((7, 2) if large else (3, 1)))
  modules = [*stem, nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
  for group, width in enumerate(shape.channels_per_group):
    for block in range(shape.blocks_per_group[group]):
      projects = not block and (group > 0 or shape.project_first_shortcut)
      modules.append(
        Block(
          inputs,
          width,
          stride=2 if group and not block else 1,
          bottleneck=shape.bottleneck,
          projects=projects,
          zero_init_last_scale=shape.bottleneck if zero_init is None else zero_init,
        )
      )
      inputs = width
  return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


def head(inputs: int, *, hidden_size: int, output_size: int) -> nn.Module:
  """Projector or predictor, as `sslhsic.networks.heads.MLP`."""
  return nn.Sequential(
    nn.Linear(inputs, hidden_size),
    nn.BatchNorm1d(hidden_size),
    nn.ReLU(),
    nn.Linear(hidden_size, output_size, bias=False),
  )


class Online(nn.Module):
  """Encoder, projector, predictor and the monitoring classifier."""

  def __init__(self, config: ml_collections.ConfigDict, num_classes: int):
    """Builds the networks of a configuration."""
    super().__init__()
    self.branch, width = branch(config)
    self.predictor = head(config.network.head.output_size, **config.network.head)
    self.classifier = nn.Linear(width, num_classes)

  def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions [n, d] and logits [n, num_classes]."""
    embedding = self.branch[0](images)
    prediction = self.predictor(self.branch[1](embedding))
    return prediction, self.classifier(embedding.detach())


def branch(config: ml_collections.ConfigDict) -> tuple[nn.Sequential, int]:
  """Encoder and projector, and the width of the encoder."""
  network = config.network
  backbone, width = encoder(
    network.encoder, len(config.data.mean), **network.encoder_options
  )
  return nn.Sequential(backbone, head(width, **network.head)), width


class Step:
  """Networks and optimiser; a call is one step."""

  def __init__(self, config: ml_collections.ConfigDict, num_classes: int):
    """Builds both networks on the GPU, if there is one."""
    self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self._bfloat16 = config.training.precision == 'bfloat16'
    place = {'device': self.device, 'memory_format': torch.channels_last}
    self._online = Online(config, num_classes).to(**place)
    self._target = branch(config)[0].to(**place).requires_grad_(False)
    self._optimizer = torch.optim.SGD(
      self._online.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-6
    )
    normalisation = torch.tensor([config.data.mean, config.data.std])
    self._mean, self._std = normalisation.to(self.device)[:, None, :, None, None]
    self.loss = self._loss

  def _loss(self, views: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """BYOL's loss, and that of the classifier on view 1."""
    views = [(view / 255 - self._mean) / self._std for view in views]
    with torch.autocast(self.device, torch.bfloat16, enabled=self._bfloat16):
      (first, logits), (second, _) = [self._online(view) for view in views]
      with torch.no_grad():
        targets = [self._target(view) for view in views]
    similarity = functional.cosine_similarity(
      torch.cat([first, second]).float(), torch.cat(targets[::-1]).float()
    )
    return 2 * (2 - 2 * similarity.mean()) + functional.cross_entropy(
      logits.float(), labels
    )

  def __call__(self, views: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """One update, from uint8 views [n, c, h, w]."""
    loss = self.loss(views, labels)
    self._optimizer.zero_grad()
    loss.backward()
    self._optimizer.step()
    followed = self._online.branch.parameters()
    with torch.no_grad():
      torch._foreach_lerp_(list(self._target.parameters()), list(followed), 0.01)
    return loss.detach()


class Subject:
  """As `benchmarks.step.Subject`, in PyTorch."""

  def __init__(self, config: ml_collections.ConfigDict):
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    source = sources.create(config.data.source, config.data.train_split)
    of_views = views_lib.parse(config.augment.views)
    self._stream = loader.views(
      source,
      batch_size=config.training.batch_size,
      seed=0,
      crops=[
        view.crop(config.data.crop_size, config.data.interpolation) for view in of_views
      ],
      num_workers=config.data.num_workers,
    )
    self._batch_size = config.training.batch_size
    size = config.data.crop_size
    self._shape = (size, size, len(config.data.mean)) if size else (8, 8, 1)
    self._step = Step(config, source.num_classes)
    self._on_device = True
    self._batches = _on_device(self._stream, self._step.device)
    self._wait_s = 0.0
    if self._is_cuda:
      torch.cuda.reset_peak_memory_stats()

  @property
  def _is_cuda(self) -> bool:
    return self._step.device == 'cuda'

  def compile(self) -> dict:
    """Compiles the step, if it can be: 'compile_s', 'is_compiled' and 'version'."""
    compile_s, is_compiled = _compile(self._step, self._next())
    return {
      'compile_s': compile_s,
      'is_compiled': is_compiled,
      'version': torch.__version__,
    }

  def warm_up(self, steps: int = 2) -> None:
    """Takes the first steps."""
    for _ in range(steps):
      self._step(*self._next()).item()

  def run(self, seconds: float, on_device: bool = False) -> dict:
    """As `benchmarks.step.Subject.run`."""
    self._on_device = on_device
    for _ in range(1 if on_device else 3):  # Not measured: workers may have to start.
      self._step(*self._next()).item()
    start, waited, steps, before = time.perf_counter(), self._wait_s, 0, None
    while not steps or time.perf_counter() - start < seconds:
      loss = self._step(*self._next())
      if before is not None:
        before.item()  # One step ahead, as in JAX.
      before, steps = loss, steps + 1
    before.item()
    elapsed = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if self._is_cuda else None
    return {
      'images_per_second': steps * self._batch_size / elapsed,
      'data_wait_share': min((self._wait_s - waited) / elapsed, 1.0),
      'peak_bytes': peak,
    }

  def close(self) -> None:
    """Stops the loader."""
    self._stream.close()

  def _next(self) -> tuple:
    if self._on_device:
      return self._resident
    start = time.perf_counter()
    batch = next(self._batches)
    self._wait_s += time.perf_counter() - start
    return batch

  @functools.cached_property
  def _resident(self) -> tuple:
    shape = (self._batch_size, *self._shape)
    view = lambda: torch.randint(0, 256, shape, dtype=torch.uint8)
    views = [view().to(self._step.device).permute(0, 3, 1, 2) for _ in range(2)]
    labels = torch.zeros(self._batch_size, dtype=torch.long, device=self._step.device)
    return views, labels


def measure_step(
  config: ml_collections.ConfigDict, seconds: float, warm_up_steps: int
) -> dict:
  """As `benchmarks.step.measure_step`; 'is_compiled' says whether it could be."""
  subject = Subject(config)
  compiled = subject.compile()
  subject.warm_up(warm_up_steps)
  measured = subject.run(seconds)
  subject.close()
  return measured | compiled | {'device_bytes': measured['peak_bytes']}


def _compile(step: Step, batch: tuple) -> tuple[float, bool]:
  """Seconds of the first step, compiled if it can be, and whether it could."""
  plain, step.loss = step.loss, torch.compile(step.loss)
  # torch.compile asks all modules for an attribute, and Haiku's stand-in for a missing
  # Flax raises another error than it expects.
  sys.modules.pop('haiku.experimental.flax', None)
  start = time.perf_counter()
  try:
    step(*batch).item()
    is_compiled = True
  except Exception as error:
    print('torch.compile:', ' '.join(str(error).splitlines()[:3]))
    step.loss, is_compiled = plain, False
    step(*batch).item()
  return time.perf_counter() - start, is_compiled


def _on_device(
  stream: Iterator[dict], device: str, prefetch: int = 2
) -> Iterator[tuple]:
  """Views [n, c, h, w], channels last in memory, and labels; copied ahead of time."""
  copies = torch.cuda.Stream() if device == 'cuda' else None
  queue = collections.deque()
  for batch in stream:
    with torch.cuda.stream(copies):  # Does nothing for None.
      put = functools.partial(_put, device=device)
      views = [put(batch[name]).permute(0, 3, 1, 2) for name in ('view1', 'view2')]
      labels = put(batch['label']).long()
      queue.append((views, labels, copies and copies.record_event()))
    if len(queue) < prefetch:
      continue
    views, labels, is_there = queue.popleft()
    if copies:
      torch.cuda.current_stream().wait_event(is_there)
      for array in (*views, labels):
        array.record_stream(torch.cuda.current_stream())
    yield views, labels


def _put(array: np.ndarray, device: str) -> torch.Tensor:
  """Copies to the device, without waiting for it if that is a GPU."""
  tensor = torch.from_numpy(array)
  return (
    tensor.pin_memory().to(device, non_blocking=True) if device == 'cuda' else tensor
  )
