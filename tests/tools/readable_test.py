"""Readable text of pages, kind and hostile."""

import time

import hypothesis
import psutil
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


@pytest.mark.parametrize(
  "source",
  [
    "<b>" * 10**6,
    "<nav>" * 10**6,
    "<" * 5_000_000,
    "<a" * 2_500_000,
    "</" * 2_500_000,
    "<!--" * 1_250_000,
    "<script>" * 600_000,
    "<script>" + "</b>" * 10**6,
    "&" * 5_000_000,
    "&amp;" * 10**6,
    "<p>" * 1_600_000,
    "a " * 2_500_000,
  ],
  ids=range(12),
)
def test_bombs_are_linear_in_time_and_memory(source):
  before = psutil.Process().memory_info().rss
  started_s = time.process_time()
  readable.read(source)
  assert time.process_time() - started_s < 10
  assert psutil.Process().memory_info().rss - before < 50 << 20
