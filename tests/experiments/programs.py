"""The programs by the folder of their configurations."""

from experiments import (
  depth,
  detection,
  few_label,
  finetune,
  knn,
  linear_eval,
  pretrain,
  segmentation,
  transfer,
)

TRAINED = {
  'pretrain': pretrain.Pretrain,
  'linear_eval': linear_eval.LinearEval,
  'finetune': finetune.FineTune,
  'segmentation': segmentation.Segmentation,
  'depth': depth.Depth,
  'detection': detection.Detection,
}
MEASURED = {
  'knn': knn.measure,
  'few_label': few_label.measure,
  'transfer': transfer.measure,
}
