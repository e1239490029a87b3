"""What is wrong with data, found while a job runs."""


class InputError(ValueError):
  """Data cannot be used; the message says which, why, and what to do, in one line."""


class DecodeError(ValueError):
  """An image cannot be decoded: it is corrupt, truncated, or no image."""
