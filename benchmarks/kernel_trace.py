"""Where the time of a step goes: kernels by total time, from a trace of JAX's profiler.

Reads `*.trace.json.gz`, which the profiler writes next to its protocol buffer, without
TensorFlow.
"""

import collections
import gzip
import json
import pathlib
import re
from typing import Any

# The first that is found in the name of a kernel, or of its operation, says of which
# kind it is. cuDNN's convolutions have 'fprop', 'dgrad' or 'wgrad' in their names.
_LAYOUT = re.compile(r'to_?n(hwc|chw)|addpadding', re.IGNORECASE)
_KINDS = (
  ('convolution', re.compile(r'conv(?!ert)|fprop|dgrad|wgrad|winograd|implicit')),
  ('matrix product', re.compile(r'gemm|\bdot|cublas|matmul|nvjet')),
  ('copy, layout', re.compile(r'copy|transpose|memcpy|memset', re.IGNORECASE)),
  ('batch norm, elementwise', re.compile(r'fusion|reduce|select|scatter|add|sort')),
)
OTHER = 'all else'
KINDS = (*(name for name, _ in _KINDS), OTHER)


def read(directory: pathlib.Path) -> list[dict[str, Any]]:
  """Kernels of the device, or operations of a CPU, in the latest trace.

  Returns:
    'name', 'operation' (of XLA, if known) and 'milliseconds' of each that ran.

  Raises:
    FileNotFoundError: there is no trace.
  """
  paths = sorted(directory.rglob('*.trace.json.gz'))
  if not paths:
    raise FileNotFoundError(f'no *.trace.json.gz below {directory}')
  with gzip.open(paths[-1], 'rt') as file:
    events = json.load(file)['traceEvents']
  names = {
    (event['pid'], event['tid']): event['args']['name']
    for event in events
    if event.get('ph') == 'M' and event.get('name') == 'thread_name'
  }
  complete = [event for event in events if event.get('ph') == 'X']
  # Other threads of a device repeat what ran on its streams, in other groups.
  on_stream = [
    event
    for event in complete
    if names.get((event['pid'], event['tid']), '').startswith('Stream')
  ]
  of_xla = [event for event in complete if 'hlo_op' in event.get('args', {})]
  return [
    {
      'name': event['name'],
      'operation': event.get('args', {}).get('hlo_op', ''),
      'milliseconds': event['dur'] / 1e3,
    }
    for event in on_stream or of_xla
  ]


def kind(event: dict[str, Any]) -> str:
  """Kind of a kernel, one of `KINDS`."""
  if _LAYOUT.search(event['name']):
    return 'copy, layout'
  text = f'{event["operation"]} {event["name"]}'
  return next((name for name, pattern in _KINDS if pattern.search(text)), OTHER)


def summary(events: list[dict[str, Any]], count: int = 10) -> dict[str, Any]:
  """Total time by kind, and the kernels with the longest total time.

  Returns:
    'milliseconds' of all, 'kinds' (name -> share), and 'kernels': 'name', 'kind',
    'calls', 'milliseconds', 'share', 'operation' (the longest of those that run it).
  """
  total = sum(event['milliseconds'] for event in events)
  by_kind, by_name = collections.Counter(), collections.defaultdict(list)
  for event in events:
    by_kind[kind(event)] += event['milliseconds']
    by_name[event['name'] or event['operation']].append(event)
  sums = collections.Counter(
    {name: sum(x['milliseconds'] for x in group) for name, group in by_name.items()}
  )
  return {
    'milliseconds': total,
    'kinds': {name: by_kind[name] / total for name in KINDS},
    'kernels': [
      {
        'name': name,
        'kind': kind(by_name[name][0]),
        'calls': len(by_name[name]),
        'milliseconds': milliseconds,
        'share': milliseconds / total,
        'operation': max(by_name[name], key=lambda x: x['milliseconds'])['operation'],
      }
      for name, milliseconds in sums.most_common(count)
    ],
  }
