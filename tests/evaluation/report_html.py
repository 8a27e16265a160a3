"""Reads a report back: a strict HTML tree for assertions."""

import html.parser
import re

_VOID = {"meta", "br", "hr", "input"}
# What a parser closes an open <p> for; inside one it is a broken page.
_NOT_IN_P = {"div", "p", "ul", "ol", "dl", "table", "pre", "figure", "details"}
_SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


class Node:
  """An element with its attributes and its children (nodes and texts)."""

  def __init__(self, name, attributes):
    self.name, self.attributes, self.children = name, dict(attributes), []

  @property
  def classes(self):
    return (self.attributes.get("class") or "").split()

  @property
  def text(self):
    return "".join(c if isinstance(c, str) else c.text for c in self.children)

  def find_all(self, name=None, css=None):
    for child in self.children:
      if isinstance(child, Node):
        if name in (None, child.name) and (css is None or css in child.classes):
          yield child
        yield from child.find_all(name, css)

  def find(self, name=None, css=None):
    return next(self.find_all(name, css))


class _Parser(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.root = Node("#root", [])
    self.stack = [self.root]

  def handle_starttag(self, tag, attrs):
    names = [name for name, _ in attrs]
    assert len(names) == len(set(names)), f"repeated attribute in <{tag}>"
    if tag in _NOT_IN_P:
      assert not any(n.name == "p" for n in self.stack), f"<{tag}> in <p>"
    node = Node(tag, attrs)
    self.stack[-1].children.append(node)
    if tag not in _VOID:
      self.stack.append(node)

  def handle_endtag(self, tag):
    node = self.stack.pop()
    assert node.name == tag, f"</{tag}> closes <{node.name}>"

  def handle_data(self, data):
    self.stack[-1].children.append(data)

  def handle_comment(self, data):
    raise AssertionError(f"comment {data!r}")


def parse(text):
  """The tree of a page; fails on anything that is not balanced."""
  parser = _Parser()
  parser.feed(text)
  parser.close()
  assert parser.stack == [parser.root], "elements left open"
  ids = [
    n.attributes["id"] for n in parser.root.find_all() if "id" in n.attributes
  ]
  assert len(ids) == len(set(ids)), "repeated id"
  return parser.root


def card(page, title):
  """The figure whose heading is `title`."""
  return next(f for f in page.find_all("figure") if f.find("h3").text == title)


def columns(figure):
  """The value table of a figure: {column: {iteration: cell text}}."""
  table = figure.find("table", "values")
  titles = [cell.text for cell in table.find("thead").find_all("th")]
  found = {title: {} for title in titles[1:]}
  for row in table.find("tbody").find_all("tr"):
    x = value(row.find("th").text)
    for title, cell in zip(titles[1:], row.find_all("td"), strict=True):
      if cell.text:
        found[title][x] = cell.text
  return found


def value(text):
  """The number a cell shows, "87.7% (..)" as 0.877 and "2×10⁻⁶" as 2e-6."""
  text = text.split(" ")[0].replace("−", "-").replace(",", "")
  power = re.fullmatch(r"(?:(-?[\d.]+)×)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text)
  if power:
    exponent = int(power[2].translate(_SUPERSCRIPT))
    return float(power[1] or 1) * 10.0**exponent
  return float(text[:-1]) / 100 if text.endswith("%") else float(text)
