"""The programs: `python -m experiments.NAME --config=FILE.py --workdir=DIR`."""

import importlib.metadata
import os

# Set before jax is imported, which reads it then. XLA's warnings are off (2). On many a
# CPU, jaxlib 0.10's reports an error, of two kilobytes, for every program that it
# takes from the compilation cache: there its errors are off too (3), which come as
# exceptions. What it says when it aborts is shown at both.
os.environ.setdefault(
  'TF_CPP_MIN_LOG_LEVEL',
  '3' if importlib.metadata.version('jaxlib').startswith('0.10.') else '2',
)
