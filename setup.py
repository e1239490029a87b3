"""Package description; the exact versions that were tested are in requirements.txt."""

import pathlib

import setuptools

_HUGGINGFACE = ['datasets>=4.0']

# Working directories in buckets.
_BUCKETS = {
  'gcs': ['gcsfs>=2025.3'],
  's3': ['s3fs>=2025.3'],
}

# Services that runs log to.
_TRACKERS = {
  'wandb': ['wandb>=0.20'],
  'mlflow': ['mlflow-skinny>=3.0'],  # MLflow without its server.
}

_DOCS = [
  'docstring-parser>=0.16',  # Reads the meanings of settings.
  'furo>=2025.7',
  'myst-parser>=4.0',
  'sphinx>=8.0',
]

_TEST = [
  *_DOCS,
  *_HUGGINGFACE,
  *_BUCKETS['gcs'],
  *_BUCKETS['s3'],
  *_TRACKERS['wandb'],
  *_TRACKERS['mlflow'],
  'equinox>=0.13.2',  # This and Flax are for the examples.
  'flask>=3.1',  # With flask-cors, gcp-storage-emulator and moto: emulated buckets.
  'flask-cors>=6.0',
  'flax>=0.12.7',
  'gcp-storage-emulator>=2026.7',
  'hypothesis>=6.100',
  'moto[s3]>=5.2',
  'mypy>=1.18',
  'pytest>=8',
  'pytest-xdist>=3.5',
  'ruff>=0.15',
  'scikit-image>=0.24',
  'setuptools>=70.1',  # Builds wheels by itself.
]

setuptools.setup(
  name='sslhsic',
  version='0.2.0',
  description='Self-supervised learning with kernel dependence maximisation, in JAX.',
  long_description=pathlib.Path('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  # Programs and configurations are run from a checkout.
  packages=setuptools.find_namespace_packages(include=['sslhsic*']),
  # Editable, the checkout itself is put on the path: from the folder that holds it,
  # Python would else import the checkout's folder as an empty package of that name.
  package_dir={'': '.'},
  package_data={'sslhsic': ['py.typed']},
  python_requires='>=3.11,<3.14',
  install_requires=[
    'absl-py>=2.1',
    'chex>=0.1.90',
    'dm-haiku>=0.0.16',
    'etils[epath]>=1.9',
    'fsspec>=2025.3',
    'grain>=0.2.12',
    # On a CPU, 0.10.2 gives wrong results (github.com/jax-ml/jax/issues/39103), and
    # both end with segmentation faults (github.com/jax-ml/jax/issues/39257).
    'jax>=0.10,!=0.10.2,!=0.11.0,<0.12',
    'jmp>=0.0.4',
    'matplotlib>=3.9',
    'ml-collections>=1.0',
    'numpy>=2.0',
    'opencv-python-headless>=5.0',  # 4 decodes some truncated images.
    'optax>=0.2.8',
    'orbax-checkpoint>=0.11.25',
    'pillow>=11.0',  # Classes in palette PNGs, of which OpenCV gives the colours.
    'pycocotools>=2.0.8',
    'safetensors>=0.8',  # Reads bfloat16 into NumPy.
    'scikit-learn>=1.5',
    'scipy>=1.13',  # Sparse products, to resize images.
    'tensorboardX>=2.6',
    'tensorflow-datasets>=4.9.9',
    'threadpoolctl>=3.5',
    'tqdm>=4.66',
  ],
  extras_require={
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]'],
    'huggingface': _HUGGINGFACE,
    **_BUCKETS,
    **_TRACKERS,
    'test': _TEST,
    'docs': _DOCS,
    # Those that exports are for; their tests are left out where they are not there.
    'libraries': ['timm>=1.0', 'torch>=2.9', 'torchvision>=0.24', 'transformers>=5.0'],
  },
)
