"""The training step of `benchmarks.step` in PyTorch, for comparison.

The same networks, images and loader, two views, BYOL's loss, a target network, SGD with
momentum, and the monitoring classifier; no augmentation but the loader's crop. With
channels_last, autocast to bfloat16, TF32 for float32, and torch.compile where that
works. PyTorch is no dependency of the project.
"""

import sys
import time
from collections.abc import Iterator

import ml_collections
import torch
from torch import nn
from torch.nn import functional

from sslhsic.data import loader, sources
from sslhsic.networks import resnet


class Block(nn.Module):
  """Residual block, as `sslhsic.networks.resnet.Block`."""

  def __init__(self, inputs: int, outputs: int, stride: int, *, bottleneck: bool):
    """Sets the channels and the stride of the first 3×3 convolution."""
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
    is_same = stride == 1 and inputs == outputs
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
  """A network of `resnet.PRESETS`, for images of some channels; and its width."""
  preset = {'stem': 'imagenet', **resnet.PRESETS[name], **options}
  widths, bottleneck = preset['channels_per_group'], preset['bottleneck']
  inputs = widths[0] // (4 if bottleneck else 1)
  large = preset['stem'] == 'imagenet'
  stem = _convolution(channels, inputs, *((7, 2) if large else (3, 1)))
  modules = [*stem, nn.ReLU(), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
  for group, width in enumerate(widths):
    for block in range(preset['blocks_per_group'][group]):
      stride = 2 if group and not block else 1
      modules.append(Block(inputs, width, stride, bottleneck=bottleneck))
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


def measure_step(
  config: ml_collections.ConfigDict, seconds: float, warm_up_steps: int
) -> dict:
  """As `benchmarks.step.measure_step`; 'is_compiled' says whether it could be."""
  torch.set_float32_matmul_precision('high')
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  source = sources.create(config.data.source, config.data.train_split)
  stream = loader.two_views(
    source,
    batch_size=config.training.batch_size,
    seed=0,
    crop=loader.random_crop(config.data.crop_size)
    if config.data.crop_size
    else loader.whole_image,
    num_workers=config.data.num_workers,
  )
  step = Step(config, source.num_classes)
  batches = _on_device(stream, step.device)
  if step.device == 'cuda':
    torch.cuda.reset_peak_memory_stats()
  compile_s, is_compiled = _compile(step, next(batches))
  for _ in range(warm_up_steps):
    step(*next(batches)).item()
  start, steps, before = time.perf_counter(), 0, None
  while not steps or time.perf_counter() - start < seconds:
    loss = step(*next(batches))
    if before is not None:
      before.item()  # One step ahead, as in JAX.
    before, steps = loss, steps + 1
  before.item()
  elapsed = time.perf_counter() - start
  stream.close()
  return {
    'images_per_second': steps * config.training.batch_size / elapsed,
    'compile_s': compile_s,
    'is_compiled': is_compiled,
    'device_bytes': torch.cuda.max_memory_allocated()
    if step.device == 'cuda'
    else None,
    'version': torch.__version__,
  }


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


def _on_device(stream: Iterator[dict], device: str) -> Iterator[tuple]:
  """Views [n, c, h, w], channels last in memory, and labels."""
  for batch in stream:
    views = [
      torch.from_numpy(batch[name]).to(device).permute(0, 3, 1, 2)
      for name in ('view1', 'view2')
    ]
    yield views, torch.from_numpy(batch['label']).long().to(device)
