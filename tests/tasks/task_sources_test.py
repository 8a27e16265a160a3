"""open_source: the embedded world and JSONL files, with exact errors."""

import gzip
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.core import errors
from agentflow_jax.core import task as task_lib
from agentflow_jax.tasks import sources

_ROW = {"id": "a", "question": "Who?", "answers": ["X", "Y"]}


def _write(path, *rows):
  lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  return f"jsonl:{path}"


def _open(spec):
  return sources.open_source(spec, "unused", "train")


def _error(spec):
  with pytest.raises(errors.UserError) as caught:
    _open(spec)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_rows_become_tasks(tmp_path):
  full = {
    **_ROW,
    "id": "b",
    "answers": "Z\u00e9",
    "data_source": "mine",
    "scorer": "numeric_match",
    "family": "hard",
    "evidence": ["X: One"],
    "difficulty": 3,
  }
  source = _open(_write(tmp_path / "q.jsonl", _ROW, "", full))
  assert len(source) == 2
  assert source[0] == task_lib.Task(
    id="a", question="Who?", answers=("X", "Y"), data_source="jsonl"
  )
  assert source[1] == task_lib.Task(
    id="b",
    question="Who?",
    answers=("Z\u00e9",),
    data_source="mine",
    scorer="numeric_match",
    family="hard",
    evidence=("X: One",),
  )
  assert source[-1] == source[1]
  with pytest.raises(IndexError):
    source[2]


def test_compressed_files(tmp_path):
  path = tmp_path / "q.jsonl.gz"
  with gzip.open(path, "wt") as file:
    file.write(json.dumps(_ROW))
  assert _open(f"jsonl:{path}")[0].id == "a"
  path.write_bytes(path.read_bytes()[:-9])
  assert str(path) in _error(f"jsonl:{path}")
  path.write_text("not gzip")
  assert "can not be read" in _error(f"jsonl:{path}")


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    ("{", "not JSON"),
    ("[1]", "not a JSON object"),
    ({**_ROW, "id": 3}, "'id' must be a text"),
    ({**_ROW, "id": " "}, "'id' must be a text"),
    ({"id": "b", "answers": "x"}, "'question' must be a text"),
    ({**_ROW, "question": ""}, "'question' must be a text"),
    ({"id": "b", "question": "?"}, "'answers' must be a text or a list"),
    ({**_ROW, "answers": []}, "'answers' must be a text or a list"),
    ({**_ROW, "answers": 5}, "'answers' must be a text or a list"),
    ({**_ROW, "answers": ["x", 5]}, "'answers' must be a text that"),
    ({**_ROW, "answers": ""}, "'answers' must be a text that"),
    ({**_ROW, "scorer": None}, "'scorer' must be a text"),
    ({**_ROW, "family": ["x"]}, "'family' must be a text"),
    ({**_ROW, "id": "first"}, "the id 'first' was used in line 1"),
  ],
)
def test_a_bad_row_is_named_by_its_place(tmp_path, row, reason):
  path = tmp_path / "q.jsonl"
  message = _error(_write(path, {**_ROW, "id": "first"}, "", row))
  assert message.startswith(f"{path}:3: {reason}")


def test_files_that_can_not_be_read(tmp_path):
  assert "there is no file" in _error(f"jsonl:{tmp_path / 'none.jsonl'}")
  assert "can not be read" in _error(f"jsonl:{tmp_path}")
  assert "has no questions" in _error(_write(tmp_path / "e.jsonl", ""))
  binary = tmp_path / "b.jsonl"
  binary.write_bytes(b"\xff\xfe{")
  assert "is not UTF-8" in _error(f"jsonl:{binary}")


@hypothesis.given(
  line=st.one_of(
    st.text(),
    st.recursive(
      st.none() | st.booleans() | st.floats() | st.text(),
      lambda inner: (
        st.lists(inner)
        | st.dictionaries(
          st.sampled_from(["id", "question", "answers", "scorer", "x"]), inner
        )
      ),
    ).map(json.dumps),
  )
)
@hypothesis.settings(
  max_examples=100,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_any_line_is_a_task_or_a_user_error(tmp_path, line):
  path = tmp_path / "fuzz.jsonl"
  path.write_text(line, encoding="utf-8", errors="replace")
  try:
    source = _open(f"jsonl:{path}")
  except errors.UserError:
    return
  assert all(isinstance(source[i].answers, tuple) for i in range(len(source)))


def test_unknown_specs_and_splits(tmp_path):
  with pytest.raises(errors.ConfigError, match="no tasks are called 'gsm8k'"):
    _open("gsm8k")
  with pytest.raises(errors.ConfigError, match="no split 'test'"):
    sources.open_source("worldfacts", tmp_path, "test")
  assert not list(tmp_path.iterdir())
