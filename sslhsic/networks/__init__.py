"""Haiku modules: the encoder (ResNet) and the heads on top of it."""

from sslhsic.networks.heads import MLP
from sslhsic.networks.resnet import PRESETS, Features, ResNet, create

__all__ = ['MLP', 'PRESETS', 'Features', 'ResNet', 'create']
