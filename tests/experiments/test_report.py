"""The report: complete, and opened by a browser without errors."""

import base64
import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import jax
import pytest

from configs.pretrain import digits
from experiments import pretrain
from sslhsic import parallel
from sslhsic.report import build
from sslhsic.runs import runner

DRIVER = shutil.which('chromedriver')
CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')

SECTIONS = [
  'Results',
  'Differences of configurations',
  'Training',
  'InfoNCE and HSIC',
  'Augmented views',
  'Maps of the images of the evaluation',
  'Spectrum of the embedding covariance',
  'Nearest neighbours',
]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """A report on short runs: one whole, without its data, of another version."""
  config = digits.get_config()
  config.target_network, config.instruments = False, True
  config.training.update(batch_size=32, epochs=1, warmup_epochs=0)
  config.data.train_split = 'train[:64]'
  config.network.head = {'hidden_size': 16, 'output_size': 16}
  config.network.encoder_options = {
    'blocks_per_group': (1,),
    'channels_per_group': (8,),
  }
  config.evaluation.update(batch_size=64, representations=())
  config.evaluation.update(train_split='train[:64]', test_split='test[:64]')
  config.runner.log_every = 1
  directory = tmp_path_factory.mktemp('report')
  with pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(parallel, 'devices', lambda: jax.devices()[:1])
    runner.Runner(pretrain.Pretrain, config, directory / 'one', 'train_and_eval').run()
    for name in ('two', 'three'):
      shutil.copytree(directory / 'one', directory / name)
    _change(directory / 'two', lambda data: data.update(source='folder:/moved'))
    _change(directory / 'three', lambda data: data.pop('mean'))
    text = build.build([directory], num_encoders=4)
  file = directory / 'report.html'
  file.write_text(text, encoding='utf-8')
  return file


def _change(directory, change):
  path = directory / 'config.json'
  config = json.loads(path.read_text())
  change(config['data'])
  path.write_text(json.dumps(config))


def test_report_is_complete_and_needs_no_network(page):
  text = page.read_text(encoding='utf-8')
  assert re.findall('<h2>(.*?)</h2>', text) == SECTIONS
  addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
  assert all(address.startswith(('#', 'data:')) for address in addresses)
  assert set(re.findall(r'url\((.)', text)) == {'#'}
  assert '<th scope="col">data.source</th>' in text
  assert 'two cannot be looked into' in text
  assert (
    'three cannot be looked into: its configuration has no &#x27;mean&#x27;' in text
  )
  for name in ('loss', 'hsic_zy', 'knn_top1', 'effective_rank', 'kernel_info_nce'):
    assert f'aria-label="{name}"' in text
  for title in ('PCA, untrained', 't-SNE, trained'):
    assert f'aria-label="{title}"' in text
  assert text.count('<img') == 3  # Views, and neighbours before and after.


class Browser:
  """Chromium without a window, by the WebDriver protocol."""

  def __init__(self, port):
    self._session = f'http://127.0.0.1:{port}/session'
    options = {
      'binary': CHROMIUM,
      'args': [
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        '--window-size=1280,4000',
      ],
    }
    wanted = {'goog:chromeOptions': options, 'goog:loggingPrefs': {'browser': 'ALL'}}
    made = self._post('', {'capabilities': {'alwaysMatch': wanted}})
    self._session += f'/{made["sessionId"]}'

  def _post(self, command, body):
    request = urllib.request.Request(
      self._session + command,
      json.dumps(body).encode(),
      {'Content-Type': 'application/json'},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
      return json.load(answer)['value']

  def messages(self, address):
    """What the console says when a page is opened."""
    self._post('/url', {'url': address})
    return self._post('/se/log', {'type': 'browser'})

  def shows(self, scheme):
    """The colour of the page for those who prefer it light or dark."""
    media = {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]}
    self._post(
      '/goog/cdp/execute', {'cmd': 'Emulation.setEmulatedMedia', 'params': media}
    )
    script = 'return getComputedStyle(document.body).backgroundColor'
    return self._post('/execute/sync', {'script': script, 'args': []})

  def run(self, script):
    """What a script returns."""
    return self._post('/execute/sync', {'script': script, 'args': []})

  def screenshot(self, file):
    """Writes a picture of the page."""
    with urllib.request.urlopen(f'{self._session}/screenshot', timeout=120) as answer:
      file.write_bytes(base64.b64decode(json.load(answer)['value']))

  def close(self):
    """Ends the browser."""
    request = urllib.request.Request(self._session, method='DELETE')
    urllib.request.urlopen(request, timeout=60).close()


@pytest.fixture(scope='module')
def browser():
  if not DRIVER or not CHROMIUM:
    pytest.skip(
      'there is no Chromium with chromedriver to open the report with; on Debian: '
      'apt-get install chromium chromium-driver'
    )
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  driver = subprocess.Popen(
    [DRIVER, f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  try:
    _wait_for(port)
    with contextlib.closing(Browser(port)) as browser:
      yield browser
  finally:
    driver.terminate()
    driver.wait()


def _wait_for(port):
  for _ in range(600):
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
      urllib.request.urlopen(f'http://127.0.0.1:{port}/status', timeout=60).close()
      return
    time.sleep(0.1)
  raise TimeoutError('chromedriver does not answer')


def test_report_opens_without_console_errors(browser, page, tmp_path):
  broken = tmp_path / 'broken.html'
  broken.write_text('<script>nothing.there</script>')
  assert browser.messages(broken.as_uri())[0]['level'] == 'SEVERE'
  assert browser.messages(pathlib.Path(page).as_uri()) == []
  loaded = 'return [...document.images].every(x => x.naturalWidth > 0)'
  assert browser.run(loaded) is True
  assert browser.shows('light') == 'rgb(255, 255, 255)'
  assert browser.shows('dark') == 'rgb(22, 24, 27)'
