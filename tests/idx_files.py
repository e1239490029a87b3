"""Makes small files in IDX format."""

import numpy as np


def encode(array, type_code=0x08):
  """The bytes of an array in IDX format; type 0x08 is uint8, 0x0C is int32."""
  header = bytes([0, 0, type_code, array.ndim]) + np.array(array.shape, '>u4').tobytes()
  return header + array.astype(array.dtype.newbyteorder('>')).tobytes()
