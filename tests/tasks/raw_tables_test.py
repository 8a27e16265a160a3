"""Bad rows of tables and JSON lists, and the folders `datasets` saves."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import checking, formats, raw_rows

_KINDS = ("parquet", "arrow", "json")
_BAD = 1100  # in the second batch that is read
_SCHEMA = pa.schema(
  {
    "id": pa.string(),
    "question": pa.string(),
    "answer": pa.list_(pa.string()),
  }
)


def _rows(count=1200, **bad):
  rows = [
    {"id": str(n), "question": f"Who is {n}?", "answer": [f"N{n}"]}
    for n in range(count)
  ]
  if bad:
    rows[_BAD] |= bad
  return rows


def _table(rows):
  """A string column is made of bytes, as a careless writer does it."""
  plain = [{**row, "question": None} for row in rows]
  table = pa.Table.from_pylist(plain, _SCHEMA)
  questions = [row["question"] for row in rows]
  raw = [q.encode() if isinstance(q, str) else q for q in questions]
  array = pa.array(raw, pa.binary())
  unchecked = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
  return table.set_column(1, "question", unchecked)


def _write_stream(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  table = _table(rows)
  with (
    pa.OSFile(str(path), "wb") as file,
    pa.ipc.new_stream(file, table.schema) as writer,
  ):
    writer.write_table(table, max_chunksize=1000)
  return path


def _write(path, rows):
  if path.suffix == ".parquet":
    parquet.write_table(_table(rows), path)
  elif path.suffix == ".arrow":
    _write_stream(path, rows)
  else:
    texts = [
      json.dumps(
        {
          key: value.decode("latin-1") if isinstance(value, bytes) else value
          for key, value in row.items()
        },
        ensure_ascii=False,
      )
      for row in rows
    ]
    path.write_bytes(f"[{', '.join(texts)}]".encode("latin-1"))
  return path


def _check(path):
  return checking.check(raw_rows.read(path), formats.FORMATS["nq_open"], "nq")


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
  ("bad", "reason"),
  [
    ({"question": b"Who is \xff?"}, "not UTF-8"),
    ({"question": "y" * 10_000_000}, "longer than"),
    ({"answer": ["y" * 10_000_000]}, "longer than"),
    ({"id": "7"}, "the id 'nq/7' is at"),
    ({"question": None}, "no field 'question'"),
    ({"question": " "}, "'question' is empty"),
    ({"answer": None}, "no field 'answers'"),
    ({"answer": []}, "'answer' is empty"),
    ({"answer": [None]}, "NoneType"),
  ],
)
def test_a_bad_row_is_quarantined_with_its_number(tmp_path, kind, bad, reason):
  path = _write(tmp_path / f"q.{kind}", _rows(**bad))
  checked = _check(path)
  assert [row.place for row in checked.bad] == [f"{path}:{_BAD + 1}"]
  assert reason in checked.bad[0].reason
  assert [task.id for task in checked.tasks] == [
    f"nq/{n}" for n in range(1200) if n != _BAD
  ]
  assert checked.places["nq/1199"] == f"{path}:1200"


def test_bad_utf8_is_found_in_a_nested_column(tmp_path):
  flat = _table(_rows(300))
  questions = flat["question"].to_pylist()
  raw = pa.array([q.encode() for q in questions[:-1]] + [b"\xc3("], pa.binary())
  text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
  nested = pa.StructArray.from_arrays([text], ["value"])
  parquet.write_table(
    flat.append_column("extra_info", nested), tmp_path / "q.parquet"
  )
  checked = _check(tmp_path / "q.parquet")
  assert [row.place for row in checked.bad] == [f"{tmp_path}/q.parquet:300"]


@pytest.mark.parametrize("kind", _KINDS)
def test_above_one_per_cent_of_bad_utf8_is_refused(tmp_path, kind):
  rows = _rows()
  for row in rows[:13]:
    row["question"] = b"\xff"
  path = _write(tmp_path / f"q.{kind}", rows)
  with pytest.raises(errors.UserError, match=r"13 of 1200 .*:1: not UTF-8"):
    _check(path)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_file_cut_off_is_refused(tmp_path, kind):
  path = _write(tmp_path / f"q.{kind}", _rows())
  whole = path.read_bytes()
  for length in (0, len(whole) // 2, len(whole) - 9):
    path.write_bytes(whole[:length])
    with pytest.raises(errors.UserError, match="cut off|no JSON list|no row"):
      _check(path)


def _save_to_disk(folder, *parts):
  """What `Dataset.save_to_disk` writes into a folder."""
  for number, rows in enumerate(parts):
    name = f"data-{number:05d}-of-{len(parts):05d}.arrow"
    _write_stream(folder / name, rows)
  (folder / "dataset_info.json").write_text('{"features": {}}')
  (folder / "state.json").write_text('{"_data_files": []}')


def test_a_saved_dataset_dict(tmp_path):
  rows = _rows()
  _save_to_disk(tmp_path / "train", rows[:600], rows[600:])
  _save_to_disk(tmp_path / "test", rows[:3])
  (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
  with pytest.raises(errors.UserError, match="splits test, train; name one"):
    list(raw_rows.read(tmp_path))
  found = list(raw_rows.read(tmp_path, "train"))
  assert [row.fields for row in found] == rows
  second = tmp_path / "train" / "data-00001-of-00002.arrow"
  assert found[600].place == f"{second}:1"
  assert len(list(raw_rows.read(tmp_path, "test"))) == 3
  # One split of it is a saved Dataset.
  alone = list(raw_rows.read(tmp_path / "train"))
  assert [row.fields for row in alone] == rows


def test_bad_rows_of_a_saved_dataset_dict_have_their_file(tmp_path):
  rows = _rows(question=b"\xff")
  _save_to_disk(tmp_path / "train", rows[:600], rows[600:])
  (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
  second = tmp_path / "train" / "data-00001-of-00002.arrow"
  checked = _check(tmp_path)
  assert len(checked.tasks) == 1199
  assert [row.place for row in checked.bad] == [f"{second}:501"]
