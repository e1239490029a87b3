"""CKA between the embeddings of the encoder and of another one."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp

from sslhsic import dependence
from sslhsic.evaluators import evaluator


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceCKA(evaluator.Evaluator):
  """`reference_cka`: CKA of Kornblith et al. (2019) with a reference encoder.

  It is from the unbiased estimator, on the embeddings of the test images by both
  encoders (https://arxiv.org/abs/1905.00414): 1 if they differ by a rotation and scale
  (for the linear kernel), near 0 if they have nothing in common.

  Attributes:
    reference: 'initial', the random initial values of the run; or what
      `config.init_from` takes: a run, DIR/checkpoints/STEP, an export, or a safetensors
      file.
    kernel: of both embeddings, one of `dependence.KERNELS`.
    scale: of the kernel; None: the median distance of each embedding.
    num_images: at most so many images, drawn at random, always the same.
  """

  reference: str = evaluator.INITIAL
  kernel: str = 'linear'
  scale: float | None = None
  num_images: int = 5000

  def __post_init__(self):
    dependence.check_kernel(self.kernel, self.scale)
    evaluator.check_num_images(self.num_images)

  @property
  def other_encoder(self) -> str:
    """The reference."""
    return self.reference

  def check_sizes(self, num_train: int, num_test: int) -> None:
    """Checks that there are four images, see `Evaluator`."""
    evaluator.check_four_images(num_test)

  def describe(self) -> dict[str, str]:
    """The protocol, see `Evaluator`."""
    return {
      'reference_cka': f'unbiased CKA ({self.kernel}) of the embeddings of test by the '
      f'encoder and by {self.reference}, at most {self.num_images} images'
    }

  def __call__(self, inputs: evaluator.Inputs) -> dict[str, float]:
    """CKA, see `Evaluator`."""
    here, there = inputs.test['embedding'], inputs.reference['embedding']
    if len(here) != len(there):
      raise ValueError(
        f'the encoder has embedded {len(here)} images of test, and the reference '
        f'{self.reference} {len(there)}; repair or remove the images that are skipped'
      )
    rows = evaluator.draw_rows(len(here), self.num_images)
    x, y = (jnp.asarray(z[rows], jnp.float32) for z in (here, there))
    return {'reference_cka': float(self._measure(x, y))}

  # A method that is compiled once, and not a function of its own at each evaluation.
  @functools.partial(jax.jit, static_argnums=0)
  def _measure(self, x: chex.Array, y: chex.Array) -> chex.Array:
    kernels = [dependence.kernel_of(self.kernel, z, self.scale) for z in (x, y)]
    return dependence.cka(x, y, *kernels, unbiased=True)
