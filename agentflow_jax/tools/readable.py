"""The readable text of a web page, in one linear pass.

Flow: HTML -> tags and text -> paragraphs. Navigation, scripts, styles, forms
and footers are left out; the title comes apart. Character references are
decoded after the tags are gone, so `&lt;b&gt;` stays the text it is.

A pass of our own and no tree: pages are hostile. A million nested tags cost no
memory here and nothing is ever searched twice, while a parser that builds a
tree needs hundreds of bytes per tag. Text is split into words block by block,
because a list of all words is many times larger than the page. What it does
not do: repair HTML, run scripts, or guess which paragraph is the article.
"""

import dataclasses
import html
import io
import re

_SKIPPED = frozenset(
  [
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "math",
    "nav",
    "header",
    "footer",
    "aside",
    "form",
    "button",
    "select",
    "iframe",
    "object",
    "canvas",
    "video",
    "audio",
  ]
)
# What is inside these is text up to their end tag, whatever it looks like.
_RAW = frozenset(
  ["script", "style", "noscript", "template", "iframe", "title", "textarea"]
)
_BLOCKS = frozenset(
  [
    "p",
    "div",
    "br",
    "hr",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "tr",
    "section",
    "article",
    "main",
    "blockquote",
    "pre",
    "figure",
    "figcaption",
    "address",
    "details",
    "summary",
    "body",
  ]
)
_MARKUP = re.compile("<(?=[a-zA-Z/!?])")
_MAX_TAG_CHARS = 4096
_MAX_TITLE_CHARS = 300
# A long novel, which in the widest of Python's strings is 4 MB.
MAX_TEXT_CHARS = 1_000_000
_BLOCK_CHARS = 1 << 16
# No character reference is longer, but for leading zeros.
_REFERENCE_CHARS = 40


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
  """A page as text: paragraphs apart by line breaks, at most MAX_TEXT_CHARS.

  Example: `read("<title>A</title><p>B <b>c</b>")` is
  `Page(title="A", text="B c")`.
  """

  title: str
  text: str


def read(source: str) -> Page:
  """Reads HTML.

  Args:
    source: the page; anything is accepted.
  """
  scanner = _Scanner(source)
  scanner.run()
  title = " ".join(scanner.title.split())
  return Page(title=title[:_MAX_TITLE_CHARS], text=scanner.paragraphs.text())


class _Scanner:
  """One pass over a page."""

  def __init__(self, source: str):
    self._source = source
    self._at = 0
    self._skipping = ""  # the outermost skipped element we are in
    self._depth = 0  # how often it is open
    self.paragraphs = _Paragraphs()
    self.title = ""

  def run(self) -> None:
    source, end = self._source, len(self._source)
    while self._at < end and not self.paragraphs.full:
      markup = _MARKUP.search(source, self._at)
      start = markup.start() if markup else end
      self._text(self._at, start)
      self._at = start
      if start < end:
        self._markup()
    self.paragraphs.end()

  def _markup(self) -> None:
    """Takes what begins with "<" at the current position."""
    source, start = self._source, self._at
    if source.startswith("<!--", start):
      close = source.find("-->", start + 4)
      self._at = len(source) if close < 0 else close + 3
      return
    close = source.find(">", start, start + _MAX_TAG_CHARS)
    opening = source[start + 1 : start + 2]
    if close < 0:
      # No tag ends here, so none that begins here is looked at again.
      self._at = min(len(source), start + _MAX_TAG_CHARS)
      self._text(start, self._at)
      return
    self._at = close + 1
    if opening in ("!", "?"):
      return
    inside = source[start + 1 : close]
    name = inside.lstrip("/").split(None, 1)[0:1]
    tag = name[0].rstrip("/").lower() if name else ""
    if opening == "/":
      self._close(tag)
    else:
      self._open(tag, inside.endswith("/"))

  def _open(self, tag: str, closed: bool) -> None:
    if tag in _RAW:
      raw = self._raw(tag)
      if tag == "title" and not self.title:
        self.title = html.unescape(raw)
      return
    if self._skipping:
      self._depth += tag == self._skipping and not closed
    elif tag in _SKIPPED and not closed:
      self._skipping, self._depth = tag, 1
    if tag in _BLOCKS:
      self.paragraphs.end()
    elif tag in ("td", "th") and not self._skipping:
      self.paragraphs.add(" ")

  def _close(self, tag: str) -> None:
    if tag == self._skipping:
      self._depth -= 1
      if self._depth == 0:
        self._skipping = ""
    if tag in _BLOCKS:
      self.paragraphs.end()

  def _raw(self, tag: str) -> str:
    """Goes past the end tag of a raw element, or to the end of the page.

    Returns:
      The beginning of what is inside, enough for a title.
    """
    source, start = self._source, self._at
    at, kept = start, start + 4 * _MAX_TITLE_CHARS
    while True:
      close = source.find("</", at)
      if close < 0:
        # No further end tag at all, so this is not searched again.
        self._at = len(source)
        return source[start:kept]
      if source[close + 2 : close + 2 + len(tag)].lower() == tag:
        end = source.find(">", close, close + _MAX_TAG_CHARS)
        self._at = close + 2 + len(tag) if end < 0 else end + 1
        return source[start : min(close, kept)]
      at = close + 2

  def _text(self, start: int, end: int) -> None:
    if self._skipping:
      return
    for at in range(start, end, _BLOCK_CHARS):
      if self.paragraphs.full:
        return
      self.paragraphs.add(self._source[at : min(end, at + _BLOCK_CHARS)])


class _Paragraphs:
  """Text as it comes -> decoded, with single spaces; a block at a time."""

  def __init__(self):
    self._out = io.StringIO()  # grows in place, however many pieces there are
    self._room = MAX_TEXT_CHARS
    self._pieces: list[str] = []
    self._pending = 0  # characters in `_pieces`
    self._glue = ""  # what comes before the next word

  @property
  def full(self) -> bool:
    return self._room <= 0

  def text(self) -> str:
    return self._out.getvalue()

  def add(self, text: str) -> None:
    """More of the paragraph, at most a block."""
    self._pieces.append(text)
    self._pending += len(text)
    if self._pending >= _BLOCK_CHARS:
      raw = "".join(self._pieces)
      # A character reference may go on in the next block.
      cut = raw.rfind("&", max(0, len(raw) - _REFERENCE_CHARS))
      cut = len(raw) if cut < 0 else cut
      self._pieces, self._pending = [raw[cut:]], len(raw) - cut
      self._flush(raw[:cut])

  def end(self) -> None:
    """The paragraph is over; it may have been empty."""
    self._flush("".join(self._pieces))
    self._pieces, self._pending = [], 0
    if self._room < MAX_TEXT_CHARS:
      self._glue = "\n"

  def _flush(self, raw: str) -> None:
    text = html.unescape(raw)
    words = text.split()
    if not words:
      if text and not self._glue and self._room < MAX_TEXT_CHARS:
        self._glue = " "
      return
    if not self._glue and text[0].isspace() and self._room < MAX_TEXT_CHARS:
      self._glue = " "
    flat = f"{self._glue}{' '.join(words)}"
    self._out.write(flat[: self._room])
    self._room -= len(flat)
    self._glue = " " if text[-1].isspace() else ""
