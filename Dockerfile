# Programs on NVIDIA GPUs; jax[cuda] brings CUDA, the host brings the driver.
#
#   docker build --tag sslhsic .
#   docker run --gpus=all --shm-size=8g --volume="$PWD/runs:/sslhsic/runs" sslhsic \
#     python -m experiments.pretrain --config=configs/pretrain/digits.py --workdir=runs/digits
FROM python:3.11-slim-bookworm

WORKDIR /sslhsic
COPY requirements.txt setup.py pyproject.toml README.md LICENSE ./
COPY sslhsic sslhsic
RUN pip install --no-cache-dir --constraint requirements.txt --editable '.[cuda]'

# Programs and configurations run from the root directory.
COPY . .
CMD ["python", "-m", "sslhsic"]
