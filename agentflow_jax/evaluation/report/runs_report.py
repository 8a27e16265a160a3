"""write_runs: run directories -> a page with their trajectories to browse.

One run gets the page of report.py with the viewer in it, several get a
comparison. Reads the recordings, so unlike report.py it needs numpy and the
run's tokenizer.
"""

import os
import pathlib
from collections.abc import Sequence

from agentflow_jax.core import errors
from agentflow_jax.evaluation.report import (
  comparison,
  markup,
  page,
  recordings,
  report,
  run_data,
)
from agentflow_jax.evaluation.report import viewer as viewer_lib


def write_runs(
  run_dirs: Sequence[str | os.PathLike[str]],
  out: str | os.PathLike[str] | None = None,
  *,
  max_trajectories: int,
) -> pathlib.Path:
  """Writes a page about one run, or a comparison of several, with the viewer.

  Args:
    run_dirs: one to `comparison.MAX_RUNS` directories.
    out: where to write; None = RUN_DIR/report.html of a single run.
    max_trajectories: of all runs together; 0 leaves the viewer out.

  Raises:
    UserError: a directory is missing, or holds nothing of a run that can be
      read; there are too many, or the same twice; `out` is missing for
      several, or can not be written.
  """
  sources = [report.directory(run_dir) for run_dir in run_dirs]
  _check_number(sources, out)
  runs = [run_data.load(source) for source in sources]
  for source, run in zip(sources, runs, strict=True):
    _check_not_empty(source, run)
  labels = _labels(sources)
  target = pathlib.Path(out) if out is not None else sources[0] / report.NAME

  def render(viewer: markup.Html | None) -> str:
    if len(runs) > 1:
      return comparison.render(runs, labels, viewer)
    beside = _beside(target, sources[0])
    return page.render(runs[0], link_config=beside, viewer=viewer)

  text = render(None)
  if max_trajectories:
    left = viewer_lib.MAX_BYTES - len(text.encode())
    text = render(
      viewer_lib.viewer(runs, sources, labels, max_trajectories, left)
    )
  return report.write(target, text)


def _check_number(
  sources: Sequence[pathlib.Path], out: str | os.PathLike[str] | None
) -> None:
  if len(sources) > comparison.MAX_RUNS:
    raise errors.UserError(
      f"{len(sources)} runs are too many: at most {comparison.MAX_RUNS} can be "
      "told apart"
    )
  if len({source.resolve() for source in sources}) < len(sources):
    raise errors.UserError("the same run directory is named twice")
  if len(sources) > 1 and out is None:
    raise errors.UserError("several runs need --out=FILE")


def _check_not_empty(source: pathlib.Path, run: run_data.RunData) -> None:
  if run.metrics or run.evaluations or run.before or run.after:
    return
  if recordings.find([source], recordings.Notes()):
    return
  why = run.notes[0].rstrip(".") if run.notes else "no run wrote there"
  raise errors.UserError(
    f"{source} holds no readable {run_data.METRICS}, {run_data.EVALUATIONS} or "
    f"rollouts/: {why}"
  )


def _labels(sources: Sequence[pathlib.Path]) -> list[str]:
  """Folder names, with as many parents as it takes to tell them apart."""
  parts = [source.resolve().parts for source in sources]
  longest = max(map(len, parts))
  for depth in range(1, longest + 1):
    labels = ["/".join(one[-depth:]) for one in parts]
    if len(set(labels)) == len(labels):
      return labels
  raise AssertionError("the same run directory twice")


def _beside(target: pathlib.Path, source: pathlib.Path) -> bool:
  return target.parent.resolve() == source.resolve()
