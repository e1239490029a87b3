"""What may change when a pre-training resumes, and how another one starts from it."""

import shutil

import chex
import jax
import numpy as np
import pytest

from experiments import pretrain
from sslhsic import optim, parallel
from sslhsic.data import digits_source, sources
from sslhsic.pretraining import initial
from sslhsic.runs import runner, writers
from sslhsic.runs import workdir as workdir_lib
from sslhsic.weights import pretrained


@pytest.fixture
def config(pretrained_run):
  """That of a run of two steps, to be changed."""
  return pretrained_run[1]._config.copy_and_resolve_references()


def _resume(config, workdir):
  """Evaluates, as the training is over."""
  made = runner.Runner(pretrain.Pretrain, config, workdir, 'eval')
  made.run()
  return made._experiment


def test_follower_measures_what_an_evaluation_of_the_run_does(
  config, pretrained_run, tmp_path
):
  config.evaluation.update(batch_size=40, test_split='test[:40]', representations=())
  workdir = shutil.copytree(pretrained_run[0], tmp_path / 'run')
  _resume(config, workdir)
  config.evaluators.names = ('knn', 'collapse')  # A follower may measure other things.
  own = tmp_path / 'own'
  runner.Runner(pretrain.Pretrain, config, own, 'eval', follow=workdir).run()
  assert [row['step'] for row in writers.read(own)] == [1, 2]
  found, wanted = (workdir_lib.read_json(x / 'results.json') for x in (own, workdir))
  for name in ('steps', 'knn_top1', 'embedding_std', 'effective_rank'):
    assert found[name] == wanted[name]
  assert 'online_top1' not in found


def test_encoder_is_evaluated_as_the_run_that_has_made_it(
  config, pretrained_run, tmp_path
):
  config.evaluation.update(batch_size=40, test_split='test[:40]')
  config.evaluation.update(representations=('trained',), labels_per_class=(1,))
  workdir = shutil.copytree(pretrained_run[0], tmp_path / 'run')
  _resume(config, workdir)
  config.evaluators.rankme.features = 'projection'
  config.update(init_from=str(pretrained_run[0]), seed=5)
  with pytest.raises(ValueError, match='holds a run of another config'):
    _resume(config, workdir)
  _resume(config, tmp_path / 'own')
  config.init_from = str(workdir)  # As if it had moved.
  _resume(config, tmp_path / 'own')
  found, wanted = (
    workdir_lib.read_json(x / 'results.json') for x in (tmp_path / 'own', workdir)
  )
  assert (found['steps'], wanted['steps']) == (0, 2)
  for name in ('knn_top1', 'linear_top1', 'few_label_top1', 'embedding_std'):
    assert found[name] == wanted[name]
  assert found['encoder'] == f'{workdir}, step 2: ssl_hsic on digits'
  assert found['protocol']['features'].endswith(found['encoder'])
  assert found['encoder_fingerprint'] == wanted['trained_fingerprint']
  # Nobody has trained what comes after this encoder.
  untrained = {'online_top1', 'rankme'}
  assert untrained < wanted.keys()
  assert not {*untrained, 'trained_fingerprint'} & found.keys()
  assert not untrained & found['protocol'].keys()


def _renamed(argument, split):
  """The digits, that somebody has put elsewhere."""
  return digits_source.create(argument, split)


def _other(argument, split):
  """The digits, of which some are gone."""
  return sources.SubsetSource(digits_source.create(argument, split), np.arange(20))


def test_run_resumes_where_its_data_have_moved(
  config, pretrained_run, tmp_path, monkeypatch
):
  monkeypatch.setitem(sources.SOURCES, 'renamed', _renamed)
  monkeypatch.setitem(sources.SOURCES, 'other', _other)
  workdir = shutil.copytree(pretrained_run[0], tmp_path / 'run')
  config.data.update(source='renamed', num_workers=1, max_bad_fraction=0.5)
  config.evaluation.update(batch_size=40, test_split='test[:40]', representations=())
  config.training.num_microbatches = 2
  resumed = _resume(config, workdir)
  chex.assert_trees_all_equal(*jax.device_get((resumed.state, pretrained_run[1].state)))
  config.data.source = 'other'
  config.evaluation.representations = ()
  with pytest.raises(ValueError, match=r'has changed .* 32 images then, 20 now'):
    _resume(config, workdir)


@pytest.fixture
def extended(config, pretrained_run):
  """A function of what is taken: an experiment that starts from the run."""
  config.update(init_from=str(pretrained_run[0]), seed=5)

  def start(what):
    config.init_what = what
    experiment = pretrain.Pretrain('train', jax.random.key(1), config)
    before = jax.device_get(parallel.first(experiment.state))
    experiment.begin()
    return before, jax.device_get(parallel.first(experiment.state))

  return start


def _counts(opt_state):
  return {
    path[-1].tuple_name: int(count)
    for path, count in initial.optax.tree.get_all_with_path(opt_state, 'count')
  }


def test_extended_run_has_the_whole_state_and_a_new_schedule(extended, pretrained_run):
  _, state = extended('state')
  saved = jax.device_get(parallel.first(pretrained_run[1].state))
  chex.assert_trees_all_equal(
    state._replace(opt_state=None), saved._replace(opt_state=None)
  )
  assert _counts(saved.opt_state) == {'ScaleByAdamState': 2, 'ScaleByScheduleState': 2}
  assert _counts(state.opt_state) == {'ScaleByAdamState': 2, 'ScaleByScheduleState': 0}
  chex.assert_trees_all_equal(state.opt_state[0].mu, saved.opt_state[0].mu)


def test_average_goes_on_at_another_decay(extended, config, pretrained_run):
  of_run = pretrained.read_run(str(pretrained_run[0])).averaged
  config.weight_ema_decay = 0.5
  _, state = extended('state')
  chex.assert_trees_all_close(optim.averaged(state.average, 0.5), of_run, rtol=1e-5)


def test_encoder_alone_starts_both_networks(extended, pretrained_run):
  before, state = extended('encoder')
  expected = pretrained.read_run(str(pretrained_run[0]))
  pairs = (
    (state.params, before.params, expected.averaged),
    (state.target_params, before.target_params, expected.averaged),
    (state.network_state, before.network_state, expected.network_state),
  )
  for found, initially, of_run in pairs:
    for module, leaves in found.items():
      is_encoder = module.startswith('encoder/')
      chex.assert_trees_all_equal(leaves, (of_run if is_encoder else initially)[module])
  chex.assert_trees_all_equal(state.opt_state, before.opt_state)


def test_start_that_does_not_fit_is_an_error(extended, config, tmp_path):
  before, _ = extended('encoder')
  start = lambda state: initial.state(parallel.replicate(state), config, 'state')
  other = before._replace(loss_state={'queue': np.zeros((3, 2), np.float32)})
  with pytest.raises(ValueError, match=r'queue is nothing, expected float32\(3, 2\)'):
    start(other)
  config.data.std = (1.0,)
  with pytest.raises(ValueError, match=r'has seen images of mean'):
    start(before)
  (tmp_path / 'model.safetensors').touch()
  config.init_from = str(tmp_path)
  with pytest.raises(ValueError, match=r"set config\.init_what = 'encoder'"):
    start(before)
  with pytest.raises(ValueError, match=r"config.init_what is 'all'; use state or enc"):
    initial.check('all')
