"""Programs that measure without training."""

import ml_collections
import pytest

from sslhsic.runs import measurement, workdir


def _config(k):
  return ml_collections.ConfigDict({'k': k})


def test_wrong_setting_leaves_the_directory_to_the_corrected_command(tmp_path):
  def measure(config, path):
    if config.k > 10:
      raise ValueError(f'config.k is {config.k}; use 10 or less')
    return {'top1': 0.5}

  with pytest.raises(ValueError, match='use 10 or less'):
    measurement.run(measure, _config(11), tmp_path)
  measurement.run(measure, _config(5), tmp_path)
  assert workdir.read_json(tmp_path / 'results.json')['top1'] == 0.5
  # Where there are results, a wrong setting takes nothing away.
  with pytest.raises(ValueError, match='another configuration'):
    measurement.run(measure, _config(11), tmp_path)
  assert workdir.read_json(tmp_path / 'config.json') == {'k': 5}


def test_directory_with_a_part_of_the_work_keeps_its_configuration(tmp_path):
  def measure(config, path):
    (path / 'embeddings.npz').write_bytes(b'')
    raise OSError('the disk is full')

  with pytest.raises(OSError, match='full'):
    measurement.run(measure, _config(5), tmp_path)
  assert workdir.read_json(tmp_path / 'config.json') == {'k': 5}
