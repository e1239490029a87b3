"""Computes the golden values of tests/networks/test_resnet.py with PyTorch.

Run in an environment of its own, since the project does not depend on PyTorch:

  python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0 numpy
  /tmp/torch/bin/python tests/data/make_resnet_golden.py

Two small residual networks are put together from torch.nn layers, with torchvision's
names and rules for shortcuts and dilation, and random weights. They are run in float64
on their float32 weights and images; the results are stored as float32.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional

FILE = pathlib.Path(__file__).with_name('resnet_golden.npz')


class Block(nn.Module):
  """Bottleneck or basic block."""

  def __init__(self, in_channels, channels, bottleneck, stride, dilations):
    super().__init__()
    first, after = dilations
    if bottleneck:
      inner = channels // 4
      self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
      self.conv2 = nn.Conv2d(
        inner, inner, 3, stride, padding=first, dilation=first, bias=False
      )
      self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
      self.bn1, self.bn2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
      self.bn3 = nn.BatchNorm2d(channels)
    else:
      self.conv1 = nn.Conv2d(
        in_channels, channels, 3, stride, padding=first, dilation=first, bias=False
      )
      self.conv2 = nn.Conv2d(
        channels, channels, 3, padding=after, dilation=after, bias=False
      )
      self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
    self.bottleneck = bottleneck
    self.downsample = None
    if stride != 1 or in_channels != channels:
      self.downsample = nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride, bias=False),
        nn.BatchNorm2d(channels),
      )

  def forward(self, x):
    shortcut = x if self.downsample is None else self.downsample(x)
    x = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
    if self.bottleneck:
      x = self.bn3(self.conv3(functional.relu(x)))
    return functional.relu(x + shortcut)


class ResNet(nn.Module):
  """Three groups of residual blocks; the last num_dilated keep their resolution."""

  def __init__(self, blocks, channels, bottleneck, stem, num_dilated):
    super().__init__()
    width = channels[0] // 4 if bottleneck else channels[0]
    if stem == 'imagenet':
      self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
      self.pool = nn.MaxPool2d(3, stride=2, padding=1)
    else:
      self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
      self.pool = nn.Identity()
    self.bn1 = nn.BatchNorm2d(width)
    dilation = 1
    for i, out in enumerate(channels):
      stride, before = (1 if i == 0 else 2), dilation
      if i >= len(channels) - num_dilated:
        dilation, stride = dilation * stride, 1
      group = [Block(width, out, bottleneck, stride, (before, dilation))]
      for _ in range(1, blocks[i]):
        group.append(Block(out, out, bottleneck, 1, (dilation, dilation)))
      setattr(self, f'layer{i + 1}', nn.Sequential(*group))
      width = out

  def forward(self, x):
    x = self.pool(functional.relu(self.bn1(self.conv1(x))))
    stages = []
    for layer in (self.layer1, self.layer2, self.layer3):
      x = layer(x)
      stages.append(x)
    return stages, x.mean(dim=(2, 3))


def randomise(network):
  """Sets weights and running statistics to random values of float32 precision."""
  for name, value in network.state_dict().items():
    if 'num_batches' in name:
      continue
    if value.ndim == 4:
      random = torch.randn_like(value) * (2 / value[0].numel()) ** 0.5
    elif name.endswith('running_var') or name.endswith('weight'):
      random = torch.rand_like(value) + 0.5
    else:
      random = 0.2 * torch.randn_like(value)
    value.copy_(random.float())


def channels_last(x):
  """From [n, c, h, w] to [n, h, w, c]."""
  return x.permute(0, 2, 3, 1)


def evaluate(network, images):
  """Returns the last stage in evaluation mode."""
  network.eval()
  stages, _ = network(images)
  return channels_last(stages[-1])


def train(network, images):
  """Returns the last stage in training mode and a gradient of the stem's weights."""
  network.train()
  stages, embedding = network(images)
  weights = torch.linspace(-1, 1, embedding.numel()).reshape(embedding.shape)
  loss = (weights * embedding).sum()
  (gradient,) = torch.autograd.grad(loss, network.conv1.weight)
  return channels_last(stages[-1]), gradient


def main():
  torch.manual_seed(0)
  torch.set_default_dtype(torch.float64)
  images = {
    'even': torch.randn(2, 3, 32, 24).float(),
    'odd': torch.randn(2, 3, 29, 35).float(),
    'tiny': torch.randn(2, 3, 9, 8).float(),
  }
  networks = {
    'bottleneck': (((1, 1, 2), (16, 24, 32), True, 'imagenet'), ('even', 'odd')),
    'basic': (((1, 1, 2), (8, 12, 16), False, 'small'), ('tiny',)),
  }
  results = {f'images/{size}': channels_last(x) for size, x in images.items()}
  for name, (shape, sizes) in networks.items():
    network = ResNet(*shape, num_dilated=0)
    with torch.no_grad():
      randomise(network)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    results |= {
      f'{name}/weights/{k}': v for k, v in state.items() if 'num_batches' not in k
    }
    for num_dilated in (0, 1, 2):
      dilated = ResNet(*shape, num_dilated)
      dilated.load_state_dict(state)
      for size in sizes:
        stage = evaluate(dilated, images[size].double())
        results[f'{name}/{size}/dilated{num_dilated}/eval'] = stage
    stage, gradient = train(network, images[sizes[-1]].double())
    results[f'{name}/{sizes[-1]}/train'] = stage
    results[f'{name}/{sizes[-1]}/gradient'] = gradient
  arrays = {k: v.detach().numpy().astype(np.float32) for k, v in results.items()}
  np.savez_compressed(FILE, **arrays)
  print(f'{FILE}: {FILE.stat().st_size / 1000:.0f} kB, torch {torch.__version__}')


if __name__ == '__main__':
  main()
