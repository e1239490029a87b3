#!/usr/bin/env bash
# Trains on a Cloud TPU pod slice, a process on each of its hosts:
#
#   launch/tpu_pod.sh NAME ZONE --config=configs/pretrain/imagenet.py --workdir=DIR
#
# NAME is a TPU VM (`gcloud compute tpus tpu-vm create NAME --zone=ZONE …`). This
# checkout is copied to every host and installed there the first time, with the host's
# Python 3.11 or 3.12 (SYSTEM_PYTHON says which; python3 by default). DIR is on the first
# host, which alone writes; give gs://… or a mounted disk to keep it after the TPU is
# gone. The data must be readable on all hosts: TFDS_DATA_DIR may be a bucket.
# TFDS_DATA_DIR and JAX_COMPILATION_CACHE_DIR are handed on.
set -euo pipefail
if [[ $# -lt 3 ]]; then
  echo 'usage: launch/tpu_pod.sh NAME ZONE --config=FILE.py --workdir=DIR …' >&2
  exit 2
fi
name=$1 zone=$2
shift 2
on_all_hosts=(gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all)

# The hosts' shells read the command once more: hence the quotes of %q.
command=$(printf '%q ' .venv/bin/python -m experiments.pretrain "$@")
for variable in TFDS_DATA_DIR JAX_COMPILATION_CACHE_DIR; do
  if [[ ${!variable:-} ]]; then
    command="$variable=$(printf '%q' "${!variable}") $command"
  fi
done

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
tar --create --gzip --exclude=./.venv --exclude=./runs --exclude=./.git \
  --exclude=./.jax_cache --file="$archive" --directory="$(dirname "$0")/.." .
gcloud compute tpus tpu-vm scp "$archive" "$name":/tmp/sslhsic.tar.gz \
  "--zone=$zone" --worker=all
"${on_all_hosts[@]}" --command="
  set -e
  mkdir -p ~/sslhsic && tar --extract --gzip --file=/tmp/sslhsic.tar.gz -C ~/sslhsic
  cd ~/sslhsic
  [ -d .venv ] || ${SYSTEM_PYTHON:-python3} -m venv .venv
  .venv/bin/pip install --quiet --constraint requirements.txt --editable '.[tpu,gcs]'"
"${on_all_hosts[@]}" --command="cd ~/sslhsic && $command"
