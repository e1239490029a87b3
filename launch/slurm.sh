#!/usr/bin/env bash
# Trains on a Slurm cluster, a process for each GPU:
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/pretrain/imagenet.py --workdir=DIR
#
# All nodes must see the checkout, from which this is submitted, and the data; the first
# one DIR. The number of GPUs must divide the batch size. Two minutes before the time is
# over, the run saves and ends, and the job is queued again and resumes; so it does after
# the failure of a node. For nodes with other than eight GPUs, give sbatch
# --ntasks-per-node and --gpus-per-node too.
#SBATCH --job-name=sslhsic
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

if [[ $# == 0 || -z ${SLURM_CPUS_PER_TASK:-} ]]; then
  echo 'usage: sbatch --nodes=N launch/slurm.sh --config=FILE.py --workdir=DIR …' >&2
  exit 2
fi
if [[ ! -x .venv/bin/python ]]; then
  echo "error: no .venv/bin/python in $PWD: submit from a checkout with a .venv" >&2
  exit 2
fi

# For one GPU, unless the command says it; after --config, which has to come first.
workers=(--config.data.num_workers=8)
[[ $* == *--config.data.num_workers* ]] && workers=()

is_time_over=
trap 'is_time_over=yes; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

# Every process has its own loader, whose workers are for one GPU. srun does not inherit
# --cpus-per-task from sbatch (since Slurm 22.05): without it, all would share a core.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  .venv/bin/python -m experiments.pretrain "$@" "${workers[@]}" &
step=$!
wait "$step"  # Until the step ends, or the signal has come.
status=$?
if [[ $is_time_over ]]; then
  wait "$step"
  status=$?
  [[ $status == 0 ]] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
