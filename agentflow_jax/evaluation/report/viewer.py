"""The viewer of recorded trajectories: a form, a list, one trajectory.

This module writes the empty parts and the data; assets/viewer.js fills them.
"""

import pathlib
from collections.abc import Sequence

from agentflow_jax.core import errors
from agentflow_jax.evaluation.report import (
  document,
  markup,
  recordings,
  run_data,
  viewer_data,
  viewer_texts,
)
from agentflow_jax.hf import tokenizer as tokenizer_lib

tag = markup.tag

# Of the whole page.
MAX_BYTES = 20 * 10**6
# Of it for the section around the data, its notes, style and script.
_SHELL_BYTES = 128 * 1024
_MAX_NOTES = 20
_DATA_ID = "trajectory-data"
_LIMIT = f"a page holds {MAX_BYTES // 10**6} MB"
_ADVANTAGES = (
  "Advantages are not recorded: they are computed again from the rewards of "
  "each recorded group."
)
_TOKENIZERS = ("model/tokenizer", "tokenizer")
# (name in viewer.js, label); the script fills in what there is.
_FILTERS = (
  ("run", "Run"),
  ("split", "Split"),
  ("step", "Step"),
  ("family", "Task family"),
  ("outcome", "Outcome"),
  ("stop", "Stop reason"),
)
_SHADES = (("logprob", "logprob"), ("advantage", "advantage"), ("", "nothing"))


def viewer(
  runs: Sequence[run_data.RunData],
  run_dirs: Sequence[pathlib.Path],
  labels: Sequence[str],
  max_trajectories: int,
  max_bytes: int,
) -> markup.Html:
  """The section with the runs' recordings.

  Args:
    runs: what the run directories hold besides.
    run_dirs: where the recordings are.
    labels: what the runs are called.
    max_trajectories: at most so many of all runs together.
    max_bytes: by which the section may lengthen the page, as UTF-8.
  """
  notes = recordings.Notes()
  files = recordings.find(run_dirs, notes)
  learners = [
    run_data.mapping(run_data.mapping(run.config).get("learner"))
    for run in runs
  ]
  data = viewer_data.build(
    recordings.take(files, learners, max_trajectories, notes),
    labels,
    [_decoder(run_dir) for run_dir in run_dirs],
    max_bytes - _SHELL_BYTES,
  )
  total = sum(file.lines for file in files)
  has_training = any(file.split == recordings.TRAINING for file in files)
  if not data.shown:
    return _section(_nothing(data), _notes(notes))
  return _section(
    tag("p", _amount(data, total), class_="note", id="viewer-amount"),
    tag("p", _ADVANTAGES, class_="note") if has_training else None,
    _notes(notes),
    tag(
      "noscript",
      tag("p", "The viewer needs JavaScript.", class_="missing card"),
    ),
    _parts(len(runs)),
    document.data_block(_DATA_ID, data.value),
  )


def _section(*content: markup.Child) -> markup.Html:
  name, title = document.VIEWER_SECTION
  return tag(
    "section",
    tag("h2", title, id=f"{name}-title"),
    *content,
    id=name,
    aria_labelledby=f"{name}-title",
  )


def _nothing(data: viewer_data.ViewerData) -> markup.Html:
  """Why there is no trajectory."""
  sentence = "No readable trajectory was recorded."
  if not data.full:
    sentence = f"No recorded trajectory fits: {_LIMIT}."
  return tag("p", sentence, class_="missing card")


def _parts(runs: int) -> markup.Html:
  """What the script fills and shows."""
  return tag(
    "div",
    _form(runs),
    tag(
      "div",
      tag("div", _list(), class_="viewer-side"),
      tag(
        "article",
        id="viewer-one",
        class_="card",
        tabindex="-1",
        aria_label="The chosen trajectory",
      ),
      class_="viewer-parts",
    ),
    id="viewer",
    hidden=True,
  )


def _amount(data: viewer_data.ViewerData, total: int) -> str:
  """What is here of what was recorded, and why not more."""
  if data.shown == total:
    return f"Recorded trajectories: {total:,}, all of them here."
  said = f"Showing {data.shown:,} of {total:,} recorded trajectories"
  if not data.full:
    return f"{said}: {_LIMIT}."
  return f"{said}, spread over the run; --max_trajectories=N shows more."


def _notes(notes: recordings.Notes) -> list[markup.Html]:
  lines = notes.lines[:_MAX_NOTES]
  if len(notes.lines) > _MAX_NOTES:
    lines.append(f"Not shown: {len(notes.lines) - _MAX_NOTES} more such notes.")
  return [tag("p", line, class_="note") for line in lines]


def _form(runs: int) -> markup.Html:
  fields = [
    tag("label", label, tag("select", name=name))
    for name, label in _FILTERS
    if name != "run" or runs > 1
  ]
  fields.append(tag("label", "Text", _text_field()))
  shades = [
    tag("option", label, value=value or "nothing") for value, label in _SHADES
  ]
  fields.append(
    tag("label", "Shade tokens by", tag("select", shades, name="shade"))
  )
  return tag(
    "form",
    fields,
    tag("button", "Show all", type_="reset"),
    class_="card viewer-form",
  )


def _text_field() -> markup.Html:
  return tag(
    "input",
    type_="search",
    name="text",
    placeholder="question or answer ( / )",
  )


def _list() -> list[markup.Html]:
  return [
    tag(
      "div",
      tag(
        "button", "‹", type_="button", id="viewer-back", aria_label="Page back"
      ),
      tag("span", id="viewer-page", aria_live="polite"),
      tag("button", "›", type_="button", id="viewer-on", aria_label="Page on"),
      class_="viewer-pages",
    ),
    tag("ol", id="viewer-list"),
    tag(
      "p",
      "Keys: ↑ ↓ one on, ← → a page on, Home and End to the first and last, "
      "Enter to the trajectory, Escape back to the list, / to the text field.",
      class_="note",
    ),
  ]


def _decoder(run_dir: pathlib.Path) -> viewer_texts.Decode | None:
  """Id -> text with the run's tokenizer; None if it has none we can read."""
  for name in _TOKENIZERS:
    try:
      tokenizer = tokenizer_lib.HfTokenizer.from_directory(run_dir / name)
    except errors.CheckpointError:
      continue
    return lambda token, decode=tokenizer.decode: decode([token])
  return None
