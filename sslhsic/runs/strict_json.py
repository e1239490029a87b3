"""JSON that every parser reads: what is not finite becomes null."""

import json
import math
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
  """Writes JSON types and arrays; other objects, which should not be there, as text.

  Python would write NaN and Infinity, which are no JSON.
  """
  return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
  if isinstance(value, float):  # And NumPy's float64.
    return value if math.isfinite(value) else None
  if isinstance(value, dict):
    return {name: _finite(x) for name, x in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(x) for x in value]
  if value is None or isinstance(value, bool | int | str):
    return value
  return _finite(value.tolist()) if hasattr(value, 'tolist') else str(value)
