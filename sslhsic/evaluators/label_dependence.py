"""Dependence of the features on the labels: HSIC, CKA and a test."""

import dataclasses
import functools
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp

from sslhsic import dependence
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelDependence(evaluator.Evaluator):
  """`label_hsic`, `label_cka`, `label_p_value`: of the test features and the labels.

  HSIC and CKA are from the unbiased estimator; labels have the linear kernel of one-hot
  vectors. The p-value is of a test of independence, see `dependence.permutation_test`.

  Attributes:
    features: 'embedding' or 'projection'.
    kernel: of the features, one of `dependence.KERNELS`.
    scale: of the kernel; None: the median distance of features.
    num_images: at most so many images, drawn at random, always the same.
    num_permutations: the smallest p-value is 1/(1 + permutations); each takes the time
      of one HSIC.
  """

  features: str = 'embedding'
  kernel: str = 'gaussian'
  scale: float | None = None
  num_images: int = 2000
  num_permutations: int = 199

  needs_labels: ClassVar[bool] = True

  def __post_init__(self):
    evaluator.check_features(self.features)
    dependence.check_kernel(self.kernel, self.scale)
    evaluator.check_num_images(self.num_images)
    if self.num_permutations < 1:
      raise ValueError(f'num_permutations is {self.num_permutations}; use 1 or more')

  @property
  def outputs(self) -> tuple[str, ...]:
    """The features, see `Evaluator`."""
    return (self.features,)

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks that there are four images, see `Evaluator`."""
    evaluator.check_four_images(num_test)

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    scale = 'median distance' if self.scale is None else self.scale
    kernel = self.kernel if self.kernel == 'linear' else f'{self.kernel}, scale {scale}'
    of = (
      f'{self.features} of test and labels (kernels: {kernel}; one-hot), at most '
      f'{self.num_images} images'
    )
    return {
      'label_hsic': f'unbiased HSIC of {of}',
      'label_cka': f'unbiased CKA of {of}',
      'label_p_value': f'independence of {of}, {self.num_permutations} permutations',
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """The measures, see `Evaluator`."""
    features, labels = inputs.test[self.features], inputs.test['label']
    is_labelled = labels >= 0
    features, labels = features[is_labelled], labels[is_labelled]
    rows = evaluator.draw_rows(len(labels), self.num_images)
    found = self._measure(jnp.asarray(features[rows], jnp.float32), labels[rows])
    return {
      name: float(value) for name, value in zip(self.describe(), found, strict=True)
    }

  # A method that is compiled once, and not a function of its own at each evaluation.
  @functools.partial(jax.jit, static_argnums=0)
  def _measure(
    self, features: chex.Array, labels: chex.Array
  ) -> tuple[chex.Array, ...]:
    kernel = dependence.kernel_of(self.kernel, features, self.scale)
    test = dependence.permutation_test(
      jax.random.key(0),
      features,
      labels,
      kernel,
      num_permutations=self.num_permutations,
      unbiased=True,
    )
    alignment = dependence.cka(features, labels, kernel, unbiased=True)
    return test.statistic, alignment, test.p_value
