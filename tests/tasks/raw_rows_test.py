"""Files of every kind, whole and broken, and what checking makes of them."""

import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import checking, formats, raw_rows

_GOOD = {"id": "0", "question": "Who?", "answer": ["X"]}
_QA = formats.FORMATS["nq_open"]


def _good(count, start=0):
  return [
    {**_GOOD, "id": str(n), "question": f"Who is {n}?"}
    for n in range(start, start + count)
  ]


def _write(path, rows):
  lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
  path.write_bytes(b"\n".join(lines) + b"\n")
  return path


def _check(path):
  return checking.check(raw_rows.read(path), _QA, "nq")


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
  rows = _good(5)
  table = pa.Table.from_pylist(rows)
  _write(tmp_path / "a.jsonl", rows)
  (tmp_path / "b.jsonl.gz").write_bytes(
    gzip.compress((tmp_path / "a.jsonl").read_bytes())
  )
  (tmp_path / "c.json").write_text(json.dumps(rows))
  parquet.write_table(table, tmp_path / "d.parquet")
  with (
    pa.OSFile(str(tmp_path / "e.arrow"), "wb") as file,
    pa.ipc.new_stream(file, table.schema) as writer,
  ):
    writer.write_table(table)
  _write(tmp_path / "wiki_00", rows)
  for path in sorted(tmp_path.iterdir()):
    found = list(raw_rows.read(path))
    assert [row.fields for row in found] == rows, path
    assert found[2].place == f"{path}:3"


@pytest.mark.parametrize(
  ("bad", "reason"),
  [
    (b"{", "not JSON"),
    (b"[1]", "not a JSON object"),
    (b'{"id": "x", "question": "\xff", "answer": "a"}', "not UTF-8"),
    ({"id": "x", "answer": ["a"]}, "no field 'question'"),
    ({"id": "x", "question": "?"}, "no field 'answers'"),
    ({"id": "x", "question": 3, "answer": "a"}, "'question' is no text"),
    ({"id": "x", "question": " ", "answer": "a"}, "'question' is empty"),
    ({"id": "x", "question": "?", "answer": []}, "'answer' is empty"),
    ({"id": "x", "question": "?", "answer": [""]}, "'answer' is empty"),
    ({"id": "x", "question": "?", "answer": [None]}, "NoneType"),
    ({"id": "x", "question": "?", "answer": float("nan")}, "'answer' is nan"),
    ({"id": [1], "question": "?", "answer": "a"}, "'id' is no id"),
    ({**_GOOD, "id": "3"}, "the id 'nq/3' is at"),
    (b'{"id": "x", "question": "\\ud800", "answer": "a"}', "not UTF-8 text"),
    (b"[" * 100_000, "not JSON"),
    ({"id": "x", "question": "y" * 10_000_000, "answer": "a"}, "longer than"),
  ],
)
def test_a_bad_row_is_quarantined_with_its_place(tmp_path, bad, reason):
  rows = _good(120)
  path = _write(tmp_path / "q.jsonl", [*rows[:40], bad, *rows[40:]])
  checked = _check(path)
  assert len(checked.tasks) == 120
  assert [row.place for row in checked.bad] == [f"{path}:41"]
  assert reason in checked.bad[0].reason


def test_above_one_per_cent_the_source_is_refused(tmp_path):
  path = _write(tmp_path / "q.jsonl", [*_good(198), b"{", b"{"])
  assert len(_check(path).bad) == 2
  path = _write(tmp_path / "q.jsonl", [*_good(197), b"{", b"{"])
  with pytest.raises(errors.UserError, match=r"2 of 199 .*q\.jsonl:198: not"):
    _check(path)
  for empty in ([], [b""]):
    with pytest.raises(errors.UserError, match="there are no rows"):
      _check(_write(tmp_path / "q.jsonl", empty))


def test_a_cut_off_file_is_refused(tmp_path):
  rows = _good(500)
  packed = gzip.compress(
    _write(tmp_path / "x.jsonl", rows).read_bytes(), mtime=0
  )
  (tmp_path / "q.jsonl.gz").write_bytes(packed[: len(packed) // 2])
  parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
  whole = (tmp_path / "q.parquet").read_bytes()
  (tmp_path / "q.parquet").write_bytes(whole[: len(whole) // 2])
  (tmp_path / "q.json").write_text(json.dumps(rows)[:-5])
  for name in ("q.jsonl.gz", "q.parquet", "q.json"):
    with pytest.raises(errors.UserError, match=name):
      _check(tmp_path / name)


def test_the_last_line_of_a_cut_off_text_file_is_a_bad_row(tmp_path):
  path = _write(tmp_path / "q.jsonl", _good(150))
  path.write_bytes(path.read_bytes()[:-9])
  checked = _check(path)
  assert len(checked.tasks) == 149
  assert "ends inside" in checked.bad[0].reason


def test_folders_and_their_splits(tmp_path):
  (tmp_path / "data").mkdir()
  rows = _good(20)
  table = pa.Table.from_pylist
  for name, part in (
    ("train-00000-of-00002", rows[:8]),
    ("train-00001-of-00002", rows[8:15]),
    ("test-00000-of-00001", rows[15:]),
  ):
    parquet.write_table(table(part), tmp_path / "data" / f"{name}.parquet")
  (tmp_path / "dataset_info.json").write_text("{}")
  with pytest.raises(errors.UserError, match="splits test, train; name one"):
    list(raw_rows.read(tmp_path))
  found = [row.fields for row in raw_rows.read(tmp_path, "train")]
  assert found == rows[:15]
  with pytest.raises(errors.UserError, match="no data files of split 'dev'"):
    list(raw_rows.read(tmp_path, "dev"))
  with pytest.raises(errors.UserError, match="no file or folder"):
    list(raw_rows.read(tmp_path / "absent"))
  (tmp_path / "x.txt").write_text("")
  with pytest.raises(errors.UserError, match="can not read this kind"):
    list(raw_rows.read(tmp_path / "x.txt"))
