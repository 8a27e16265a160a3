"""launch/prepare_data.py for every dataset it knows, read back through TFDS."""

import csv
import gzip
import importlib.util
import json
import pathlib

import pyarrow as pa
import pytest
from absl import flags
from absl.testing import flagsaver
from pyarrow import parquet

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import formats, store

_ROOT = pathlib.Path(__file__).parents[2]
_DATA = _ROOT / "../shared/data"


@pytest.fixture(scope="module")
def script():
  """The script as a module; its flags are gone again afterwards."""
  path = _ROOT / "launch" / "prepare_data.py"
  spec = importlib.util.spec_from_file_location("_prepare_data", path)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  yield module
  for flag in vars(module).values():
    if isinstance(flag, flags.FlagHolder):
      delattr(flags.FLAGS, flag.name)


@pytest.fixture
def prepare(script, tmp_path, capsys):
  """Runs it: (dataset, source, *arguments) -> its last line, the records."""

  def run(name, source, *arguments):
    import tensorflow_datasets as tfds

    given = {f"--dataset={name}", f"--source={source}", *arguments}
    with flagsaver.flagsaver():
      flags.FLAGS(["prepare_data.py", f"--data_dir={tmp_path}/data", *given])
      script.main([])
      name = script._NAME.value or name
    folder = store.directory(tmp_path / "data", name) / "task_dataset" / name
    builder = tfds.builder_from_directory(folder / "1.0.0")
    records = [_plain(r) for r in builder.as_data_source(split="questions")]
    return capsys.readouterr().out.splitlines()[-1], records

  return run


def _plain(record):
  """A TFDS record as texts and lists of texts."""
  return {
    name: value.decode()
    if isinstance(value, bytes)
    else [text.decode() for text in value]
    for name, value in record.items()
  }


def _quarantine(tmp_path, name):
  path = store.directory(tmp_path / "data", name) / "quarantine.jsonl"
  return [json.loads(line) for line in path.read_text().splitlines()]


def _jsonl(path, *rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _json(path, *rows):
  path.write_text(json.dumps(rows))


def _parquet(path, *rows):
  parquet.write_table(pa.Table.from_pylist(rows), path)


def _table(path, *rows):
  """As pandas writes it: quotes where they are needed, "" for None."""
  with path.open("w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(
      file,
      list(rows[0]),
      delimiter="\t" if path.suffix == ".tsv" else ",",
      lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)


_CONTEXT = [["Laos", ["A country.", "Its capital is Vientiane."]]]
_MULTIHOP = {
  "_id": "5ab",
  "answer": "Vientiane",
  "question": "Capital of where Ann sings?",
  "supporting_facts": [["Laos", 1], ["Ann", 0]],
  "context": _CONTEXT,
  "type": "bridge",
}
_TRIVIA = {
  "question": "Which hills?",
  "question_id": "tc_2",
  "question_source": "http://quiz/",
  "entity_pages": {"title": [], "filename": []},
  "answer": {
    "aliases": ["Cotswolds", "Cotswold"],
    "normalized_aliases": ["cotswold", "cotswolds"],
    "type": "WikipediaEntity",
    "value": "The Cotswolds",
  },
}
_POPQA = {
  "id": 4222362,
  "subj": "George Rankin",
  "prop": "occupation",
  "obj": "politician",
  "s_pop": 142,
  "question": "What is George Rankin's occupation?",
  "possible_answers": '["politician", "political leader"]',
}
_GPQA = {
  "Pre-Revision Question": 'Old, "draft"\ntext',
  "Question": "Two states have energies E1, E2,\nas shown:\n\n1) which?",
  "Correct Answer": "10^-4 eV\n",
  "Incorrect Answer 1": "10^-11 eV",
  "Incorrect Answer 2": "10^-8 eV, or so",
  "Incorrect Answer 3": "10^-9 eV",
  "Explanation": "",
  "Record ID": "rec06pnAkLOr2t2mp",
  "Canary String": "x",
}
_MEDQA = {
  "question": "Which drug?",
  "answer": "Nitrofurantoin",
  "options": {"A": "Ampicillin", "B": "Nitrofurantoin", "C": "Ceftriaxone"},
  "meta_info": "step2&3",
  "answer_idx": "B",
  "metamap_phrases": ["drug"],
}
_MUSIQUE = {
  "id": "2hop__1_2",
  "paragraphs": [
    {"idx": 0, "title": "Green", "paragraph_text": "x", "is_supporting": True},
    {"idx": 1, "title": "Red", "paragraph_text": "y", "is_supporting": False},
  ],
  "question": "Who is the spouse of the Green performer?",
  "question_decomposition": [{"id": 1, "question": "Green >> performer"}],
  "answer": "Miquette Giraudy",
  "answer_aliases": ["M. Giraudy"],
  "answerable": True,
}
_FLOW = {
  "id": 3,
  "question": "who sang it",
  "chain": "",
  "result": "Ann; Bob",
  "source": "nq",
  "extra_info": {"ground_truth": "Ann; Bob", "idx": 3},
}

# Dataset -> file as published, its writer, its first row, and the record's id
# (None: made from the question), question (None: as in the row) and answers.
_LAYOUTS = {
  "flow_mix": (
    *("combined_train.parquet", _parquet, _FLOW),
    *("3", None, ["Ann", "Bob"]),
  ),
  "nq_open": (
    *("NQ-open.dev.jsonl", _jsonl),
    {"question": "who told it", "answer": ["Jesus", "Christ"]},
    *(None, None, ["Jesus", "Christ"]),
  ),
  "hotpotqa": (
    *("hotpot_dev_distractor_v1.json", _json, _MULTIHOP),
    *("5ab", None, ["Vientiane"]),
  ),
  "two_wiki": (*("dev.json", _json, _MULTIHOP), *("5ab", None, ["Vientiane"])),
  "musique": (
    *("musique_ans_v1.0_dev.jsonl", _jsonl, _MUSIQUE),
    *("2hop__1_2", None, ["Miquette Giraudy", "M. Giraudy"]),
  ),
  "popqa": (
    *("test.tsv", _table, _POPQA),
    *("4222362", None, ["politician", "political leader"]),
  ),
  "triviaqa": (
    *("validation-00000-of-00001.parquet", _parquet, _TRIVIA),
    *("tc_2", None, ["The Cotswolds", "Cotswolds", "Cotswold"]),
  ),
  "bamboogle": (
    *("Bamboogle Prerelease - Sheet1.csv", _table),
    {"Question": "Who was president, then?", "Answer": "James Madison"},
    *(None, "Who was president, then?", ["James Madison"]),
  ),
  "gsm8k": (
    *("train.jsonl", _jsonl),
    {"question": "How many?", "answer": "500*2=<<500*2=1000>>\n#### 1,000"},
    *(None, None, ["1000"]),
  ),
  "math": (
    *("train-00000-of-00001.parquet", _parquet),
    {
      "problem": "Find $x$.",
      "level": "Level 5",
      "type": "Algebra",
      "solution": "So $x = \\boxed{\\frac{1}{2}}$.",
    },
    *(None, "Find $x$.", ["\\frac{1}{2}"]),
  ),
  "aime": (
    *("aime_2024_problems.parquet", _parquet),
    {"ID": "2024-II-4", "Problem": "Find it.", "Solution": "", "Answer": 33},
    *("2024-II-4", "Find it.", ["33"]),
  ),
  "amc": (
    *("train-00000-of-00001.parquet", _parquet),
    {"id": 7, "problem": "Find it.", "answer": 142.0, "url": "https://x"},
    *("7", "Find it.", ["142"]),
  ),
  "game24": (
    *("24.csv", _table),
    {
      "Rank": 1,
      "Puzzles": "1 1 4 6",
      "AMT (s)": 4.4,
      "Solved rate": "99.20%",
      "1-sigma Mean (s)": 4.67,
      "1-sigma STD (s)": 1.48,
    },
    *("1", "Use each of the numbers 1, 1, 4, 6 exactly once", ["1 1 4 6"]),
  ),
  "gpqa": (
    *("gpqa_diamond.csv", _table, _GPQA),
    *("rec06pnAkLOr2t2mp", _GPQA["Question"], None),
  ),
  "medqa": (
    *("phrases_no_exclude_test.jsonl", _jsonl, _MEDQA),
    *(None, None, ["B", "Nitrofurantoin"]),
  ),
  "gaia": (
    *("metadata.jsonl", _jsonl),
    {
      "task_id": "c61d22de",
      "Question": "How many?",
      "Level": 2,
      "Final answer": "17",
      "file_name": "",
      "Annotator Metadata": {"Steps": "1. Count"},
    },
    *("c61d22de", "How many?", ["17"]),
  ),
}


def test_every_dataset_is_tested():
  assert set(_LAYOUTS) == set(formats.FORMATS)


@pytest.mark.parametrize("name", _LAYOUTS)
def test_a_file_as_it_is_published(tmp_path, prepare, name):
  file, write, row, row_id, question, answers = _LAYOUTS[name]
  more = _another(row)
  write(tmp_path / file, row, more)
  last, records = prepare(name, tmp_path / file)
  assert last.startswith(f"tfds:{name}: 2 questions, 0 rows quarantined")
  first, second = records
  assert first["id"].startswith(f"{name}/")
  assert first["id"] != second["id"]
  if row_id:
    assert first["id"] == f"{name}/{row_id}"
  assert first["question"].startswith(question or row["question"])
  if answers is not None:
    assert first["answers"] == answers
  else:  # GPQA: the right option's place is drawn
    letter, text = first["answers"]
    assert text == row["Correct Answer"].strip()
    assert f"\n{letter}. {text}" in first["question"]
    assert first["options"]["ABCD".index(letter)] == text


def _another(row):
  """The row with another id and another question."""
  changed = {
    **{name: f"{row[name]} Again?" for name in row if "uestion" in name},
    **{name: f"{row[name]}!" for name in ("problem", "Problem") if name in row},
  }
  if "Puzzles" in row:
    changed |= {"Rank": 2, "Puzzles": "1 1 11 11"}
  for name in ("question_id", "id", "_id", "ID", "task_id", "Record ID"):
    if name in row:
      other = row[name] + 1 if isinstance(row[name], int) else f"{row[name]}9"
      changed[name] = other
  for name in ("question_decomposition", "question_source"):
    changed.pop(name, None)
  return {**row, **changed}


def _listed(row):
  """The answers of a row of the shared files."""
  found = row["answers"] if "answers" in row else row["answer"]
  texts = found if isinstance(found, list) else [found]
  return list(dict.fromkeys(str(text).strip() for text in texts))


# Dataset -> a real file, the column of its question, its row's answers.
_REAL = {
  "nq_open": ("nq_open/efficientqa_test", "question", _listed),
  "hotpotqa": ("multihop_qa/hotpotqa_dev_ctx", "question", _listed),
  "two_wiki": ("multihop_qa/2wiki_train_ctx", "question", _listed),
  "musique": ("multihop_qa/musique_dev", "question", _listed),
  "popqa": ("open_qa/popqa_1000", "question", _listed),
  "triviaqa": ("open_qa/triviaqa_1000", "question", _listed),
  "bamboogle": ("open_qa/bamboogle", "question", _listed),
  "gsm8k": (
    "gsm8k/test",
    "question",
    lambda row: [row["answer"].split("#### ")[1].replace(",", "")],
  ),
  "math": ("math/math_test", "problem", _listed),
  "aime": ("math/aime_1983_2023", "problem", _listed),
  "amc": (
    "math/amc_2022_2023",
    "problem",
    lambda row: [f"{row['answer']:g}"],
  ),
  "game24": (
    "game24/tot_1362",
    None,
    lambda row: [" ".join(map(str, row["numbers"]))],
  ),
}


@pytest.mark.parametrize("name", _REAL)
def test_a_real_file(prepare, name):
  file, column, answers = _REAL[name]
  path = _DATA / f"{file}.jsonl.gz"
  if not path.exists():
    pytest.skip(f"no ../shared/data/{file}.jsonl.gz beside the repository")
  with gzip.open(path, "rt", encoding="utf-8") as lines:
    rows = [json.loads(line) for line in lines]
  last, records = prepare(name, path)
  count = f"tfds:{name}: {len(rows)} questions, 0 rows quarantined"
  assert last.startswith(count)
  assert [r["id"] for r in records] == [f"{name}/{row['id']}" for row in rows]
  if column:
    expected = [row[column].strip() for row in rows]
    assert [record["question"] for record in records] == expected
  else:
    for record, row in zip(records, rows, strict=True):
      assert ", ".join(map(str, row["numbers"])) in record["question"]
  assert [record["answers"] for record in records] == list(map(answers, rows))


def _gaia_rows(count, attachments):
  """The first of every few rows speaks of a file."""
  first = _LAYOUTS["gaia"][2]
  return [
    {
      **first,
      "task_id": f"t{n}",
      "Question": f"How many are {n}?",
      "file_name": f"t{n}.csv" if n % 4 == 0 and n < 4 * attachments else "",
    }
    for n in range(count)
  ]


def test_gaias_validation_folder_has_127_questions_without_files(
  tmp_path, prepare
):
  folder = tmp_path / "2023" / "validation"
  folder.mkdir(parents=True)
  rows = _gaia_rows(165, 38)
  _jsonl(folder / "metadata.jsonl", *rows)
  for row in rows:
    if row["file_name"]:
      (folder / row["file_name"]).write_text("Question,Answer\n1,2\n")
  last, records = prepare("gaia", folder)
  assert last.startswith(
    "tfds:gaia: 127 questions (38 rows need an attachment and are left out), "
    "0 rows quarantined"
  )
  expected = [f"gaia/{row['task_id']}" for row in rows if not row["file_name"]]
  assert [record["id"] for record in records] == expected
  about = store.read_about(tmp_path / "data", "gaia")
  assert about["left_out"] == "38 rows need an attachment and are left out"
  assert about["attachments"] == 38


def test_a_table_of_ones_own_by_its_columns(tmp_path, prepare):
  rows = [
    {"n": n, "prompt": f"Which, {n}?", "gold": "no", "of": '["yes", "no"]'}
    for n in range(150)
  ]
  _table(tmp_path / "quiz.csv", *rows)
  with (tmp_path / "quiz.csv").open("ab") as file:
    file.write(b"150,Which \xff?,no,\n")
  last, records = prepare(
    *("custom", tmp_path / "quiz.csv", "--name=quiz"),
    "--columns=id=n,question=prompt,answers=gold,options=of",
  )
  assert last.startswith("tfds:quiz: 150 questions, 1 rows quarantined")
  assert records[7]["id"] == "quiz/7"
  assert records[7]["options"] == ["yes", "no"]
  assert _quarantine(tmp_path, "quiz") == [
    {"place": f"{tmp_path}/quiz.csv:152", "reason": "not UTF-8"}
  ]


def test_held_out_questions_are_quarantined_with_their_line(tmp_path, prepare):
  rows = [
    {"question": f"who is {n}", "answer": [f"N{n}"], "id": n} for n in range(9)
  ]
  _jsonl(tmp_path / "q.jsonl", *rows)
  held = {"id": "h", "question": "Who is 5?", "answers": ["N5"]}
  _jsonl(tmp_path / "h.jsonl", held)
  spec = f"jsonl:{tmp_path}/h.jsonl"
  last, records = prepare("nq_open", tmp_path / "q.jsonl", f"--held_out={spec}")
  assert last.startswith("tfds:nq_open: 8 questions, 1 rows quarantined")
  assert "nq_open/5" not in [record["id"] for record in records]
  assert _quarantine(tmp_path, "nq_open") == [
    {
      "place": f"{tmp_path}/q.jsonl:6",
      "reason": f"nq_open/5 is equal to h of {spec}",
    }
  ]


def test_the_same_questions_with_other_bad_rows_are_counted_anew(
  tmp_path, prepare
):
  rows = [{"question": f"who is {n}", "answer": [f"N{n}"]} for n in range(300)]
  path = tmp_path / "q.jsonl"
  _jsonl(path, *rows, {"question": "bad"})
  assert "300 questions, 1 rows quarantined" in prepare("nq_open", path)[0]
  _jsonl(path, {"question": ""}, *rows, {"answer": "bad"})
  assert "300 questions, 2 rows quarantined" in prepare("nq_open", path)[0]
  kept = _quarantine(tmp_path, "nq_open")
  assert [row["place"] for row in kept] == [f"{path}:1", f"{path}:302"]
  _jsonl(path, *rows)
  assert "300 questions, 0 rows quarantined" in prepare("nq_open", path)[0]
  assert not _quarantine(tmp_path, "nq_open")
  _jsonl(path, *rows[1:])
  with pytest.raises(errors.UserError, match="holds other questions"):
    prepare("nq_open", path)
