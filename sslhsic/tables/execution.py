"""Runs the jobs behind a table, one command after another."""

import shlex
import signal
import subprocess
from collections.abc import Callable

from sslhsic.tables import jobs as jobs_lib


class StoppedError(Exception):
  """A signal has ended the runs; says which job was not done."""


def run(
  wanted: list[jobs_lib.Job], start: Callable[[jobs_lib.Job], None]
) -> list[jobs_lib.Job]:
  """Runs the jobs that are not done, one after another.

  Args:
    wanted: jobs, those that others need first.
    start: runs one, and returns when it has ended, well or not.

  Returns:
    Those that are not done at the end, because they or what they need failed.
  """
  failed = []
  missing = [job for job in wanted if not job.results()]
  print(f'{len(wanted) - len(missing)} of {len(wanted)} jobs are done')
  for number, job in enumerate(missing, 1):
    # Without its encoder, an evaluation cannot start.
    if any(job.needs == other.workdir for other in failed):
      failed.append(job)
      continue
    if job.results():  # Done by another process since.
      continue
    print(f'\njob {number} of {len(missing)}: {shlex.join(job.command)}', flush=True)
    start(job)
    if not job.results():
      failed.append(job)
  return failed


def in_subprocess(job: jobs_lib.Job) -> None:
  """Runs the command of a job; signals go to it, and then end this program too.

  Raises:
    StoppedError: by a signal, after which the job has saved, to be resumed.
  """
  received = []
  with subprocess.Popen(job.command) as process:

    def forward(number, frame):
      del frame
      received.append(signal.Signals(number))
      process.send_signal(number)

    # A signal to this process alone would leave the job running.
    handlers = {x: signal.signal(x, forward) for x in (signal.SIGTERM, signal.SIGINT)}
    try:
      process.wait()
    finally:
      for number, handler in handlers.items():
        signal.signal(number, handler)
  if received:
    raise StoppedError(
      f'stopped by {received[0].name} in {job.workdir}; the same command resumes'
    )
