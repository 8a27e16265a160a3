r"""Turns a file of questions into a dataset that runs can name.

Known datasets: flow_mix, nq_open, hotpotqa, two_wiki, musique, popqa,
triviaqa, bamboogle, gsm8k, math, aime, amc, game24, gpqa, medqa, gaia (you
supply the files; gpqa and gaia are gated). Any other file: --dataset=custom
with --name, --columns and --scorer. A source is a file (.jsonl, .json, .csv,
.tsv, .parquet, .arrow; .gz too) or a folder of such files, like a Hugging Face
dataset's. Questions of gaia that need an attachment are left out and counted.

Bad rows are written to quarantine.jsonl with file, line and reason; above 1 %
the source is refused. With --scorer=evidence an answer counts if all pages it
rests on were found (supporting_facts, paragraphs, or gold_pids with
--passages). With --held_out, questions that are in one of those
sets as well (equal, or 8-gram Jaccard of .5) are left out and quarantined.

Example:
  python launch/prepare_data.py --dataset=gsm8k --source=gsm8k/train.jsonl \
    --data_dir=data
  python launch/prepare_data.py --dataset=custom --name=quiz --scorer=qa_match \
    --source=quiz.parquet --columns=question=prompt,answers=gold --data_dir=data
  python launch/prepare_data.py --dataset=two_wiki --source=two_wiki.jsonl \
    --passages=corpus.jsonl --scorer=evidence --data_dir=data
  python launch/train.py --config.tasks.data_dir=data \
    --config.tasks.train=mix:tfds:gsm8k@1,tfds:quiz@3
"""

import dataclasses
import pathlib

from absl import flags, logging

from agentflow_jax.core import errors, task_specs
from agentflow_jax.rewards import registry
from agentflow_jax.tasks import sources
from agentflow_jax.tasks.datasets import (
  checking,
  corpora,
  evidence,
  formats,
  overlap,
  raw_rows,
  store,
)
from agentflow_jax.training import cli

_CUSTOM = "custom"
_CUSTOM_SCORER = "qa_match"
_DATASET = flags.DEFINE_enum(
  "dataset", None, [*formats.FORMATS, _CUSTOM], "What it is.", required=True
)
_SOURCE = flags.DEFINE_string(
  "source", None, "A file, or a folder of data files.", required=True
)
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Where datasets are kept.", required=True
)
_NAME = flags.DEFINE_string(
  "name", "", "The dataset's name in tfds:NAME; else that of --dataset."
)
_SPLIT = flags.DEFINE_string(
  "source_split", "", "Which split of a folder that has several."
)
_COLUMNS = flags.DEFINE_string(
  "columns", "", "For custom: id=..,question=..,answers=..,options=..,family=.."
)
_SCORER = flags.DEFINE_enum(
  "scorer", None, sorted(registry.NAMES), "The rule, if not the dataset's own."
)
_PASSAGES = flags.DEFINE_string(
  "passages", "", "The corpus whose ids a column gold_pids names."
)
_ONLY_WITH_EVIDENCE = flags.DEFINE_bool(
  "only_with_evidence", False, "Leave out rows that name no supporting page."
)
_HELD_OUT = flags.DEFINE_list(
  "held_out", [], "Task sources (tfds:NAME, jsonl:PATH) not to be trained on."
)
_OVERWRITE = flags.DEFINE_bool(
  "overwrite", False, "Replace other questions of the same name."
)


def main(argv: list[str]) -> None:
  del argv
  name = _NAME.value or _DATASET.value
  if not task_specs.is_dataset_name(name):
    raise errors.UserError(
      f"--name={name}: lower-case letters, digits and _ only"
    )
  rows = raw_rows.read(pathlib.Path(_SOURCE.value), _SPLIT.value)
  if _PASSAGES.value:
    passages = corpora.passages(pathlib.Path(_PASSAGES.value))
    rows = evidence.name_pids(
      rows,
      {pid: evidence.beginning(title, text) for pid, title, text in passages},
    )
  if _ONLY_WITH_EVIDENCE.value:
    rows = evidence.without_unnamed(rows)
  checked = checking.check(rows, _format(), name)
  checked = without_held_out(checked, _HELD_OUT.value, _DATA_DIR.value)
  about = store.write(
    _DATA_DIR.value,
    name,
    checked,
    source=_SOURCE.value,
    overwrite=_OVERWRITE.value,
  )
  left_out = f" ({about['left_out']})" if about["left_out"] else ""
  print(
    f"tfds:{name}: {about['questions']} questions{left_out}, "
    f"{about['quarantined']} rows quarantined, in "
    f"{store.directory(_DATA_DIR.value, name)}"
  )


def without_held_out(
  checked: checking.Checked, specs: list[str], data_dir: str
) -> checking.Checked:
  """Moves what overlaps with a held-out source to the bad rows."""
  reasons = {}
  for spec in specs:
    source = sources.open_source(spec, data_dir, sources.HELD_OUT)
    index = overlap.OverlapIndex(source[i] for i in range(len(source)))
    for found in index.find(checked.tasks):
      kind = "equal to" if found.exact else f"{found.likeness:.2f} like"
      reasons.setdefault(
        found.task_id,
        f"{found.task_id} is {kind} {found.other_id} of {spec}",
      )
  logging.info("%d questions overlap with held-out ones", len(reasons))
  if len(reasons) == len(checked.tasks):
    raise errors.UserError("every question is in a --held_out set")
  return dataclasses.replace(
    checked,
    tasks=[task for task in checked.tasks if task.id not in reasons],
    bad=[
      *checked.bad,
      *(
        checking.BadRow(place=checked.places[task_id], reason=reason)
        for task_id, reason in reasons.items()
      ),
    ],
  )


def _format() -> formats.Format:
  if _DATASET.value != _CUSTOM:
    if _COLUMNS.value:
      raise errors.UserError("--columns is for --dataset=custom")
    own = formats.FORMATS[_DATASET.value]
    return formats.with_scorer(own, _SCORER.value) if _SCORER.value else own
  if not _NAME.value:
    raise errors.UserError("--dataset=custom needs a --name")
  try:
    columns = formats.ColumnMap.parse(
      _COLUMNS.value, _SCORER.value or _CUSTOM_SCORER
    )
  except ValueError as error:
    raise errors.UserError(f"--columns: {error}") from error
  return formats.custom(columns)


if __name__ == "__main__":
  cli.run_app(main)
