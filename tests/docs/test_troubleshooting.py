"""docs/troubleshooting.md lists messages that the code has."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'troubleshooting.md').read_text(encoding='utf-8')
CELLS = re.findall(r'^\| (`.*?) \|', TEXT, re.MULTILINE)
MESSAGES = [message for cell in CELLS for message in re.findall(r'`([^`]+)`', cell)]

# Not ours: the reason that an operating system gives.
OF_THE_SYSTEM = ('No space left on device', 'Broken pipe')
# What a message has of names, numbers and paths.
VALUES = re.compile(
  r"…|'[^']*'|\d[\d.]*|[A-Za-z_]+(?:[./][A-Za-z_]+)+|\([^)]*\)|\[[^]]*\]"
)


def _source():
  """All code, with literals that follow each other joined, and values left out."""
  files = [*(ROOT / 'sslhsic').rglob('*.py'), *(ROOT / 'experiments').glob('*.py')]
  text = '\n'.join(file.read_text(encoding='utf-8') for file in files)
  text = re.sub(r"""['"]\s*\n\s*f?['"]""", '', text)
  return re.sub(r'\{[^{}]*(\{[^{}]*\}[^{}]*)*\}', '…', text)


SOURCE = _source()


@pytest.mark.parametrize('message', MESSAGES)
def test_message_is_one_of_the_code(message):
  if any(text in message for text in OF_THE_SYSTEM):
    return
  parts = [part.strip(' ,.:;') for part in VALUES.split(message)]
  longest = max(parts, key=len)
  assert len(longest) > 5, 'nothing to look for'
  assert longest in SOURCE, longest


def test_every_row_has_a_cause_and_a_remedy():
  rows = [line for line in TEXT.splitlines() if line.startswith('| `')]
  assert len(rows) > 30
  for row in rows:
    assert len(re.split(r'(?<!\\) \| ', row.strip('| '))) == 3, row
