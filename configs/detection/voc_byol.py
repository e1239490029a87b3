"""Object detection on PASCAL VOC 2007: Faster R-CNN R50-C4, the protocol of BYOL.

Grill et al. (2020), arXiv:2006.07733, appendix D.5: trainval2007 to test2007, on a
frozen backbone whose conv5 is the box head; longer sides of 480 to 1024 px and no other
augmentation; SGD at 0.001, a tenth of it after 1,000,000 and a hundredth after
1,200,000 of 1,500,000 steps. Expected AP50: BYOL 77.5, SimCLR 75.2, MoCo 74.9,
supervised 74.4 (BYOL paper).

Its steps are asynchronous; here they are synchronous. Ours: batches of one image,
momentum and weight decay, batch norm of conv5 that is frozen too, 1024 px in the test,
and Detectron2's numbers and losses.

python -m experiments.detection --config=configs/detection/voc_byol.py --workdir=DIR \
  --config.init_from=RUN
"""

import ml_collections

from configs.detection import voc_moco


def get_config() -> ml_collections.ConfigDict:
  """The configuration of MoCo's protocol, with the changes below."""
  config = voc_moco.get_config()
  config.network.extra_batch_norm = False
  config.data.update(
    padded=(1024, 1024),
    shorter=(1024, 1024, 1),  # Only the longer side matters.
    longer=(480, 1024, 1),
    flip=False,
    test_shorter=1024,
    test_longer=1024,
  )
  config.optimizer.decayed = ('w',)
  config.training.update(
    batch_size=1,
    steps=1_500_000,
    learning_rates=(1e-3,),
    warmup_steps=0,
    drops=(2 / 3, 4 / 5),
    train_encoder=False,  # But for conv5, which belongs to the head.
    freeze_batch_norm=True,
  )
  return config
