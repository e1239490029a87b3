"""What is known of the images of a data set besides one label each."""

from typing import NamedTuple

VOID = 255  # The class of pixels that are neither learned nor judged.


class Annotations(NamedTuple):
  """What the examples of a data set hold besides an image and a label.

  Attributes:
    kinds: some of
      'segmentation': the class of every pixel, `VOID` where it is not to be judged;
        uint8 [H, W] or the bytes of a PNG of numbers (with or without a palette).
      'depth': in metres, 0 where it is unknown; float32 [H, W].
      'boxes': of k objects, with all that is known of them:
        'boxes' float32 [k, 4], (x1, y1, x2, y2) in pixels of the image; a box that
          covers the columns a to b has x1 = a and x2 = b + 1;
        'classes' int32 [k];
        'ignore' bool [k], neither to be found nor wrong to find (PASCAL VOC's difficult
          objects, COCO's crowds);
        'area' float32 [k], in pixels, of the object or else of its box.
      'masks': uint8 [k, H, W], 1 on the pixels of each object.
    segmentation_classes: names of the classes of pixels, by their number.
    object_classes: names of the classes of objects, by their number.
  """

  kinds: frozenset[str] = frozenset()
  segmentation_classes: tuple[str, ...] = ()
  object_classes: tuple[str, ...] = ()
