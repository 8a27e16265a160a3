"""game24: the answer is an expression of exactly the given numbers, worth 24.

Flow: text -> one spelling of the operators -> `ast` (only numbers, + - * / and
parentheses; nothing is ever evaluated by Python) -> exact fractions -> the
value and the numbers used are compared.

The given numbers are read from any reference: a listed solution
("(1+1+1)*8") or the numbers themselves ("1 1 1 8").
"""

import ast
import fractions
import re
from collections.abc import Sequence

TARGET = 24

_MAX_CHARS = 200
_SPELLINGS = (
  (r"\\left|\\right|\\,|\\!|\\;|\\ ", ""),
  (r"\\times|\\cdot|\\ast|\u00d7|\u22c5|\u00b7|\u2217|\u2715", "*"),
  (r"\\div|\u00f7|\u2215|\u2044", "/"),
  (r"\u2212|\u2013", "-"),
  (r"(?<=[0-9)\]} ])[xX](?=[0-9(\[{ ])", "*"),
  (r"\[|\{", "("),
  (r"\]|\}", ")"),
)
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_MAX_FRACTIONS = 4  # one inside another: there are four numbers
_BOXED = re.compile(r"\\boxed\{(.*)\}", re.DOTALL)
_WRAPPERS = "$`* \t\n."
_LEAD = re.compile(
  r"(?:(?:the|one|final|possible) )*(?:answer|solution|expression)"
  r"(?: is)?[: ]*",
  re.IGNORECASE,
)
_EQUALS_TARGET = re.compile(r"(?:^\s*24\s*=)|(?:=\s*24\s*$)")
_ALLOWED = re.compile(r"[0-9+\-*/() ]+")
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def game24(answer: str, references: Sequence[str]) -> bool:
  """True if `answer` makes 24 from the numbers of the references.

  "= 24" at either end, LaTeX and a lead ("The answer is") may be there.

  Example: game24("8 * (1+1+1) = 24", ("(1+1+1)\u00d78",)) is True.
  """
  wanted = {tuple(sorted(numbers_of(text))) for text in references}
  wanted.discard(())
  parsed = _parse(answer)
  if parsed is None:
    return False
  value, numbers = parsed
  return value == TARGET and tuple(sorted(numbers)) in wanted


def numbers_of(text: str) -> list[int]:
  """The numbers of a puzzle or of a solution, in their order.

  Example: numbers_of("(1+1+1)\u00d78 = 24") is [1, 1, 1, 8].
  """
  return [int(n) for n in re.findall(r"[0-9]+", _EQUALS_TARGET.sub("", text))]


def _parse(text: str) -> tuple[fractions.Fraction, list[int]] | None:
  """Value and numbers of an expression, or None if it is none."""
  if len(text) > _MAX_CHARS:
    return None
  boxed = _BOXED.search(text)
  text = (boxed[1] if boxed else text).strip(_WRAPPERS)
  text = _LEAD.sub("", text, count=1).strip(_WRAPPERS)
  for _ in range(_MAX_FRACTIONS):
    text = _FRACTION.sub(r"((\1)/(\2))", text)
  for pattern, spelling in _SPELLINGS:
    text = re.sub(pattern, spelling, text)
  text = _EQUALS_TARGET.sub("", text, count=1).strip()
  # Two numbers side by side and powers are refused by name: Python would read
  # "2**4" as an operator of its own.
  if not _ALLOWED.fullmatch(text) or "**" in text or "//" in text:
    return None
  try:
    tree = ast.parse(text, mode="eval")
    numbers: list[int] = []
    value = _value(tree.body, numbers)
  except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
    return None
  except MemoryError:  # what ast.parse raises on too many parentheses
    return None
  return value, numbers


def _value(node: ast.expr, numbers: list[int]) -> fractions.Fraction:
  if isinstance(node, ast.Constant) and type(node.value) is int:
    numbers.append(node.value)
    return fractions.Fraction(node.value)
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    return -_value(node.operand, numbers)
  if not isinstance(node, ast.BinOp) or not isinstance(node.op, _OPERATORS):
    raise ValueError("not basic arithmetic")
  left = _value(node.left, numbers)
  right = _value(node.right, numbers)
  if isinstance(node.op, ast.Add):
    return left + right
  if isinstance(node.op, ast.Sub):
    return left - right
  return left * right if isinstance(node.op, ast.Mult) else left / right
