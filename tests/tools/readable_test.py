"""Readable text of pages, kind and hostile."""

import json
import subprocess
import sys

import hypothesis
import page_peak
import pytest
from hypothesis import strategies as st

from agentflow_jax.tools import readable


@pytest.mark.parametrize(
  ("source", "title", "text"),
  [
    ("", "", ""),
    ("plain & simple", "", "plain & simple"),
    ("<title>A &amp; B</title><p>x<p>y", "A & B", "x\ny"),
    ("<p>B <b>c</b>d</p>", "", "B cd"),
    ("a<br>b<br/>c", "", "a\nb\nc"),
    ("<tr><td>a</td><td>b</td></tr>", "", "a b"),
    ("&lt;b&gt; is a tag", "", "<b> is a tag"),
    ("1 < 2 and 3 > 2", "", "1 < 2 and 3 > 2"),
    ("a<!-- <p>no</p> -->b", "", "ab"),
    ("a<!-- never closed", "", "a"),
    ("<script>if (a</b) x='<p>'</script>y", "", "y"),
    ("<SCRIPT>no</ScRiPt >yes", "", "yes"),
    ("<script>never closed <p>no", "", ""),
    ("<style>p {}</style>y", "", "y"),
    ("<nav>no<nav>no</nav>no</nav>yes", "", "yes"),
    ("<nav/>yes", "", "yes"),
    ("<form>no</form><footer>no</footer>yes", "", "yes"),
    ("<!doctype html><?xml?><html><head><title>T</title><body>x", "T", "x"),
    ("<title>one</title><svg><title>two</title></svg>x", "one", "x"),
    ("</p></nav></nav>x", "", "x"),
  ],
)
def test_pages(source, title, text):
  assert readable.read(source) == readable.Page(title=title, text=text)


@hypothesis.given(st.text("<>/!-abp &;\"'\n", max_size=60))
@hypothesis.settings(deadline=None, max_examples=300)
def test_anything_is_accepted(source):
  assert isinstance(readable.read(source).text, str)


_PIECES = [
  *("a", "word", "&amp;", "&#x26;", "&lt;", "&nbsp;", "&eacute", "&", ";"),
  *(" ", "\n", "\xa0", "<p>", "</p>", "<b>", "<nav>", "</nav>", "<!--", "-->"),
]


@hypothesis.given(st.lists(st.sampled_from(_PIECES), max_size=60))
@hypothesis.settings(deadline=None, max_examples=300)
def test_blocks_change_nothing(pieces):
  source = "".join(pieces)
  whole = readable.read(source)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(readable, "_BLOCK_CHARS", 7)
    assert readable.read(source) == whole


def test_no_more_text_is_kept_than_said(monkeypatch):
  monkeypatch.setattr(readable, "MAX_TEXT_CHARS", 6)
  monkeypatch.setattr(readable, "_BLOCK_CHARS", 4)
  assert readable.read("<p>ab<p>cd<p>ef").text == "ab\ncd\n"
  assert readable.read("ab cdef<p>gh").text == "ab cde"


@pytest.fixture(scope="module")
def costs():
  """Of every page, read in a process of its own by the whole tool."""
  done = subprocess.run(
    [sys.executable, page_peak.__file__], stdout=subprocess.PIPE, check=True
  )
  return json.loads(done.stdout)


@pytest.mark.timeout(180)
def test_bombs_are_linear_in_time(costs):
  assert {name: s for name, (s, _) in costs.items() if s > 10} == {}


@pytest.mark.timeout(180)
def test_no_page_takes_more_than_ten_times_its_size(costs):
  assert len(costs) == len(page_peak.PAGES) + len(page_peak.PLAIN)
  assert {name: mb for name, (_, mb) in costs.items() if mb > 50} == {}
