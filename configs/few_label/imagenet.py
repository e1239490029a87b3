"""Accuracy by the number of labels per class on ImageNet.

Logistic regressions on a frozen encoder. The protocol is ours; nothing is published.

python -m experiments.few_label --config=configs/few_label/imagenet.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.knn import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration: encoder and data of kNN."""
  config = imagenet.get_config()
  del config.evaluation.extra_tests
  config.protocol = {
    'labels_per_class': (1, 2, 5, 10, 20),
    'num_draws': 5,  # Subsets of labels to average over.
    'l2': 0.01,  # Penalty of the logistic regression, on standardised embeddings.
  }
  return config
