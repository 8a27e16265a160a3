"""HTML elements from Python values; plain text can only enter escaped.

`tag("p", "a < b")` gives the markup `<p>a &lt; b</p>`. A child is markup only
if it is already `Html`, and only `tag` and `asset` make `Html`, so text from a
trajectory has no way to become an element, an attribute or a script.

Does not know the page's structure and reads no run.
"""

import html
import importlib.resources
from collections.abc import Iterable
from typing import TypeAlias

from agentflow_jax.core import printable

_VOID = frozenset({"meta", "br", "hr", "input"})
# Followed by a newline, so that the source of a page can be read.
_BLOCK = frozenset({"body", "div", "figure", "head", "li", "p", "svg", "tr"})


class Html(str):
  """Markup that is safe to put in the page as it stands."""

  __slots__ = ()


Child: TypeAlias = "Html | str | None | Iterable[Child]"


def escape(text: str) -> Html:
  """`text` as markup that displays it, invisible characters spelled out.

  Example: `escape('<b>\u2028')` is `&lt;b&gt;[U+2028]`.
  """
  shown = printable.spell_out(text)
  # Attributes are always in double quotes, so an apostrophe is harmless.
  return Html(html.escape(shown, quote=False).replace('"', "&quot;"))


def tag(
  name: str, /, *children: Child, **attributes: str | bool | None
) -> Html:
  """One element.

  Attribute names: a trailing underscore is dropped (`class_`), others become
  hyphens (`data_x`). True writes the bare attribute, False and None leave it
  out.
  """
  parts = [f"<{name}"]
  for key, value in attributes.items():
    if value is None or value is False:
      continue
    parts.append(" " + key.rstrip("_").replace("_", "-"))
    if value is not True:
      parts.append(f'="{escape(value)}"')
  parts.append(">")
  if name in _VOID:
    if children:
      raise ValueError(f"<{name}> takes no children")
  else:
    parts.append(join(children))
    parts.append(f"</{name}>")
  if name in _BLOCK:
    parts.append("\n")
  return Html("".join(parts))


def join(children: Child) -> Html:
  """Children one after the other; nested iterables flattened, None skipped."""
  if children is None:
    return Html("")
  if isinstance(children, Html):
    return children
  if isinstance(children, str):
    return escape(children)
  return Html("".join(join(child) for child in children))


def asset(name: str) -> Html:
  """A file of `assets/`, for a <style> or <script> element.

  Raises:
    ValueError: it holds the end tag that would cut its element short.
  """
  folder = importlib.resources.files(__package__ or "") / "assets"
  text = (folder / name).read_text(encoding="utf-8")
  if "</" in text or "<!--" in text:
    raise ValueError(f"asset {name} holds '</' or '<!--'")
  return Html(text)
