"""Imports what the programs do, before any of them runs; see `forks`."""

import importlib
import sys

# No program with flags of its own: a flag can be defined only once.
PROGRAMS = ('pretrain', 'linear_eval', 'knn', 'transfer')
MODULES = ('evaluation.embed', 'report.build', 'weights.from_run')

# First: `experiments` sets variables before JAX is imported.
for name in PROGRAMS:
  importlib.import_module(f'experiments.{name}')
for name in MODULES:
  importlib.import_module(f'sslhsic.{name}')
# What functions import, for the data and maps of the digits.
for name in ('datasets', 'manifold', 'model_selection'):
  importlib.import_module(f'sklearn.{name}')
for name in PROGRAMS:
  del sys.modules[f'experiments.{name}']  # They are to run anew, as main modules.
