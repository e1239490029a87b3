"""Settings are checked by the names of their fields."""

import ml_collections
import pytest

from configs.finetune import digits_1pct
from configs.pretrain import digits
from sslhsic.runs import checks


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('training.batch_size', 0),
    ('training.epochs', -1),
    ('training.warmup_epochs', -2),
    ('data.crop_size', -8),
    ('data.num_workers', -1),
    ('evaluation.batch_size', 0),
    ('network.head.output_size', 0),
    ('seed', -1),
    ('seed', 2**32),
    ('runner.keep_checkpoints', 0),
    ('runner.log_every', -1),
    ('runner.checkpoint_minutes', -0.5),
  ],
)
def test_impossible_value_is_named_with_its_field(field, value):
  config = digits.get_config()
  checks.sizes(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=rf'config\.{field} is {value}; use'):
    checks.sizes(config)


def test_every_element_of_a_sequence_is_checked():
  config = digits_1pct.get_config()
  checks.sizes(config)
  config.training.update(epochs=(), steps=(5, 0))
  with pytest.raises(ValueError, match=r'config\.training\.steps is 0; use 1 or more'):
    checks.sizes(config)


def test_fields_that_a_configuration_lacks_are_left_out():
  config = ml_collections.ConfigDict({'seed': 3, 'steps': -1})
  checks.sizes(config)
  config.seed = -3
  with pytest.raises(ValueError, match=r'config\.seed is -3'):
    checks.sizes(config)


def test_batch_and_warmup_must_fit():
  checks.batch_fits(8, 8, 'digits train')
  message = r'config\.training\.batch_size is 9, but digits train\[:8\] has 8 images'
  with pytest.raises(ValueError, match=message):
    checks.batch_fits(9, 8, 'digits train[:8]')
  checks.warmup_fits('training.warmup_steps', 0, 1)
  with pytest.raises(ValueError, match=r'config\.training\.warmup_steps is 5, but'):
    checks.warmup_fits('training.warmup_steps', 5, 5)
