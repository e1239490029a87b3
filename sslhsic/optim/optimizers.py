"""Optimisers by name, with their settings and the choice of parameters that decay.

An optimiser is a function (learning_rate, *, weight_decay, decayed, **settings) that
returns a gradient transformation; its settings have defaults. Adding one is a function
and an entry in `OPTIMIZERS`. Gradients are expected to be averaged over devices
already.
"""

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import chex
import jax
import optax

from sslhsic import registry
from sslhsic.optim import promotion


def matching(patterns: Sequence[str]) -> Callable[[optax.Params], Any]:
  """A function that marks the parameters whose names match patterns.

  A pattern without a slash is compared with the name of a parameter, such as 'w', one
  with a slash with module and name, such as 'encoder/*/w'; `*` stands for any
  characters. A pattern after `!` excludes what it matches. The last pattern that
  matches decides; a parameter that none matches is not marked.

    ('w',)                               weights of convolutions and linear layers
    ('*',)                               everything
    ('*', '!class_token', '!positions')  everything but these two

  Args:
    patterns: as above.

  Returns:
    A function from a tree of parameters to a tree of booleans. It raises a ValueError
    if a pattern matches no parameter.
  """

  def mark(params: optax.Params) -> Any:
    names = jax.tree_util.tree_map_with_path(
      lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'), params
    )
    _check_matches(patterns, jax.tree.leaves(names))
    return jax.tree.map(lambda name: _is_marked(patterns, name), names)

  return mark


def _is_marked(patterns: Sequence[str], name: str) -> bool:
  found = [pattern for pattern in patterns if _matches(pattern, name)]
  return bool(found) and not found[-1].startswith('!')


def _matches(pattern: str, name: str) -> bool:
  pattern = pattern.removeprefix('!')
  compared = name if '/' in pattern else name.rpartition('/')[2]
  return fnmatch.fnmatchcase(compared, pattern)


def _check_matches(patterns: Sequence[str], names: Sequence[str]) -> None:
  # A loss without parameters gives an empty tree, in which no pattern can match.
  for pattern in patterns if names else ():
    if not any(_matches(pattern, name) for name in names):
      some = ', '.join([*names[:3], *(['…'] if len(names) > 3 else [])])
      raise ValueError(
        f'decayed = {tuple(patterns)}, and {pattern!r} matches no parameter of {some}'
      )


def lars(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: chex.Numeric,
  decayed: Sequence[str],
  momentum: float = 0.9,
  nesterov: bool = False,
  trust_coefficient: float = 1e-3,
) -> optax.GradientTransformation:
  r"""Layer-wise adaptive rate scaling, as used by BYOL and SSL-HSIC.

  For the weights w of a layer and their gradient g, with learning rate η,

    g ← g + λ·w,   m ← μ·m + g·τ‖w‖/‖g‖,   w ← w − η·m

  where the factor τ‖w‖/‖g‖ is 1 if either norm is 0. Parameters that do not decay take
  m ← μ·m + g. `optax.lars` differs in that η is inside of the momentum there, which is
  another method as soon as η changes with time.

  You et al. (2017), https://arxiv.org/abs/1708.03888.

  Args:
    learning_rate: η, a number or a function of the step.
    weight_decay: λ.
    decayed: parameters that decay and whose gradients are scaled, see `matching`.
    momentum: μ, decay of the momentum.
    nesterov: whether the step is η·(μ·m + g·τ‖w‖/‖g‖), with the updated m.
    trust_coefficient: τ, length of a step relative to the weights.

  Returns:
    The gradient transformation; its update needs the parameters.

  Raises:
    ValueError: a setting is out of range.
  """
  _check_below_one(momentum=momentum)
  _check_positive(trust_coefficient=trust_coefficient)
  mask = matching(decayed)
  # In the order of the equations: λ·w counts in ‖g‖, and η stays outside of m.
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=mask),
    optax.masked(optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient), mask),
    optax.trace(momentum, nesterov),
    optax.scale_by_learning_rate(learning_rate),
  )


def adamw(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: chex.Numeric,
  decayed: Sequence[str],
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay (https://arxiv.org/abs/1711.05101).

  Args:
    learning_rate: a number or a function of the step.
    weight_decay: decay, times the learning rate.
    decayed: parameters that decay, see `matching`.
    b1: β₁, decay of the average of the gradient.
    b2: β₂, decay of the average of its square.
    eps: ε, added to the root of the average square.

  Raises:
    ValueError: a setting is out of range.
  """
  _check_below_one(b1=b1, b2=b2)
  _check_positive(eps=eps)
  return promotion.promoting(
    optax.adamw(
      learning_rate,
      b1,
      b2,
      eps,
      weight_decay=weight_decay,
      mask=matching(decayed),
    )
  )


def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: chex.Numeric,
  decayed: Sequence[str],
  momentum: float = 0.9,
  nesterov: bool = False,
) -> optax.GradientTransformation:
  """Gradient descent with momentum.

  Args:
    learning_rate: a number or a function of the step.
    weight_decay: λ of the gradient g + λ·w.
    decayed: parameters that decay, see `matching`.
    momentum: μ, decay of the momentum; 0 for none.
    nesterov: whether momentum is Nesterov's.

  Raises:
    ValueError: a setting is out of range.
  """
  _check_below_one(momentum=momentum)
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=matching(decayed)),
    optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov),
  )


def _check_below_one(**settings: float) -> None:
  for name, value in settings.items():
    if not 0 <= value < 1:
      raise ValueError(f'{name} is {value}; use 0 or more, and less than 1')


def _check_positive(**settings: float) -> None:
  for name, value in settings.items():
    if not value > 0:
      raise ValueError(f'{name} is {value}; use a positive number')


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'adamw': adamw,
  'lars': lars,
  'sgd': sgd,
}


def settings(name: str, **changes: Any) -> dict[str, Any]:
  """The chosen optimiser and the settings of every one, for a configuration.

  Args:
    name: the optimiser that is chosen.
    **changes: its settings that differ from their defaults.

  Returns:
    {'name': name, OPTIMISER: {SETTING: default, …}, …}.

  Raises:
    ValueError: there is no such optimiser, or it has no such setting.
  """
  return registry.settings('optimiser', OPTIMIZERS, name, changes)


def create(
  config: Mapping[str, Any],
  learning_rate: optax.ScalarOrSchedule,
  *,
  weight_decay: chex.Numeric | None = None,
  field: str = 'config.optimizer',
) -> optax.GradientTransformation:
  """Creates the optimiser of a configuration.

  Args:
    config: 'name'; under that name the settings of the optimiser; 'decayed', patterns
      of the parameters that decay, see `matching`; and 'weight_decay'.
    learning_rate: a number or a function of the step.
    weight_decay: in place of the one of the configuration.
    field: where the configuration has this block, for messages.

  Returns:
    The optimiser; its `init` raises a ValueError if a pattern matches no parameter.

  Raises:
    ValueError: there is no such optimiser or setting, or a setting is out of range.
  """
  name = config['name']
  chosen = config.get(name, {})
  with _naming(field):
    make = registry.find('optimiser', OPTIMIZERS, name, chosen)
    if weight_decay is None:
      weight_decay = config['weight_decay']
      if not weight_decay >= 0:
        raise ValueError(f'weight_decay is {weight_decay}; use 0 or more')
    made = make(
      learning_rate, weight_decay=weight_decay, decayed=config['decayed'], **chosen
    )

  def init(params: optax.Params) -> optax.OptState:
    # Only the parameters show whether every pattern matches one.
    with _naming(field):
      return made.init(params)

  return optax.GradientTransformation(init, made.update)


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
  """Names the field of the configuration in the message of an error."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{field}: {error}') from error


def describe(config: Mapping[str, Any]) -> str:
  """The optimiser of a configuration in words, for the protocol of a result.

  Such as 'sgd (momentum 0.9, nesterov False), weight decay 0.0001 of w'.

  Args:
    config: as for `create`; without 'weight_decay', its value is left out.
  """
  name = config['name']
  chosen = ', '.join(f'{key} {value}' for key, value in config.get(name, {}).items())
  words = f'{name} ({chosen})' if chosen else name
  decay = config.get('weight_decay')
  if decay == 0:
    return f'{words}, no weight decay'
  value = '' if decay is None else f' {decay:g}'
  return f'{words}, weight decay{value} of {", ".join(config["decayed"])}'
