"""The scripts for clusters, with programs of our own in the place of a cluster's."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.launch import fakes

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
# Arguments that a shell would split or expand if it read them again.
ARGUMENTS = ['--config=a b.py', "--config.x=('it''s', \"$HOME\")", '--workdir=*;&']
SLURM = {'SLURM_JOB_ID': '7', 'SLURM_CPUS_PER_TASK': '3', 'SLURM_NTASKS': '2'}


@pytest.fixture
def checkout(tmp_path):
  """A checkout with the scripts, whose Python only notes how it is called."""
  shutil.copytree(ROOT / 'launch', tmp_path / 'checkout' / 'launch')
  fakes.write(tmp_path / 'checkout' / '.venv' / 'bin', {'python': fakes.PYTHON})
  fakes.write(tmp_path / 'bin', fakes.CLUSTER)
  return tmp_path / 'checkout'


def _start(checkout, script, *arguments, **variables):
  path = f'{checkout.parent / "bin"}:{os.environ["PATH"]}'
  environment = {'PATH': path, 'HOME': str(checkout.parent / 'home'), **variables}
  return subprocess.Popen(
    ['bash', f'launch/{script}', *arguments],
    cwd=checkout,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _run(*arguments, **variables):
  """The exit code, and what it wrote to stderr."""
  program = _start(*arguments, **variables)
  err = program.communicate(timeout=60)[1]
  return program.returncode, err


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid(script):
  code = lambda *command: subprocess.run([*command, script], check=False).returncode
  assert code('bash', '-n') == 0
  if shutil.which('shellcheck'):
    assert code('shellcheck') == 0


@pytest.mark.parametrize(
  ('script', 'arguments', 'variables'),
  [
    ('slurm.sh', ARGUMENTS, {}),  # By bash, without sbatch.
    ('slurm.sh', [], SLURM),
    ('tpu_pod.sh', ['name', 'zone'], {}),
  ],
)
def test_missing_arguments_show_the_usage(checkout, script, arguments, variables):
  code, err = _run(checkout, script, *arguments, **variables)
  assert code == 2
  assert err.startswith('usage: ')
  assert f'launch/{script}' in err
  assert not fakes.calls(checkout.parent / 'bin', 'srun')
  assert not fakes.calls(checkout.parent / 'bin', 'gcloud')


def test_slurm_starts_the_program_in_every_task(checkout):
  assert _run(checkout, 'slurm.sh', *ARGUMENTS, **SLURM) == (0, '')
  command = ['-m', 'experiments.pretrain', *ARGUMENTS, '--config.data.num_workers=8']
  assert fakes.calls(checkout / '.venv' / 'bin', 'python') == [command] * 2
  assert fakes.calls(checkout.parent / 'bin', 'srun') == [
    ['--kill-on-bad-exit=1', '--cpus-per-task=3', '.venv/bin/python', *command]
  ]
  assert not fakes.calls(checkout.parent / 'bin', 'scontrol')


def test_slurm_leaves_the_workers_of_the_command(checkout):
  arguments = [*ARGUMENTS, '--config.data.num_workers=2']
  assert _run(checkout, 'slurm.sh', *arguments, **SLURM) == (0, '')
  command = ['-m', 'experiments.pretrain', *arguments]
  assert fakes.calls(checkout / '.venv' / 'bin', 'python') == [command] * 2


def test_slurm_ends_as_the_program_does(checkout):
  assert _run(checkout, 'slurm.sh', *ARGUMENTS, **SLURM, EXIT_CODE='3')[0] == 3


def test_slurm_outside_of_a_checkout_says_so(checkout):
  shutil.rmtree(checkout / '.venv')
  code, err = _run(checkout, 'slurm.sh', *ARGUMENTS, **SLURM)
  assert code == 2
  assert f'error: no .venv/bin/python in {checkout}' in err


@pytest.mark.parametrize('exit_code', [0, 1])
def test_slurm_queues_the_job_again_when_its_time_is_over(checkout, exit_code):
  variables = SLURM | {'SLURM_NTASKS': '1', 'WAITS': '', 'EXIT_CODE': str(exit_code)}
  program = _start(checkout, 'slurm.sh', *ARGUMENTS, **variables)
  deadline = time.monotonic() + 60
  while not (checkout / '.venv' / 'bin' / 'waiting').exists():
    assert program.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.05)
  program.send_signal(signal.SIGUSR1)
  program.communicate(timeout=60)
  assert program.returncode == exit_code
  called = checkout.parent / 'bin'
  assert fakes.calls(called, 'scancel') == [['--signal=TERM', '7.0']]
  # A run that could not save must not begin again and again.
  assert fakes.calls(called, 'scontrol') == ([] if exit_code else [['requeue', '7']])


@pytest.mark.parametrize('exit_code', [0, 5])
def test_tpu_pod_installs_and_starts_on_every_host(checkout, exit_code):
  called = checkout.parent / 'bin'
  home = checkout.parent / 'home'
  host = home / 'sslhsic' / '.venv' / 'bin'
  fakes.write(host, {'pip': '', 'python': fakes.PYTHON})
  # Nothing is extracted: the copy would be in /tmp, where other tests put theirs.
  tar = f'os.execv({shutil.which("tar")!r}, ["tar", *arguments])'
  fakes.write(called, {'tar': f'import os\nif "--create" in arguments: {tar}'})
  variables = {'TFDS_DATA_DIR': 'gs://a b', 'EXIT_CODE': str(exit_code)}
  code, err = _run(checkout, 'tpu_pod.sh', 'pod', 'zone-a', *ARGUMENTS, **variables)
  assert (code, err) == (exit_code, '')
  assert fakes.calls(host, 'python') == [['-m', 'experiments.pretrain', *ARGUMENTS]]
  assert fakes.calls(host, 'pip')[0][0] == 'install'
  copy, *commands = fakes.calls(called, 'gcloud')
  assert copy[:4] == ['compute', 'tpus', 'tpu-vm', 'scp']
  assert len(commands) == 2
  for arguments in commands:
    assert arguments[:5] == ['compute', 'tpus', 'tpu-vm', 'ssh', 'pod']
  for arguments in (copy, *commands):
    assert {'--zone=zone-a', '--worker=all'} <= set(arguments)
  assert r'TFDS_DATA_DIR=gs://a\ b ' in commands[-1][-1]
  names = subprocess.run(
    ['tar', '--list', '--file', called / 'copied.tar.gz'],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  assert './launch/slurm.sh' in names
  assert not any('.venv' in name for name in names)
