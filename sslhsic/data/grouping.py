"""An endless shuffled order in which every batch has rows of one group only.

Worker processes import this module, without JAX.
"""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np


@dataclasses.dataclass(frozen=True)
class GroupedOrder:
  """Index in the endless stream -> row of the source.

  A function of the seed alone. Within a group, each row comes once an epoch of the
  group. Batches of the groups take turns in proportion to the sizes of the groups: with
  n₁ of n rows in the second group, ⌊t·n₁/n⌋ of the first t batches are of it.

  Attributes:
    rows: of each of two groups.
    orders: endless, of the positions in each of them; None of one without rows.
    batch_size: B, indices [t·B, (t + 1)·B) are batch t.
  """

  rows: tuple[np.ndarray, np.ndarray]
  orders: tuple[Sequence[int] | None, Sequence[int] | None]
  batch_size: int

  def __getitem__(self, index: int) -> int:
    batch, place = divmod(index, self.batch_size)
    second = self._second_before(batch)
    # ⌊(t + 1)·n₁/n⌋ − ⌊t·n₁/n⌋: 1 if batch t is of the second group, else 0.
    group = self._second_before(batch + 1) - second
    number = second if group else batch - second  # Of the batch in its group.
    position = self.orders[group][number * self.batch_size + place]
    return int(self.rows[group][position])

  def _second_before(self, batch: int) -> int:
    """How many batches before this one are of the second group."""
    first, second = map(len, self.rows)
    return batch * second // (first + second)


def create(groups: np.ndarray, batch_size: int, seed: int) -> GroupedOrder:
  """The order of rows whose group is given.

  Args:
    groups: [n] bool, of every row.
    batch_size: B of the global batch.
    seed: of the order.
  """
  rows = np.flatnonzero(~groups), np.flatnonzero(groups)
  orders = tuple(
    grain.MapDataset.range(len(x)).seed(seed).shuffle().repeat() if len(x) else None
    for x in rows
  )
  return GroupedOrder(rows, orders, batch_size)
