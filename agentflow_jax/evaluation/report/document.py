"""The shell of a page: one self-contained HTML document without a network.

Style and scripts stand inside, and the content security policy allows exactly
their bytes, so even markup that slipped through could neither run nor fetch
anything. Data is text: a block of JSON that no browser runs.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from agentflow_jax.evaluation.report import markup

tag = markup.tag

# In cascade order: the last one overrides sizes and colours.
STYLES = ("base.css", "charts.css", "questions.css", "media.css")
VIEWER_STYLES = (*STYLES[:-1], "viewer.css", STYLES[-1])
SCRIPTS = ("report.js",)
VIEWER_SCRIPTS = (*SCRIPTS, "viewer.js")
# The id and the title of the viewer's section.
VIEWER_SECTION = ("trajectories", "Trajectories")
_JSON = json.JSONEncoder(
  ensure_ascii=False, allow_nan=False, separators=(",", ":")
)


def document(
  title: str,
  *body: markup.Child,
  styles: Sequence[str] = STYLES,
  scripts: Sequence[str] = SCRIPTS,
) -> str:
  """The whole document.

  Args:
    title: of the window.
    body: what stands in <body>.
    styles: files of assets/, in cascade order.
    scripts: files of assets/, run in this order when everything is there.
  """
  style = markup.join(markup.asset(name) for name in styles)
  codes = [markup.asset(name) for name in scripts]
  head = tag(
    "head",
    tag("meta", charset="utf-8"),
    tag(
      "meta",
      http_equiv="Content-Security-Policy",
      content=_policy(style, codes),
    ),
    tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
    tag("meta", name="color-scheme", content="light dark"),
    tag("title", title),
    tag("style", style),
  )
  whole = tag("body", *body, [tag("script", code) for code in codes])
  return f"<!doctype html>\n{tag('html', head, whole, lang='en')}"


def data_block(name: str, value: Any) -> markup.Html:
  """`value` as JSON that a script of the page finds by the id `name`."""
  text = markup.Html(data_text(value))
  return tag("script", text, type_="application/json", id=name)


def data_text(value: Any) -> str:
  """`value` as a data block holds it.

  No "<" is left in it, so nothing inside can end the block or begin another.
  """
  text = _JSON.encode(value)
  for character in "<>&\u2028\u2029":
    text = text.replace(character, f"\\u{ord(character):04x}")
  return text


def _policy(style: str, scripts: Sequence[str]) -> str:
  def source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

  return (
    f"default-src 'none'; style-src {source(style)}; "
    f"script-src {' '.join(map(source, scripts))}; base-uri 'none'; "
    "form-action 'none'"
  )
