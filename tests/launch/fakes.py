"""Programs in the place of a cluster's, which note how they are called."""

import json
import stat
import sys

# Starts SLURM_NTASKS processes of its command, as srun does, in the place of Python
# FAKE_PYTHON if that is given; its exit code is the largest of theirs.
_SRUN = """
import os, subprocess
start = next(i for i, x in enumerate(arguments) if not x.startswith('-'))
command = arguments[start:]
if 'FAKE_PYTHON' in os.environ:
  command[0] = os.environ['FAKE_PYTHON']
count = os.environ.get('SLURM_NTASKS', '1')
step = {'SLURM_STEP_NUM_TASKS': count, 'SLURM_STEP_NODELIST': 'localhost'}
tasks = [
  subprocess.Popen(
    command, env={**os.environ, **step, 'SLURM_PROCID': x, 'SLURM_LOCALID': x}
  )
  for x in map(str, range(int(count)))
]
(here / 'pids').write_text(' '.join(str(task.pid) for task in tasks))
sys.exit(max(task.wait() for task in tasks))
"""

# Sends SIGTERM to what srun has started.
_SCANCEL = """
import os, signal
for pid in (here / 'pids').read_text().split():
  os.kill(int(pid), signal.SIGTERM)
"""

# Runs the command of ssh, and copies the file of scp, as the one host of a pod.
_GCLOUD = """
import os, shutil, subprocess
command = [x.partition('=')[2] for x in arguments if x.startswith('--command=')]
if command:
  sys.exit(subprocess.run(['sh', '-c', command[0]]).returncode)
shutil.copy(arguments[4], here / 'copied.tar.gz')
"""

# Notes its arguments, and ends with EXIT_CODE; if WAITS is set, not before SIGTERM.
PYTHON = """
import os, signal
if 'WAITS' in os.environ:
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(os.environ['EXIT_CODE'])))
  (here / 'waiting').touch()
  signal.pause()
sys.exit(int(os.environ.get('EXIT_CODE', 0)))
"""

_NOTES = """
import json, pathlib, sys
here, arguments = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / (pathlib.Path(__file__).name + '.jsonl')).open('a') as notes:
  notes.write(json.dumps(arguments) + '\\n')
"""

CLUSTER = {'srun': _SRUN, 'scancel': _SCANCEL, 'scontrol': '', 'gcloud': _GCLOUD}


def write(directory, programs):
  """Writes programs, by name, into a directory."""
  directory.mkdir(parents=True, exist_ok=True)
  for name, text in programs.items():
    file = directory / name
    file.write_text(f'#!{sys.executable}\n{_NOTES}{text}')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def calls(directory, name):
  """The arguments of every call of a program."""
  notes = directory / f'{name}.jsonl'
  if not notes.exists():
    return []
  return [json.loads(line) for line in notes.read_text().splitlines()]
