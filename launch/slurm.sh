#!/usr/bin/env bash
# Trains on a Slurm cluster, a process for each GPU:
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/pretrain/imagenet.py --workdir=DIR
#
# DIR and the data must be on a file system that the first node, and all nodes, see. The
# number of GPUs must divide the batch size. Two minutes before the time is over, the run
# saves and ends; then, and after a failure of a node, the job is queued again and goes on.
#SBATCH --job-name=sslhsic
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

# Every process has its own loader: config.data.num_workers is for one GPU here.
srun --kill-on-bad-exit=1 \
  .venv/bin/python -m experiments.pretrain --config.data.num_workers=8 "$@"
status=$?

# A run that a signal has stopped has no results yet.
workdir=$(printf '%s\n' "$@" | sed -n 's/^--workdir=//p')
if [[ ! -e $workdir/results.json ]]; then
  (( SLURM_RESTART_COUNT < 50 )) && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
