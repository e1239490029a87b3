"""The results of `benchmarks.accelerator` as Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import kernel_trace
from sslhsic.tables import printed


def markdown(result: dict[str, Any]) -> str:
  """All tables that there are numbers for, and what was skipped or has failed."""
  parts = [_header(result)]
  for title, key, table in (
    ('Correctness', 'checks', _checks),
    ('The same step in JAX and in PyTorch', 'comparison', _comparison),
    ('Training step', 'steps', _steps),
    ('Loss alone', 'loss', _loss),
    ('Profile', 'profile', _profile),
    ('Variants', 'variants', _variants),
    ('Fashion-MNIST', 'fashion_mnist', _facts),
  ):
    if result.get(key):
      parts += [f'## {title}', table(result[key])]
  if result.get('skipped'):
    lines = [f'- {name}: {why}' for name, why in result['skipped'].items()]
    parts += ['## Not measured', '\n'.join(lines)]
  return '\n\n'.join(parts) + '\n'


def _header(result: dict[str, Any]) -> str:
  device = result.get('device', {})
  versions = ', '.join(f'{k} {v}' for k, v in device.get('versions', {}).items())
  return (
    f'# {device.get("kind", "no device")}\n\n{device.get("cores", "?")} CPU cores; '
    f'{versions}; {result.get("elapsed_s", 0):.0f} s in all. '
    f'`{result.get("command", "python -m benchmarks.accelerator")}`'
  )


def _checks(checks: dict[str, Any]) -> str:
  parts = []
  if 'golden' in checks:
    rows = [[name, f'{error:.1e}'] for name, error in checks['golden'].items()]
    parts += [
      'Largest relative error against the published implementation:',
      printed.markdown(['', 'error'], rows),
    ]
  if 'gradients' in checks:
    parts += [
      'One pre-training step in float32, accelerator against CPU, relative errors of '
      'the loss, of the gradient, and of the parameter with the largest error:',
      printed.markdown(
        ['loss', 'loss value', 'gradient', 'worst parameter', ''],
        [
          [
            method,
            f'{row["loss"]:.1e}',
            f'{row["gradient"]:.1e}',
            f'{row["worst"]:.1e}',
            f'`{row["parameter"]}`',
          ]
          for method, row in checks['gradients'].items()
        ],
      ),
    ]
  for name in ('resume', 'resume_deterministic'):
    if name in checks:
      parts.append(_resume(name, checks[name]))
  return '\n\n'.join(parts)


def _resume(name: str, check: dict[str, Any]) -> str:
  flags = ' with deterministic operations' if name.endswith('deterministic') else ''
  differing = check['differences']
  ends = (
    f'other values than an undisturbed run in {len(differing)} arrays '
    f'({", ".join(differing[:3])}, …)'
    if differing
    else 'the same bits as an undisturbed run'
  )
  if check['exit_code'] != -9:
    return f'A run{flags} ended with code {check["exit_code"]} before it was killed.'
  return (
    f'Killed after checkpoint {check["killed_after"]} and started again{flags}: ends '
    f'with {ends}.'
  )


def _comparison(rows: Sequence[dict[str, Any]]) -> str:
  cells = []
  for row in rows:
    for framework in ('jax', 'torch'):
      if not row.get(framework):
        continue
      of = row[framework]
      cells.append(
        [
          row['case'],
          framework + ('' if of.get('is_compiled', True) else ', not compiled'),
          row['batch_size'],
          _range(of['on_device']),
          _range(of['with_loader']),
          _share(_median(of['data_wait'])),
          _bytes(of.get('peak_bytes')),
          _number(of.get('compile_s')),
        ]
      )
    if row.get('ratio'):
      with_loader = row['ratio'].get('with_loader')
      cells.append(
        [
          row['case'],
          'jax / torch',
          row['batch_size'],
          _factor(row['ratio'].get('on_device')),
          _factor(with_loader),
          '',
          '',
          '',
        ]
      )
  text = (
    'bfloat16, BYOL, no augmentation but the crop, SGD. Images per second, median and '
    'range of rounds that take turns.'
  )
  header = [
    'case',
    'in',
    'batch',
    'batch on the device',
    'with loader',
    'data wait',
    'peak GiB',
    'compile s',
  ]
  return f'{text}\n\n{printed.markdown(header, cells)}'


def _steps(rows: Sequence[dict[str, Any]]) -> str:
  header = [
    'case',
    'loss',
    'batch',
    'images/s on the device',
    'with loader',
    'data wait',
    'TFLOP/s',
    'MFU',
    'peak GiB',
    'compile s',
  ]
  cells = [
    [
      row['case'],
      row['method'],
      row['batch_size'],
      _number(row.get('on_device')),
      _number(row.get('with_loader')),
      _share(row.get('data_wait_share')),
      _number(row.get('tflops')),
      _share(row.get('utilisation')),
      _bytes(row.get('peak_bytes')),
      _number(row.get('compile_s')),
    ]
    for row in rows
  ]
  text = (
    'bfloat16, two views, target network, augmentation and optimiser of the '
    'configuration. TFLOP/s and MFU are of the networks alone, by `benchmarks.step`. '
    'Programs were compiled several at a time.'
  )
  return f'{text}\n\n{printed.markdown(header, cells)}'


def _loss(loss: dict[str, Any]) -> str:
  rows = loss['rows']
  sizes = sorted({row['batch_size'] for row in rows})
  by_key = {(row['method'], row['batch_size']): row for row in rows}
  cells = [
    [method, *(_loss_cell(by_key.get((method, size))) for size in sizes)]
    for method in dict.fromkeys(row['method'] for row in rows)
  ]
  text = (
    'Forward and backward in float32, d = 256, M = 4: milliseconds, median and range; '
    'MiB of temporary memory; share of the ResNet-50 step of as many images, where '
    'that was measured.'
  )
  return f'{text}\n\n{printed.markdown(["loss", *(f"B = {x}" for x in sizes)], cells)}'


def _loss_cell(row: dict[str, Any] | None) -> str:
  if not row:
    return ''
  if 'error' in row:
    memory = 'out of memory' in row['error'] or 'RESOURCE_EXHAUSTED' in row['error']
    return 'out of memory' if memory else row['error'][:60]
  share = f'; {row["share"]:.2%}' if 'share' in row else ''
  return (
    f'{row["milliseconds"]:.3g} ({row["from"]:.3g} to {row["to"]:.3g}; '
    f'{row["temporary_bytes"] / 2**20:.0f} MiB{share})'
  )


def _profile(profile: dict[str, Any]) -> str:
  kinds = ', '.join(
    f'{name} {profile["kinds"][name]:.0%}'
    for name in kernel_trace.KINDS
    if name in profile['kinds']
  )
  cells = [
    [
      f'`{kernel["name"][:70]}`',
      f'`{kernel["operation"][:40]}`' if kernel['operation'] else '',
      kernel['kind'],
      kernel['calls'],
      _number(kernel['milliseconds']),
      _share(kernel['share']),
    ]
    for kernel in profile['kernels']
  ]
  header = ['kernel', 'operation', 'kind', 'calls', 'ms', 'share']
  return (
    f'{profile["case"]}, {profile["method"]}, batch {profile["batch_size"]}: {kinds}.'
    f'\n\n{printed.markdown(header, cells)}'
  )


def _variants(rows: Sequence[dict[str, Any]]) -> str:
  cells = [
    [
      row['variant'],
      row['batch_size'],
      _number(row['on_device']),
      _factor(row.get('ratio')),
      _bytes(row.get('peak_bytes')),
      _bytes(row.get('device_bytes')),
    ]
    for row in rows
  ]
  header = ['variant', 'batch', 'images/s', 'of the baseline', 'peak GiB', 'needs GiB']
  return f'{rows[0]["case"]}, {rows[0]["method"]}.\n\n{printed.markdown(header, cells)}'


def _facts(facts: dict[str, Any]) -> str:
  return printed.markdown(['', ''], [[name, value] for name, value in facts.items()])


def _median(values: Sequence[float]) -> float | None:
  return statistics.median(values) if values else None


def _range(values: Sequence[float]) -> str:
  if not values:
    return ''
  return (
    f'{_number(_median(values))} ({_number(min(values))} to {_number(max(values))})'
  )


def _number(value: float | None) -> str:
  if value is None:
    return ''
  return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def _share(value: float | None) -> str:
  return '' if value is None else f'{value:.1%}'


def _factor(value: float | None) -> str:
  return '' if value is None else f'{value:.2f}×'


def _bytes(value: float | None) -> str:
  return '' if value is None else f'{value / 2**30:.1f}'
