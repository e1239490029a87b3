"""Pre-trains, and counts what crosses between the host and the devices in some steps.

python -m tests.experiments.transfers ARGUMENTS

At the start of step LAST, each process prints a JSON list with an entry for each step
before, up to the start of the next one: the shapes of the arrays that were fetched from
the devices, and of each whether it was there already; and how many bytes were put on
the devices from the host, by the main thread or by that of the input, and how many from
other devices.
"""

import json
import os
import threading

import jax
import numpy as np
from jax._src import array
from jax._src.interpreters import pxla

from experiments import pretrain
from sslhsic.runs import runner

LAST = 5


class Counted(pretrain.Pretrain):
  """The pre-training, with a count of each step."""

  steps = None

  def step(self, global_step, rng):
    if self.steps is None:
      Counted.steps = []
      _watch(self.steps)
    if global_step == LAST:
      # Of several processes, only the first still has its standard output.
      os.write(1, (json.dumps(self.steps) + '\n').encode())
    self.steps.append({'fetched': [], 'put': 0, 'input': 0, 'moved': 0})
    return super().step(global_step, rng)


def _watch(steps):
  """Counts from now on, into the last element."""
  value, put = array.ArrayImpl._value, pxla.batched_device_put

  def fetched(x):
    if x._npy_value is None:
      steps[-1]['fetched'].append([x.shape, x.is_ready()])
    return value.fget(x)

  def counted_put(aval, sharding, xs, *arguments, **settings):
    for x in xs:
      is_main = threading.current_thread() is threading.main_thread()
      kind = 'moved' if isinstance(x, jax.Array) else 'put' if is_main else 'input'
      steps[-1][kind] += np.size(x) * np.dtype(x.dtype).itemsize
    return put(aval, sharding, xs, *arguments, **settings)

  def noted(convert):
    # NumPy reads an array on one CPU device without asking JAX.
    def counted(x, *arguments, **settings):
      if isinstance(x, array.ArrayImpl):
        steps[-1]['fetched'].append([x.shape, x.is_ready()])
      return convert(x, *arguments, **settings)

    return counted

  array.ArrayImpl._value = property(fetched)
  pxla.batched_device_put = counted_put
  np.asarray, np.array = noted(np.asarray), noted(np.array)


if __name__ == '__main__':
  runner.main(Counted)
