"""Numbers and thresholds of the detectors; defaults are those of torchvision's FPN.

That is `fasterrcnn_resnet50_fpn` of torchvision 0.20; what is ours is named so.
"""

import dataclasses

from sslhsic.tasks.detection import boxes


@dataclasses.dataclass(frozen=True)
class DetectorSettings:
  """Of region proposals, regions of interest and detections.

  Attributes:
    anchor_sizes: roots of the areas of anchors in pixels, for each level of features.
    aspect_ratios: heights of anchors divided by widths.
    anchor_foreground: least IoU with an object of an anchor that is to become one.
    anchor_background: IoU with all objects below which an anchor is background.
    anchors_per_image: anchors sampled for the loss.
    anchor_positive_fraction: greatest fraction of these that is foreground.
    before_nms_training: proposals of each level before suppression, in training.
    before_nms: as before_nms_training, in evaluations.
    after_nms_training: proposals of an image after suppression, in training.
    after_nms: as after_nms_training, in evaluations.
    proposal_nms: IoU above which the better of two proposals suppresses the other.
    proposal_min_size: least width and height of a proposal, in pixels.
    roi_foreground: least IoU with an object of a region that is to become one; all
      others are background.
    rois_per_image: regions sampled for the losses.
    roi_positive_fraction: greatest fraction of these that is foreground.
    box_weights: factors of the code (x, y, width, height) of boxes relative to regions.
    smooth_l1_beta: error at which the loss of boxes turns from a square to a line; 0
      for the absolute error.
    ignored_overlap: part of an anchor or region in an object that is to be ignored from
      which on it is not background (ours; torchvision leaves these objects out).
    score_threshold: least score of a detection.
    detection_nms: IoU above which a detection suppresses another of its class.
    detection_min_size: least width and height of a detection, in pixels.
    detections_per_image: greatest number of detections of an image.
    box_pool: rows and columns of the features that the box head sees.
    mask_pool: as box_pool, for the mask head; masks have twice as many.
    sampling_ratio: samples of the features per pooled cell and axis; 0: as many as
      there are cells of the feature map in it, as in Detectron2.
    max_sampling_ratio: greatest number of samples with sampling_ratio 0.
    canonical_size: root of the area from which on a region belongs to the third level.
  """

  anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
  aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  anchor_foreground: float = 0.7
  anchor_background: float = 0.3
  anchors_per_image: int = 256
  anchor_positive_fraction: float = 0.5
  before_nms_training: int = 2000
  before_nms: int = 1000
  after_nms_training: int = 2000
  after_nms: int = 1000
  proposal_nms: float = 0.7
  proposal_min_size: float = 1e-3
  roi_foreground: float = 0.5
  rois_per_image: int = 512
  roi_positive_fraction: float = 0.25
  box_weights: boxes.Weights = (10.0, 10.0, 5.0, 5.0)
  smooth_l1_beta: float = 1 / 9
  ignored_overlap: float = 0.5
  score_threshold: float = 0.05
  detection_nms: float = 0.5
  detection_min_size: float = 1e-2
  detections_per_image: int = 100
  box_pool: int = 7
  mask_pool: int = 14
  sampling_ratio: int = 2
  max_sampling_ratio: int = 4
  canonical_size: float = 224.0

  @property
  def anchors_per_position(self) -> int:
    """A, the same on all levels.

    Raises:
      ValueError: levels have different numbers of anchor sizes.
    """
    counts = {len(sizes) for sizes in self.anchor_sizes}
    if len(counts) != 1:
      raise ValueError(
        f'levels with {sorted(counts)} anchor sizes share one head; give all levels '
        'equally many'
      )
    return counts.pop() * len(self.aspect_ratios)

  @property
  def max_positive_rois(self) -> int:
    """Regions of an image that can become objects, at most."""
    return int(self.rois_per_image * self.roi_positive_fraction)


# Of Detectron2 where they differ from those of torchvision.
_DETECTRON2 = {'smooth_l1_beta': 0.0, 'sampling_ratio': 0}

# By architecture and source; detectors of C4 have all anchors on one level.
PRESETS = {
  'fpn_torchvision': DetectorSettings(),
  'fpn_detectron2': DetectorSettings(after_nms_training=1000, **_DETECTRON2),
  'c4_detectron2': DetectorSettings(
    anchor_sizes=((32, 64, 128, 256, 512),),
    before_nms_training=12000,
    before_nms=6000,
    box_pool=14,
    **_DETECTRON2,
  ),
}
