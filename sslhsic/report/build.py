"""The report on some runs, from their working directories to one page."""

from collections.abc import Sequence

from sslhsic import storage
from sslhsic.report import collect, encoders, page, sections


def build(directories: Sequence[storage.Path], num_encoders: int) -> str:
  """The page of all runs in these directories and below.

  Args:
    directories: where to look.
    num_encoders: how many encoders to look into.

  Raises:
    ValueError: there is no run.
  """
  found = collect.find(directories)
  pretrained = [run for run in found if run.is_pretraining]
  shown = [
    sections.tables(directories),
    sections.results(found),
    sections.differences(found),
    sections.curves(found),
    sections.approximations(pretrained),
    *encoders.sections(pretrained, num_encoders),
  ]
  title = f'Report on {", ".join(map(str, directories))}'
  return page.page(title, [section for section in shown if section.body])
