"""What evaluations start from."""

import jax
import numpy as np
import pytest

from configs.depth import shapes as depth_shapes
from configs.detection import shapes as detection_shapes
from configs.linear_eval import digits as linear_digits
from configs.segmentation import shapes as segmentation_shapes
from configs.transfer import digits_finetune as finetune_digits
from sslhsic import parallel
from sslhsic.evaluation import encoder
from sslhsic.networks import classifier
from sslhsic.weights import pretrained

EXPECTED = {
  'encoder': 'resnet_digits',
  'encoder_options': {},
  'mean': (0.3053,),
  'std': (0.3760,),
}


def _initial(channels=(4, 8)):
  network = classifier.classifier(
    encoder='resnet_digits',
    encoder_options={'channels_per_group': channels},
    num_classes=10,
  )
  return encoder.initial_values(network, (8, 8, 1), seed=1)


def _assert_encoder_is(found, expected):
  for module, leaves in found.items():
    for name, value in leaves.items():
      if module.startswith('encoder/'):
        np.testing.assert_allclose(value, expected[module][name], rtol=1e-6)


def test_encoder_has_averaged_parameters_and_online_batch_statistics(pretrained_run):
  workdir, experiment = pretrained_run
  initial = _initial()
  start = pretrained.load(str(workdir), *initial, **EXPECTED)
  averaged, state = jax.device_get(parallel.first(experiment._averaged_network()))
  _assert_encoder_is(start.params, averaged)
  _assert_encoder_is(start.network_state, state)
  assert start.params['classifier']['w'] is initial[0]['classifier']['w']
  assert start.description == f'{workdir}, step 2: ssl_hsic on digits'


def test_a_checkpoint_may_be_named(pretrained_run):
  workdir, _ = pretrained_run
  starts = [
    pretrained.load(f'{workdir}{step}', *_initial(), **EXPECTED)
    for step in ('', '/checkpoints/2', '/checkpoints/1')
  ]
  prints = [start.fingerprint for start in starts]
  assert prints[0] == prints[1] != prints[2]
  assert starts[2].description.startswith(f'{workdir}/checkpoints/1, step 1')


def test_random_replaces_nothing():
  params, network_state = _initial()
  start = pretrained.load('random', params, network_state, **EXPECTED)
  assert start.params is params
  assert start.network_state is network_state


def test_network_that_does_not_fit_is_refused_with_the_differing_shapes(pretrained_run):
  workdir, _ = pretrained_run
  message = (
    r'does not fit: encoder/group_0/block_0/batchnorm_0/offset is \(1, 1, 1, 4\) '
    r'there, \(1, 1, 1, 6\) in the network; .* and 6 more; use its network, '
    r'--config.network.encoder=resnet_digits --config.network.encoder_options="{'
  )
  with pytest.raises(ValueError, match=message):
    pretrained.load(str(workdir), *_initial((6, 8)), **EXPECTED)


@pytest.mark.parametrize(
  ('suffix', 'changes', 'message'),
  [
    ('/nowhere', {}, "nowhere' is not there; give the working directory of a pre-tr"),
    ('/checkpoints/7', {}, 'no checkpoint of step 7 in .*; there are: 1, 2'),
    (
      '',
      {'mean': (0.5,)},
      r'has seen images of mean \(0.3053,\) .* set config.data.mean',
    ),
  ],
)
def test_wrong_starts_are_refused(pretrained_run, suffix, changes, message):
  workdir, _ = pretrained_run
  with pytest.raises(ValueError, match=message):
    pretrained.load(f'{workdir}{suffix}', *_initial(), **(EXPECTED | changes))


@pytest.mark.parametrize(
  'config',
  [segmentation_shapes, depth_shapes, detection_shapes, linear_digits, finetune_digits],
)
def test_run_of_another_program_is_refused(config, tmp_path):
  """The transfer program fine-tunes each task in a run of its own, not in this one."""
  written = config.get_config()
  written.init_from = 'runs/digits'
  (tmp_path / 'config.json').write_text(written.to_json())
  message = 'is a run of another program; give the pre-training run .*, runs/digits'
  with pytest.raises(ValueError, match=message):
    pretrained.load(str(tmp_path), *_initial(), **EXPECTED)


def test_no_start_is_refused():
  with pytest.raises(ValueError, match='init_from is empty; give'):
    pretrained.load('', *_initial(), **EXPECTED)
