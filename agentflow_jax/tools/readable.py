"""The readable text of a web page, in one linear pass.

Flow: HTML -> tags and text -> paragraphs. Navigation, scripts, styles, forms
and footers are left out; the title comes apart. Character references are
decoded after the tags are gone, so `&lt;b&gt;` stays the text it is.

A pass of our own and no tree: pages are hostile. A million nested tags cost no
memory here and nothing is ever searched twice, while a parser that builds a
tree needs hundreds of bytes per tag. What it does not do: repair HTML, run
scripts, or guess which paragraph is the article.
"""

import dataclasses
import html
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Page:
  """A page as text: paragraphs apart by line breaks.

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
  return Page(
    title=_flat(scanner.title)[:_MAX_TITLE_CHARS], text=scanner.text()
  )


class _Scanner:
  """One pass over a page."""

  def __init__(self, source: str):
    self._source = source
    self._at = 0
    self._skipping = ""  # the outermost skipped element we are in
    self._depth = 0  # how often it is open
    self._paragraphs: list[str] = []
    self._pieces: list[str] = []
    self.title = ""

  def run(self) -> None:
    source, end = self._source, len(self._source)
    while self._at < end:
      markup = _MARKUP.search(source, self._at)
      start = markup.start() if markup else end
      self._text(source[self._at : start])
      self._at = start
      if start < end:
        self._markup()
    self._break()

  def text(self) -> str:
    return "\n".join(self._paragraphs)

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
      self._text(source[start : self._at])
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
        self.title = html.unescape(raw[: 4 * _MAX_TITLE_CHARS])
      return
    if self._skipping:
      self._depth += tag == self._skipping and not closed
    elif tag in _SKIPPED and not closed:
      self._skipping, self._depth = tag, 1
    if tag in _BLOCKS:
      self._break()
    elif tag in ("td", "th"):
      self._text(" ")

  def _close(self, tag: str) -> None:
    if tag == self._skipping:
      self._depth -= 1
      if self._depth == 0:
        self._skipping = ""
    if tag in _BLOCKS:
      self._break()

  def _raw(self, tag: str) -> str:
    """The text up to the end tag of a raw element; all that is left if none."""
    source, start = self._source, self._at
    at = start
    while True:
      close = source.find("</", at)
      if close < 0:
        # No further end tag at all, so this is not searched again.
        self._at = len(source)
        return source[start : start + 4 * _MAX_TITLE_CHARS]
      if source[close + 2 : close + 2 + len(tag)].lower() == tag:
        end = source.find(">", close, close + _MAX_TAG_CHARS)
        self._at = close + 2 + len(tag) if end < 0 else end + 1
        return source[start:close]
      at = close + 2

  def _text(self, text: str) -> None:
    if text and not self._skipping:
      self._pieces.append(text)

  def _break(self) -> None:
    if self._pieces:
      paragraph = _flat(html.unescape("".join(self._pieces)))
      self._pieces = []
      if paragraph:
        self._paragraphs.append(paragraph)


def _flat(text: str) -> str:
  return " ".join(text.split())
