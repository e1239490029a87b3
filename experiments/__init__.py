"""The programs: `python -m experiments.NAME --config=FILE.py --workdir=DIR`."""

import os

# Set before jax is imported, which reads it then. On many a CPU, XLA complains in two
# kilobytes of every program that it takes from the compilation cache, for a feature
# whose name it does not know. What goes wrong comes as an exception.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
