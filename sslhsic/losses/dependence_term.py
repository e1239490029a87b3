"""HSIC of the features with metadata of the images, added to any loss."""

import dataclasses

import chex
import jax.numpy as jnp

from sslhsic import dependence


@dataclasses.dataclass(frozen=True)
class DependenceTerm:
  """w·HSIC(Z,A), which makes features Z depend less, or more, on metadata A.

  It is the mean over views of the unbiased estimator, from all pairs of images of the
  global batch, see `dependence.hsic`. Categories A have the kernel of one-hot vectors,
  quantities the Gaussian kernel with the median distance of the batch.

  Attributes:
    metadata: A, a column of the table of a folder, or a feature of a data set of TFDS;
      empty: there is no such term.
    weight: w; positive: dependence is penalised, negative: it is rewarded.
    features: Z, 'embedding' of the online network, or 'projection', the features that
      the loss sees (predictions, with a target network).
    kernel: of Z, one of `dependence.KERNELS`.
    scale: of that kernel; None: the median distance of the features of the batch,
      without gradient.

  Raises:
    ValueError: a setting has a value that it cannot have.
  """

  metadata: str = ''
  weight: float = 1.0
  features: str = 'embedding'
  kernel: str = 'gaussian'
  scale: float | None = None

  def __post_init__(self):
    if self.features not in ('embedding', 'projection'):
      raise ValueError(
        f"features is {self.features!r}; use 'embedding' or 'projection'"
      )
    dependence.check_kernel(self.kernel, self.scale)

  def __call__(
    self, features: list[chex.Array], metadata: chex.Array, axis_name: str | None = None
  ) -> chex.Array:
    """HSIC(Z,A), without its weight.

    Args:
      features: Z, [b, d] of each view of this device's images.
      metadata: A, int [b] or float [b, k] of these images.
      axis_name: the mapped axis over which the batch is spread, if it is.

    Returns:
      A scalar, float32, the same on every device.
    """
    of_metadata = dependence.kernel_of('gaussian', metadata, axis_name=axis_name)

    def of_view(z):
      z = z.astype(jnp.float32)
      kernel = dependence.kernel_of(self.kernel, z, self.scale, axis_name)
      return dependence.hsic(
        z, metadata, kernel, of_metadata, unbiased=True, axis_name=axis_name
      )

    return jnp.mean(jnp.stack([of_view(z) for z in features]))
