"""Logistic regression on frozen features, fitted by L-BFGS.

The linear protocol of the transfer tasks (Grill et al. 2020, arXiv:2006.07733, after
Kornblith et al. 2019, arXiv:1805.08974): no augmentation, an L2 penalty chosen on a
validation split, the classifier fitted again on training and validation examples.

The minimised objective, over the weights W [d, C] and the bias b [C], is

  f(W, b) = 1/n Σ_i −log softmax(Wᵀx_i + b)[y_i]  +  λ/2 ‖W‖²,

that of scikit-learn's LogisticRegression with C = 1/(n·λ). (With C = 2/(n·λ) for two
classes, where it fits one vector w, and the weights here are ±w/2.) The bias is not
penalised. As the cross-entropy is a mean, λ keeps its meaning when n changes.

Where an example may be of several classes, labels are [n, C] of 1, 0 and −1 (not to be
judged), and the loss is that of C logistic regressions, one for each class:

  f(W, b) = 1/n Σ_i Σ_c log(1 + exp(∓(Wᵀx_i + b)_c))  +  λ/2 ‖W‖²,  − where y_ic = 1.

The solver sees other coordinates, in which the curvature is about one along every
axis, and the objective is the same function: centred features, which only shift the
bias, and weights multiplied by √(h·var(x_j) + λ), with h the mean of p(1 − p) at the
starting point. On ReLU features this saves nine in ten steps.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from sslhsic import parallel
from sslhsic.evaluation import features as features_lib

# The grid of λ of the transfer protocol.
L2_GRID = tuple(np.logspace(-6, 5, 45).tolist())

# Where the validation loss is so many times its minimum, weaker penalties overfit more,
# and take the most steps: on the pixels of Fashion-MNIST, three quarters of the time.
_OVERFITTED = 1.25

# Of a fit, see `fit_path`.
_MAX_STEPS = 1000
_TOLERANCE = 1e-7


class LinearProbe(NamedTuple):
  """A linear classifier; `fit_path` stacks K of them along a leading axis."""

  weights: chex.Array  # [d, C]
  bias: chex.Array  # [C]


class Selection(NamedTuple):
  """What the search for λ found."""

  probe: LinearProbe  # fitted on training and validation examples
  l2: float  # the λ chosen
  losses: np.ndarray  # [K], cross-entropy on the validation examples; inf: not fitted


def predict(probe: LinearProbe, features: chex.Array) -> chex.Array:
  """Logits [n, C] of features [n, d], float32."""
  chex.assert_rank([probe.weights, probe.bias, features], [2, 1, 2])
  features = jnp.asarray(features, jnp.float32)
  logits = jnp.matmul(features, probe.weights, precision='highest')
  return logits + probe.bias[None, :]


def objective(
  probe: LinearProbe, features: chex.Array, labels: chex.Array, l2: chex.Numeric
) -> chex.Array:
  """f(W, b) of the module's docstring, a float32 scalar.

  Args:
    probe: the classifier.
    features: [n, d].
    labels: [n], integers in [0, C), or [n, C] of 1, 0 and -1.
    l2: λ.
  """
  loss = cross_entropy(predict(probe, features), labels)
  return loss + l2 / 2 * jnp.sum(jnp.square(probe.weights))


def fit(
  features: chex.Array,
  labels: chex.Array,
  *,
  num_classes: int,
  l2: float,
  max_steps: int = _MAX_STEPS,
  tolerance: float = _TOLERANCE,
) -> LinearProbe:
  """Fits one probe. Can be vmapped over the features and labels.

  Args and errors as those of `fit_path`, with one λ for K of them.

  Returns:
    Weights [d, C] and bias [C], float32.
  """
  path = fit_path(
    features,
    labels,
    num_classes=num_classes,
    l2s=[l2],
    max_steps=max_steps,
    tolerance=tolerance,
  )
  return jax.tree.map(lambda leaf: leaf[0], path)


def fit_path(
  features: chex.Array,
  labels: chex.Array,
  *,
  num_classes: int,
  l2s: Sequence[float],
  max_steps: int = _MAX_STEPS,
  tolerance: float = _TOLERANCE,
) -> LinearProbe:
  """Fits a probe for every λ, each starting from that of the next stronger penalty.

  Args:
    features: [n, d], any real type; computed with in float32.
    labels: [n], integers in [0, num_classes), or [n, num_classes] of 1, 0 and -1.
    num_classes: C.
    l2s: the K penalties λ > 0, in any order.
    max_steps: most L-BFGS steps for one λ.
    tolerance: a fit ends when a step promises to lower f by less than this part of it,
      gᵀHg ≤ tolerance·f with g the gradient and H the inverse Hessian that L-BFGS has
      learnt: the gradient norm that does not depend on the scale of the features. At
      the default, f is within 1e-4 of its minimum, mostly 1e-5, in relative terms.

  Returns:
    Weights [K, d, C] and bias [K, C], float32, in the order of `l2s`.

  Raises:
    ValueError: if a λ is not positive, or a label not in [0, num_classes).
  """
  _check(features, labels, num_classes)
  penalties, strong_to_weak = _ordered(l2s)
  path = _fit_path(
    jnp.asarray(features, jnp.float32),
    jnp.asarray(labels),
    penalties,
    num_classes=num_classes,
    max_steps=max_steps,
    tolerance=tolerance,
  )
  # The argsort of a permutation is its inverse.
  return jax.tree.map(lambda leaf: leaf[np.argsort(strong_to_weak)], path)


def _check(features: chex.Array, labels: chex.Array, num_classes: int) -> None:
  chex.assert_rank([features, labels], [2, {1, 2}])
  chex.assert_equal_shape_prefix([features, labels], 1)
  chex.assert_type(labels, int)
  if labels.ndim == 2:
    chex.assert_axis_dimension(labels, 1, num_classes)
  else:
    _check_labels(labels, num_classes)


def _ordered(l2s: Sequence[float]) -> tuple[chex.Array, np.ndarray]:
  """Penalties from strong to weak, and their places in `l2s`."""
  penalties = np.asarray(l2s, np.float32)
  if not (penalties > 0).all():
    raise ValueError(f'the smallest L2 penalty is {penalties.min()}; use λ > 0')
  strong_to_weak = np.argsort(-penalties)
  return jnp.asarray(penalties[strong_to_weak]), strong_to_weak


def select(
  train_features: chex.Array,
  train_labels: chex.Array,
  validation_features: chex.Array,
  validation_labels: chex.Array,
  *,
  num_classes: int,
  l2s: Sequence[float] = L2_GRID,
) -> Selection:
  """Chooses λ by validation loss, then fits on training and validation examples.

  The loss is the cross-entropy: where nearly all of a few hundred examples are right,
  accuracy cannot tell penalties apart. Penalties are tried from strong to weak, until
  the loss is 1.25 times its minimum: all weaker ones are taken to overfit more.

  Args:
    train_features: [n, d].
    train_labels: [n], integers in [0, num_classes), or [n, num_classes] of 1, 0, -1.
    validation_features: [m, d].
    validation_labels: [m], or [m, num_classes].
    num_classes: C.
    l2s: the K penalties.

  Returns:
    The probe, its λ, and the validation losses in the order of `l2s`.

  Raises:
    ValueError: as `fit_path`.
  """
  for features, labels in (
    (train_features, train_labels),
    (validation_features, validation_labels),
  ):
    _check(features, labels, num_classes)
  penalties, strong_to_weak = _ordered(l2s)
  ordered_losses = _validation_losses(
    jnp.asarray(train_features, jnp.float32),
    jnp.asarray(train_labels),
    jnp.asarray(validation_features, jnp.float32),
    jnp.asarray(validation_labels),
    penalties,
    num_classes=num_classes,
  )
  losses = np.asarray(ordered_losses)[np.argsort(strong_to_weak)]
  l2 = float(np.asarray(l2s)[losses.argmin()])
  probe = fit(
    np.concatenate([train_features, validation_features]),
    np.concatenate([train_labels, validation_labels]),
    num_classes=num_classes,
    l2=l2,
  )
  return Selection(probe, l2, losses)


def fit_selected(
  features: chex.Array,
  labels: chex.Array,
  *,
  num_classes: int,
  l2s: Sequence[float] = L2_GRID,
  validation_fraction: float = 0.2,
  seed: int = 0,
) -> LinearProbe:
  """Fits a probe to data without a validation split: `select` makes do with a part.

  Args:
    features: [n, d].
    labels: [n], integers in [0, num_classes).
    num_classes: C.
    l2s: the K penalties.
    validation_fraction: part of every class that is held out to choose λ.
    seed: of the split.

  Returns:
    The probe fitted on all n examples with the λ chosen.

  Raises:
    ValueError: as `fit_path` and `stratified_split`.
  """
  features, labels = np.asarray(features), np.asarray(labels)
  train, validation = stratified_split(labels, fraction=validation_fraction, seed=seed)
  return select(
    features[train],
    labels[train],
    features[validation],
    labels[validation],
    num_classes=num_classes,
    l2s=l2s,
  ).probe


def standardize(features: chex.Array) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of every feature dimension.

  A protocol may fit on (features − mean) / scale, so that a λ means the same for
  features of any scale; to the solver it makes no difference.

  Args:
    features: [n, d], of the training examples that this host has. Statistics are of
      those of all hosts, which may also have the same ones.

  Returns:
    mean and scale, both [1, d] and float32; the scale of a constant dimension is one.
  """
  chex.assert_rank(features, 2)
  features = np.asarray(features)
  total = lambda sums: parallel.sum_of_hosts(sum(sums))
  # Part by part in float64: of all at once, that would be three times as large.
  parts = lambda: (x.astype(np.float64) for x in features_lib.chunks(features))
  count = parallel.sum_of_hosts(len(features))
  mean = total(x.sum(axis=0) for x in parts()) / count
  scale = np.sqrt(total(np.square(x - mean[None]).sum(axis=0) for x in parts()) / count)
  # Rounding may leave a constant dimension a tiny spread; the extremes are exact.
  first = parallel.of_hosts(features[:1])[0]
  differs = total((x != first[None]).sum(axis=0) for x in features_lib.chunks(features))
  scale = np.where(differs > 0, scale, 1)
  return mean[None].astype(np.float32), scale[None].astype(np.float32)


def stratified_split(
  labels: chex.Array, *, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Splits examples at random, class by class.

  Args:
    labels: [n].
    fraction: part of every class that is held out, rounded to whole examples, but at
      least one, and never a class's only example.
    seed: of the split.

  Returns:
    Indices of the examples that are kept, and of those held out, both ascending.

  Raises:
    ValueError: if fraction is not between 0 and 1, or no class has two examples.
  """
  if not 0 < fraction < 1:
    raise ValueError(f'the fraction to hold out is {fraction}; use one in (0, 1)')
  rng = np.random.default_rng(seed)
  held_out = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = rng.permutation(np.flatnonzero(labels == label))
    wanted = max(1, round(fraction * len(members)))
    held_out[members[: min(wanted, len(members) - 1)]] = True
  if not held_out.any():
    raise ValueError(
      f'none of the {len(labels)} examples can be held out, as every class has only '
      'one; give a validation set'
    )
  return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _check_labels(labels: chex.Array, num_classes: int) -> None:
  """Refuses labels out of range. Under vmap they have no values to look at."""
  if isinstance(labels, jax.core.Tracer):
    return
  smallest, largest = int(jnp.min(labels)), int(jnp.max(labels))
  if smallest < 0 or largest >= num_classes:
    raise ValueError(
      f'labels go from {smallest} to {largest}, but num_classes is {num_classes}; '
      f'number the classes from 0 to {num_classes - 1}'
    )


@functools.partial(jax.jit, static_argnames='num_classes')
def _fit_path(features, labels, l2s, *, num_classes, max_steps, tolerance):
  """`fit_path` for penalties that already go from strong to weak."""
  # Centring only moves the bias, which is corrected at the end.
  mean = jnp.mean(features, axis=0)
  start, solve = _solver(
    features - mean[None, :], labels, num_classes, max_steps, tolerance
  )

  def fit_next(state, l2):
    state = solve(state, l2)
    return state, state[0]

  path = jax.lax.scan(fit_next, start, l2s)[1]
  # Undoes the centring: Wᵀ(x − m) + b = Wᵀx + (b − Wᵀm).
  shift = jnp.einsum('d,kdc->kc', mean, path.weights, precision='highest')
  return LinearProbe(path.weights, path.bias - shift)


@functools.partial(jax.jit, static_argnames='num_classes')
def _validation_losses(
  features, labels, validation_features, validation_labels, l2s, *, num_classes
):
  """Losses [K] of `select` for penalties from strong to weak; inf: not fitted."""
  mean = jnp.mean(features, axis=0)[None, :]
  start, solve = _solver(features - mean, labels, num_classes, _MAX_STEPS, _TOLERANCE)

  def is_worth_more(carry):
    index, _, losses = carry
    # Before the first fit, inf <= inf.
    return (index < len(l2s)) & (losses[index - 1] <= _OVERFITTED * losses.min())

  def fit_next(carry):
    index, state, losses = carry
    state = solve(state, l2s[index])
    logits = predict(state[0], validation_features - mean)
    loss = cross_entropy(logits, validation_labels)
    return index + 1, state, losses.at[index].set(loss)

  carry = (0, start, jnp.full(len(l2s), jnp.inf))
  return jax.lax.while_loop(is_worth_more, fit_next, carry)[2]


def _solver(centred, labels, num_classes, max_steps, tolerance):
  """The fit without weights, and a function that goes from a fit to one of another λ.

  A fit is a probe and the curvature h there, which scales the coordinates of the next.
  """
  variance = jnp.mean(jnp.square(centred), axis=0)
  curvature_of = functools.partial(_curvature, multi_label=labels.ndim == 2)

  def solve(fitted, l2):
    probe, curvature = fitted
    # Coordinates w_j·√(h·var(x_j) + λ), in which the curvature is about one.
    scale = LinearProbe(
      weights=jnp.sqrt(curvature * variance + l2)[:, None],
      bias=jnp.sqrt(curvature),
    )

    def scaled_objective(scaled):
      return objective(jax.tree.map(jnp.divide, scaled, scale), centred, labels, l2)

    scaled = jax.tree.map(jnp.multiply, probe, scale)
    scaled = _descend(scaled_objective, scaled, max_steps, tolerance)
    probe = jax.tree.map(jnp.divide, scaled, scale)
    return probe, curvature_of(predict(probe, centred))

  bias = _best_bias(labels, num_classes)
  weights = jnp.zeros((centred.shape[1], num_classes), jnp.float32)
  return (LinearProbe(weights, bias), curvature_of(bias)), solve


def _best_bias(labels: chex.Array, num_classes: int) -> chex.Array:
  """The optimum [C] without weights, for an infinite penalty: the class frequencies.

  A class without examples has its own at b = −∞; a probability of e⁻⁷/n is near enough.
  """
  few = 1e-3
  if labels.ndim == 1:
    counts = jnp.bincount(labels, length=num_classes).astype(jnp.float32)
    return jnp.log(jnp.maximum(counts, few) / labels.shape[0])
  # Of independent classes, the optimal bias is the log odds.
  positive, negative = (
    jnp.maximum(jnp.sum(labels == label, axis=0, dtype=jnp.float32), few)
    for label in (1, 0)
  )
  return jnp.log(positive / negative)


def _descend(
  value_fn: Callable[[LinearProbe], chex.Array],
  start: LinearProbe,
  max_steps: chex.Numeric,
  tolerance: chex.Numeric,
) -> LinearProbe:
  """Minimises value_fn from start by L-BFGS with the zoom line search."""
  optimiser = optax.lbfgs()
  # The line search has already computed f and its gradient at the new point.
  value_and_grad = optax.value_and_grad_from_state(value_fn)

  def unfinished(carry):
    _, _, promise, steps = carry
    return (promise > tolerance) & (steps < max_steps)

  def step(carry):
    params, state, _, steps = carry
    value, grad = value_and_grad(params, state=state)
    updates, state = optimiser.update(
      grad, state, params, value=value, grad=grad, value_fn=value_fn
    )
    # gᵀHg / f, as the updates are −H·g times the step of the line search.
    promise = -optax.tree.vdot(grad, updates) / value
    return optax.apply_updates(params, updates), state, promise, steps + 1

  carry = (start, optimiser.init(start), jnp.float32(jnp.inf), jnp.int32(0))
  return jax.lax.while_loop(unfinished, step, carry)[0]


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
  """Mean over the examples of `cross_entropies`."""
  return jnp.mean(cross_entropies(logits, labels))


def cross_entropies(logits: chex.Array, labels: chex.Array) -> chex.Array:
  """The loss of `objective` of every example, [n], without its penalty.

  In these forms neither the value nor the gradient cancels when it is close to zero.

  Args:
    logits: [n, C].
    labels: [n], integers in [0, C), for −log softmax(z)_y = log(1 + Σ_c exp(z_c − z_y))
      over c ≠ y, or -1 without a label, for 0; or [n, C] of 1, 0 and -1, for the sum
      over the classes to be judged.
  """
  if labels.ndim == 2:
    losses = jax.nn.softplus(jnp.where(labels == 1, -logits, logits))
    return jnp.sum(losses, axis=1, where=labels >= 0)
  is_label = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
  label_logits = jnp.sum(logits, axis=1, keepdims=True, where=is_label)
  # Σ_{c≠y} exp(z_c − z_y) in the log domain; softplus adds the 1.
  others = jax.nn.logsumexp(logits - label_logits, axis=1, where=~is_label)
  return jnp.where(labels >= 0, jax.nn.softplus(others), 0)


def _curvature(logits: chex.Array, *, multi_label: bool) -> chex.Array:
  """Mean of p(1 − p), the second derivative of the cross-entropy by a logit."""
  probabilities = (jax.nn.sigmoid if multi_label else jax.nn.softmax)(logits)
  # Bounded from below, as it is a divisor and vanishes when every example is certain.
  return jnp.maximum(jnp.mean(probabilities * (1 - probabilities)), 1e-6)
