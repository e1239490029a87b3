"""Weighted kNN on ImageNet, tested on ImageNet-V2, -A, -R and -Sketch too.

Neighbours are training images of ImageNet. Of ImageNet-A and -R (Hendrycks et al.,
arXiv:1907.07174 and arXiv:2006.16241) only votes for their 200 classes count;
ImageNet-V2 (Recht et al., arXiv:1902.10811) and -Sketch (Wang et al., arXiv:1905.13549)
have all 1000. No result is known.

python -m experiments.knn --config=configs/knn/imagenet_robustness.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.knn import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with further test sets."""
  config = imagenet.get_config()
  config.evaluation.extra_tests = {
    name: {'source': f'tfds:{name}', 'split': 'test'}
    for name in ('imagenet_v2', 'imagenet_a', 'imagenet_r', 'imagenet_sketch')
  }
  return config
