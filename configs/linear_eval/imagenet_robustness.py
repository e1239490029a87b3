"""Linear evaluation on ImageNet, tested on ImageNet-V2, -A, -R and -Sketch too.

The classifier is trained as in configs/linear_eval/imagenet.py. Of ImageNet-A and -R
(Hendrycks et al., arXiv:1907.07174 and arXiv:2006.16241) only the logits of their 200
classes count, as in their papers; ImageNet-V2 (Recht et al., arXiv:1902.10811) and
-Sketch (Wang et al., arXiv:1905.13549) have all 1000. No result is known.

A finished run of configs/linear_eval/imagenet.py is tested without training again by
this configuration, its --workdir and --mode=eval. Folders replace TFDS, for example
--config.evaluation.extra_tests.imagenet_a.source=folder:PATH and .split=train.

python -m experiments.linear_eval --workdir=DIR --config.init_from=RUN \
  --config=configs/linear_eval/imagenet_robustness.py
"""

import ml_collections

from configs.linear_eval import imagenet


def get_config() -> ml_collections.ConfigDict:
  """The configuration of ImageNet, with further test sets."""
  config = imagenet.get_config()
  config.evaluation.extra_tests = {
    name: {'source': f'tfds:{name}', 'split': 'test'}
    for name in ('imagenet_v2', 'imagenet_a', 'imagenet_r', 'imagenet_sketch')
  }
  return config
