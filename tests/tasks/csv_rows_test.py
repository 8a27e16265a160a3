"""CSV and TSV files: quoted fields, places, and everything that is no row."""

import csv
import gzip
import io

import hypothesis
import pytest
from hypothesis import strategies as st

from agentflow_jax.core import errors
from agentflow_jax.tasks.datasets import checking, csv_rows, formats, raw_rows

_QA = formats.FORMATS["nq_open"]
_HEAD = b"id,question,answer\n"


def _write(path, *lines):
  path.write_bytes(_HEAD + b"".join(line + b"\n" for line in lines))
  return path


def _good(count):
  return [b"%d,Who is %d?,N%d" % (n, n, n) for n in range(count)]


def _check(path):
  return checking.check(raw_rows.read(path), _QA, "nq")


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.csv.gz", "q.tsv.gz"])
def test_rows_as_a_spreadsheet_writes_them(tmp_path, name):
  text = io.StringIO()
  delimiter = "\t" if "tsv" in name else ","
  writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
  writer.writerow(["id", "question", "", "note"])
  writer.writerow([1, 'Who said "no",\tand\r\nto\nwhom?', "x", ""])
  writer.writerow([2, "Who is \u00e9?", "x", "n"])
  data = b"\xef\xbb\xbf" + text.getvalue().encode()
  path = tmp_path / name
  path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
  first, second = raw_rows.read(path)
  question = 'Who said "no",\tand\r\nto\nwhom?'
  assert first.fields == {"id": "1", "question": question, "": "x"} | {
    "note": None
  }
  assert first.place == f"{path}:2"
  assert second.fields["question"] == "Who is \u00e9?"
  assert second.place == f"{path}:5"


@pytest.mark.parametrize(
  ("bad", "lines", "reason"),
  [
    (b"x,Who?", 1, "2 fields, but 3 columns"),
    (b"x,Who, then?,a", 1, "4 fields, but 3 columns"),
    (b"x,Who\xff?,a", 1, "not UTF-8"),
    (b'x,"Who\n\xff\n?",a', 3, "not UTF-8"),
    (b'x,"Who" is?,a', 1, "not CSV"),
    (b"x,Who\ris?,a", 1, "not CSV"),
    (b"x,,a", 1, "no field 'question'"),
    (b"x,Who?,", 1, "no field 'answers'"),
    (b"x,Who?, ", 1, "'answer' is empty"),
    (b"3,Who?,a", 1, "the id 'nq/3' is at"),
    (b"x," + b"y" * 10_000_000 + b",a", 1, "longer than"),
    (b'x,"' + b'""\n' * 500_000 + b'",a', 500_001, "longer than"),
    (b'x,"a\n' + b"y" * 10_000_000 + b'\n",a', 3, "longer than"),
  ],
)
def test_a_bad_row_is_quarantined_with_its_first_line(
  tmp_path, bad, lines, reason
):
  rows = _good(120)
  path = _write(tmp_path / "q.csv", *rows[:40], bad, *rows[40:])
  checked = _check(path)
  assert [task.id for task in checked.tasks] == [f"nq/{n}" for n in range(120)]
  assert [row.place for row in checked.bad] == [f"{path}:42"]
  assert reason in checked.bad[0].reason
  # Lines are counted through it.
  assert checked.places["nq/40"] == f"{path}:{42 + lines}"


def test_a_field_may_be_as_long_as_a_row(tmp_path):
  long = b"y" * (raw_rows.MAX_ROW_BYTES - 10)
  (row,) = raw_rows.read(_write(tmp_path / "q.csv", b"1,%s,a" % long))
  assert row.fields["question"] == long.decode()


def test_a_quote_without_an_end_costs_every_line_it_swallows(tmp_path):
  rows = _good(300)
  path = _write(tmp_path / "q.csv", *rows, b'x,"Who?,a', b"y,Who?,a")
  checked = _check(path)
  assert len(checked.tasks) == 300
  assert [row.place for row in checked.bad] == [f"{path}:302", f"{path}:303"]
  assert "the quote opened in line 302 never ends" in checked.bad[1].reason
  path = _write(tmp_path / "q.csv", rows[0], b'x,"Who?,a', *rows[1:])
  with pytest.raises(errors.UserError, match="300 of 301 .*line 3 never ends"):
    _check(path)
  filled = b"y" * 1000
  path = _write(tmp_path / "q.csv", b'x,"Who?,a', *[filled] * 2000, *rows)
  with pytest.raises(errors.UserError, match="2301 of 2301 .*line 2 never"):
    _check(path)


@pytest.mark.parametrize("cut", [b"x,Wh", b'x,"Wh', b'x,"Who?"'])
def test_a_last_line_that_is_cut_off_is_a_bad_row(tmp_path, cut):
  path = _write(tmp_path / "q.csv", *_good(150))
  path.write_bytes(path.read_bytes() + cut)
  checked = _check(path)
  assert len(checked.tasks) == 150
  assert [row.place for row in checked.bad] == [f"{path}:152"]


def test_names_of_columns_that_can_not_be_read(tmp_path):
  path = tmp_path / "q.csv"
  for head, reason in (
    (b"id,question,id\n", "two columns are called 'id'"),
    (b"id,\xff\n", "the names of the columns are not UTF-8"),
    (b'id,"question\n', "the names of the columns: unexpected end"),
  ):
    path.write_bytes(head + b"1,2,3\n")
    with pytest.raises(errors.UserError, match=f"q.csv:1: {reason}"):
      list(raw_rows.read(path))
  for empty in (b"", _HEAD, _HEAD + b"\n\n"):
    path.write_bytes(empty)
    assert not list(raw_rows.read(path))


@hypothesis.given(
  rows=st.lists(
    st.lists(
      st.text(st.sampled_from('a",\t\r\n \u00e9')), min_size=2, max_size=2
    ),
    max_size=8,
  ),
  delimiter=st.sampled_from(",\t"),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_what_csv_writes_is_read_back_with_its_lines(rows, delimiter):
  text = io.StringIO()
  writer = csv.writer(text, delimiter=delimiter)  # lines end with "\r\n"
  expected = []
  for row in [["a", "b"], *rows]:
    line = text.getvalue().count("\n") + 1
    writer.writerow(row)
    expected.append((line, {"a": row[0] or None, "b": row[1] or None}, ""))
  file = io.BytesIO(text.getvalue().encode())
  read = csv_rows.read(file, delimiter=delimiter, max_row_bytes=1000)
  assert list(read) == expected[1:]


@hypothesis.given(data=st.binary(max_size=80), limit=st.integers(1, 40))
@hypothesis.settings(max_examples=200, deadline=None)
def test_any_bytes_are_rows_or_problems_of_lines_in_order(data, limit):
  file = io.BytesIO(b"a,b\n" + data)
  read = csv_rows.read(file, delimiter=",", max_row_bytes=max(4, limit))
  numbers = [number for number, _, _ in read]
  assert numbers == sorted(set(numbers))
  assert all(2 <= number <= data.count(b"\n") + 2 for number in numbers)
