"""Worker processes import the examples alone."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize('task', ['segmentation', 'depth', 'detection'])
def test_examples_do_not_import_networks(task):
  code = (
    f'import sys, sslhsic.tasks.{task}.examples; '
    "print({'jax', 'haiku', 'matplotlib'} & set(sys.modules))"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout.strip() == 'set()', done.stderr
