"""The jobs behind a table: shared, named after what differs, fit for their encoder."""

import json
import subprocess

import ml_collections
import pytest

from sslhsic.tables import jobs
from sslhsic.tables import table as table_lib

FOUND = {
  'title': 'A table',
  'note': '',
  'steps': {
    'pretrain': 'pretrain/small',
    'supervised': 'finetune/small',
    'linear': 'linear_eval/small',
  },
  'columns': {'top-1': ('linear', 'linear_top1', 'percent')},
  'rows': {
    'default': {'loss.gamma': 1.0},
    'other': {'loss.gamma': 3.0, 'network.encoder': 'wide'},
    'random': table_lib.RANDOM,
    'supervised': table_lib.SUPERVISED,
    'published': None,
  },
  'published': {'published': {'top-1': 74.8, 'of another base': 1.0}},
}


def _load_config(name):
  network = {'encoder': 'narrow', 'encoder_options': {'width': 1}}
  config = {'seed': 0, 'network': network, 'data': {'mean': (0.0,), 'std': (2.0,)}}
  config |= {
    'pretrain/small': {'loss': {'gamma': 1.0}, 'runner': {}},
    'finetune/small': {'init_from': ''},
    'linear_eval/small': {'init_from': '', 'data': {'mean': (0.5,), 'std': (2.0,)}},
  }[name]
  return ml_collections.ConfigDict(config)


def _plan(root, row, seed=0):
  table = table_lib.parse('name', 'small', FOUND)
  return jobs.of_row(table, row, seed, root, _load_config)


def test_directory_says_what_differs_from_the_configuration(tmp_path):
  for row, seed, name in (
    ('default', 0, 'default/seed0'),
    ('default', 2, 'default/seed2'),
    ('other', 1, 'loss.gamma=3.0,network.encoder=wide/seed1'),
    ('random', 0, 'random/seed0'),
  ):
    for job in _plan(tmp_path, row, seed).values():
      assert job.workdir.parent == tmp_path / 'small' / name
      assert job.config.seed == seed
  assert list(_plan(tmp_path, 'random')) == ['linear']
  assert _plan(tmp_path, 'published') == {}


def test_supervised_network_is_trained_from_random_values_and_evaluated(tmp_path):
  plan = _plan(tmp_path, 'supervised', seed=1)
  assert list(plan) == ['supervised', 'linear']
  trained, evaluated = plan.values()
  assert trained.config.init_from == 'random'
  assert trained.needs is None
  # Its score is one of random initial values too.
  assert trained.workdir == tmp_path / 'small/random/seed1/finetune-small'
  assert evaluated.workdir == tmp_path / 'small/supervised/seed1/linear_eval-small'
  assert evaluated.config.init_from == str(trained.workdir)
  assert evaluated.needs == trained.workdir
  assert trained.config.data.mean == evaluated.config.data.mean == (0.0,)


def test_pretraining_measures_a_supervised_network_as_its_own_encoder(tmp_path):
  columns = FOUND['columns'] | {'kNN': ('pretrain', 'knn_top1', 'percent')}
  table = table_lib.parse('name', 'small', FOUND | {'columns': columns})
  load = lambda name: _with_start(_load_config(name))
  plan = jobs.of_row(table, 'supervised', 1, tmp_path, load)
  assert list(plan) == ['supervised', 'pretrain', 'linear']
  trained, measured, _ = plan.values()
  assert measured.workdir == tmp_path / 'small/supervised/seed1/pretrain-small'
  assert measured.needs == trained.workdir
  assert measured.command[3:] == [
    '--config=configs/pretrain/small.py',
    f'--workdir={measured.workdir}',
    '--mode=eval',
    f'--config.init_from={trained.workdir}',
    '--config.seed=1',
  ]
  # Those of random values have nothing to measure but themselves.
  assert list(jobs.of_row(table, 'random', 1, tmp_path, load)) == ['linear']


def _with_start(config):
  if 'loss' in config:
    config.init_from = 'random'
  return config


def test_long_names_that_differ_at_their_end_do_so_in_their_directory(tmp_path):
  rows = {name: {'network.encoder': 300 * 'x' + name} for name in 'ab'}
  table = table_lib.parse('name', 'small', FOUND | {'rows': rows})
  places = {
    jobs.of_row(table, row, 0, tmp_path, _load_config)['pretrain'].workdir
    for row in rows
  }
  assert len(places) == 2


def test_rows_that_differ_in_any_character_have_directories_of_their_own(tmp_path):
  values = ('train[:50%]', 'train[50%:]', 'tfds:a/b', 'tfds:ab', '!w', 'w')
  rows = {value: {'network.encoder': value} for value in values}
  table = table_lib.parse('name', 'small', FOUND | {'rows': rows})
  plans = jobs.plan(table, 1, tmp_path, _load_config)
  wanted = [job for row in plans.values() for job in row[0].values()]
  assert jobs.in_order(plans) == wanted


def test_rows_that_differ_have_what_is_set_for_them(tmp_path):
  table = table_lib.parse(
    'name', 'small', FOUND | {'of_changed_rows': {'runner.log_every': 7}}
  )
  load = lambda name: _with_log_every(_load_config(name))
  for row, expected in (('default', 1), ('other', 7)):
    plan = jobs.of_row(table, row, 0, tmp_path, load)
    assert plan['pretrain'].config.runner.log_every == expected
  # The directory of the row that does not is shared with other tables.
  assert jobs.of_row(table, 'default', 0, tmp_path, load) == jobs.of_row(
    table_lib.parse('name', 'small', FOUND), 'default', 0, tmp_path, load
  )


def _with_log_every(config):
  if 'runner' in config:
    config.runner.log_every = 1
  return config


def test_evaluation_has_encoder_and_normalisation_of_its_pretraining(tmp_path):
  plan = _plan(tmp_path, 'other', seed=1)
  assert plan['linear'].overrides == {
    'init_from': str(plan['pretrain'].workdir),
    'seed': 1,
    'network.encoder': 'wide',
    'data.mean': (0.0,),
  }
  assert plan['linear'].config.network.encoder == 'wide'
  assert plan['linear'].needs == plan['pretrain'].workdir
  assert plan['linear'].command[1:] == [
    '-m',
    'experiments.linear_eval',
    '--config=configs/linear_eval/small.py',
    f'--workdir={plan["linear"].workdir}',
    f'--config.init_from={plan["pretrain"].workdir}',
    '--config.seed=1',
    '--config.network.encoder=wide',
    '--config.data.mean=(0.0,)',
  ]


def test_field_that_there_is_not_is_refused(tmp_path):
  found = FOUND | {'rows': {'wrong': {'loss.gama': 1.0}}}
  table = table_lib.parse('name', 'small', found)
  with pytest.raises(ValueError, match=r'small\.py has no field loss\.gama'):
    jobs.of_row(table, 'wrong', 0, tmp_path, _load_config)


def test_column_of_no_step_is_refused():
  found = FOUND | {'columns': {'top-1': ('knn', 'knn_top1', 'percent')}}
  with pytest.raises(ValueError, match=r"column 'top-1' .* step of pretrain, superv"):
    table_lib.parse('name', 'small', found)


@pytest.mark.parametrize(
  ('row', 'steps'),
  [('randm', FOUND['steps']), ('supervised', {'pretrain': '', 'linear': ''})],
)
def test_row_of_an_unknown_kind_is_refused(row, steps):
  found = FOUND | {'rows': {'a row': row}, 'steps': steps}
  with pytest.raises(ValueError, match=f"row 'a row' of table name is '{row}'; use"):
    table_lib.parse('name', 'small', found)


def test_published_values_of_other_bases_are_left_out():
  table = table_lib.parse('name', 'small', FOUND)
  assert table.published == {'published': {'top-1': 74.8}}


def test_rows_share_jobs_and_chains_stop_where_one_is_not_done(tmp_path):
  plan, same = _plan(tmp_path, 'default'), _plan(tmp_path, 'default')
  assert jobs.in_order({'one': [plan], 'two': [same]}) == list(plan.values())
  line = jobs.chain(list(plan.values()))
  first, condition, second = line.split(' && ')
  test = f'test -e {plan["pretrain"].workdir}/results.json'
  assert first.startswith(f'{{ {test} || ')
  assert 'experiments.pretrain' in first
  assert condition == test
  assert 'experiments.linear_eval' in second


def test_chain_that_is_started_again_goes_on_where_it_was(tmp_path, monkeypatch):
  """But does again what has failed."""
  monkeypatch.setattr(jobs.Job, 'command', property(_pretended))
  plan = list(_plan(tmp_path, 'default').values())
  for job in plan:
    job.workdir.mkdir(parents=True)
  (plan[0].workdir / 'results.json').write_text('{"failed": {"report": "no disk"}}')
  line = jobs.chain(plan)
  for count in (1, 2):
    subprocess.run(line, shell=True, check=True)
    assert (plan[0].workdir / 'results.json').read_text().count('done') == count
    assert (plan[1].workdir / 'results.json').read_text().count('done') == 1


def _pretended(job):
  return ['bash', '-c', f'echo done >> "{job.workdir}/results.json"']


def test_results_of_another_configuration_are_refused(tmp_path):
  job = _plan(tmp_path, 'default')['linear']
  assert job.results() is None
  job.workdir.mkdir(parents=True)
  config = ml_collections.ConfigDict(job.config.to_dict())
  config.init_from = '/elsewhere'  # The same run, moved.
  _write(job.workdir, config)
  assert job.results() == {'linear_top1': 0.5}
  config.init_from = 'random'  # The evaluation of another row.
  _write(job.workdir, config)
  with pytest.raises(ValueError, match=r'another configuration \(init_from: random th'):
    job.results()
  config.init_from = '/elsewhere'
  config.network.encoder = 'wide'
  _write(job.workdir, config)
  with pytest.raises(ValueError, match=r'another configuration \(network\.encoder: wi'):
    job.results()


def _write(directory, config, **results):
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').write_text(config.to_json())
  (directory / 'results.json').write_text(json.dumps({'linear_top1': 0.5} | results))


def test_results_of_an_encoder_that_was_trained_again_are_refused(tmp_path):
  made, job = _plan(tmp_path, 'default').values()
  _write(made.workdir, made.config, trained_fingerprint='first')
  _write(job.workdir, job.config, encoder_fingerprint='first')
  assert job.results()
  _write(made.workdir, made.config, trained_fingerprint='second')
  with pytest.raises(ValueError, match=r'results of an earlier encoder: .* again'):
    job.results()
  _write(made.workdir, made.config)  # By an earlier version.
  assert job.results()
