"""write_report: RUN_DIR -> RUN_DIR/report.html, readable without a network.

run_data reads the files, page renders, this module writes. The page holds six
of the recorded questions, never the recordings themselves; runs_report.py
writes pages with those.
"""

import os
import pathlib

from absl import logging

from agentflow_jax.core import errors
from agentflow_jax.evaluation.report import page, run_data

NAME = "report.html"


def write_report(
  run_dir: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Writes one self-contained HTML page about a run and returns its path.

  Reads metrics.jsonl, evaluations.jsonl, rollouts/evaluation/before.jsonl and
  after.jsonl, and config.json; each may be missing and is then replaced by a
  sentence. The same files give the same bytes.

  Args:
    run_dir: the run's directory.
    out: where to write; None = RUN_DIR/report.html. Missing folders are made,
      and an existing page is replaced in one step.

  Raises:
    UserError: `run_dir` is no directory, or `out` can not be written.
  """
  source = directory(run_dir)
  target = pathlib.Path(out) if out is not None else source / NAME
  beside = target.parent.resolve() == source.resolve()
  return write(target, page.render(run_data.load(source), link_config=beside))


def directory(run_dir: str | os.PathLike[str]) -> pathlib.Path:
  """The path of a run directory; UserError if there is none."""
  source = pathlib.Path(run_dir)
  if not source.is_dir():
    raise errors.UserError(f"no run directory at {source}")
  return source


def write(target: pathlib.Path, text: str) -> pathlib.Path:
  """Puts a page in its place in one step; UserError if that can not be."""
  temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(target)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise errors.UserError(
      f"can not write the report to {target}: {error.strerror}"
    ) from error
  logging.info("wrote %s (%d KiB)", target, len(text) // 1024)
  return target
