"""Tags: how one policy writes calls and answers into its growing text.

  I need the capital. <search>Laos capital</search>
  <information>Laos: ... Its capital is Vientiane.</information>
  <answer>Vientiane</answer>

Every tool has a tag: the name a config knows it by, and `search` for the first
search tool, as in Search-R1 (arXiv 2503.09516). What is between the tags is
the tool's one required text, or a JSON object with all its arguments.

Only what the policy wrote is ever parsed. Results are data: tags and control
tokens in them are defused, so that neither the policy nor a reader of records
can take a forged `<answer>` for one of ours.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from agentflow_jax.agent import commands, lenient_json, quoting
from agentflow_jax.core import tool as tool_lib
from agentflow_jax.core import trajectory as trajectory_lib

ANSWER = "answer"
SEARCH = "search"
INFORMATION = "information"
_RESERVED = (ANSWER, INFORMATION, "think")

# As in parsing.py; completions are bounded in tokens, these texts in all.
_MAX_CHARS = 100_000
_NO_NAME = re.compile(r"[^a-z0-9]+")
_OPENING = re.compile(r"<([a-z][a-z0-9_]*)>")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Action:
  """What a completion ends with: a call, or the answer.

  Example: `Action(tag="search", body="Laos capital", thought="I need ...")`.
  """

  tag: str
  body: str  # stripped, never empty
  thought: str  # what stands before the tag

  @property
  def is_answer(self) -> bool:
    return self.tag == ANSWER


class Tags:
  """The tags of one episode's tools, and `answer`.

  Example: `Tags.of(tools).parse("<answer>42</answer>", cut_off=False)`.
  """

  def __init__(self, tools: Mapping[str, tool_lib.Tool]):
    self.tools = dict(tools)  # by tag
    names = "|".join(
      map(re.escape, sorted({*self.tools, *_RESERVED}, key=len, reverse=True))
    )
    # In any case and whatever comes behind the name: readers are lenient.
    self._forged = re.compile(
      rf"<(?=/?(?:{names})(?![a-z0-9_]))", re.IGNORECASE
    )
    self._names = (*self.tools, ANSWER)

  @classmethod
  def of(cls, tools: Sequence[tool_lib.Tool]) -> "Tags":
    """Names every tool; the same tools in the same order get the same tags."""
    named: dict[str, tool_lib.Tool] = {}
    for tool in tools:
      wanted = _tag(tool.spec)
      if SEARCH in wanted and SEARCH not in named:
        wanted = SEARCH
      name, number = wanted, 2
      while name in named or name in _RESERVED:
        name, number = f"{wanted}_{number}", number + 1
      named[name] = tool
    return cls(named)

  @property
  def stop(self) -> tuple[str, ...]:
    """Where a completion ends; the answer first, then the tools in order."""
    return tuple(f"</{name}>" for name in (ANSWER, *self.tools))

  def parse(
    self, text: str, cut_off: bool
  ) -> Action | trajectory_lib.ParseFailure:
    """Reads a completion; never raises.

    The first closing tag ends it: engines stop there, and what an engine
    without stop strings wrote behind it was written without the result. The
    last tag that was opened before is the one that counts, so a policy may
    talk about tags. Whoever stops with an opened tag, without being cut off,
    has closed it: engines leave the stop string out of the text.

    Args:
      text: a completion, with or without its closing tag.
      cut_off: the completion ended because of its length.
    """
    head, closing = self._split(quoting.scrub(text[:_MAX_CHARS]))
    opening = self._last_opening(head)
    if opening is None:
      return trajectory_lib.ParseFailure(
        reason="cut off before a tag" if cut_off else "no call and no answer"
      )
    tag, body = opening[1], head[opening.end() :].strip()
    if closing and closing != tag:
      return trajectory_lib.ParseFailure(
        reason=f"<{tag}> is closed by </{closing}>"
      )
    if not closing and (cut_off or len(text) > _MAX_CHARS):
      return trajectory_lib.ParseFailure(reason=f"cut off inside <{tag}>")
    if not body:
      return trajectory_lib.ParseFailure(reason=f"<{tag}> is empty")
    return Action(tag=tag, body=body, thought=head[: opening.start()].strip())

  def written(self, text: str, cut_off: bool) -> str:
    """The completion as it stands in the context, with its closing tag."""
    head, closing = self._split(quoting.scrub(text))
    opening = self._last_opening(head)
    if not closing and opening and not cut_off:
      closing = opening[1]
    return f"{head}</{closing}>" if closing else head

  def observation(self, text: str) -> str:
    """A tool's result as it is put into the context."""
    inside = self.defuse(quoting.neutralise(text))
    return f"\n\n<{INFORMATION}>{inside}</{INFORMATION}>\n\n"

  def defuse(self, text: str) -> str:
    """`text` with a blank behind every "<" that begins a tag of ours.

    Example: "<answer>1</answer>" is "< answer>1< /answer>".
    """
    return self._forged.sub("< ", text) if "<" in text else text

  def _last_opening(self, text: str) -> re.Match[str] | None:
    found = None
    for match in _OPENING.finditer(text):
      if match[1] in self._names:
        found = match
    return found

  def _split(self, text: str) -> tuple[str, str]:
    """What is before the first closing tag, and that tag's name or ""."""
    found = [
      (at, name) for name in self._names if (at := text.find(f"</{name}>")) >= 0
    ]
    if not found:
      return text, ""
    at, name = min(found)
    return text[:at], name


def closed(text: str) -> str | None:
  """`text` up to the end of the last tag it opens; None if it opens none.

  The closing tag is added where it is missing. For texts whose tools are not
  known, as records hold them.

  Example: "Laos? <search>Laos" is "Laos? <search>Laos</search>".
  """
  opened = list(_OPENING.finditer(text))
  if not opened:
    return None
  closing = f"</{opened[-1][1]}>"
  end = text.find(closing, opened[-1].end())
  return f"{text if end < 0 else text[:end]}{closing}"


def text_argument(spec: tool_lib.ToolSpec) -> str:
  """The argument that a tag's body is, "" if the body is a JSON object."""
  properties = spec.inputs.get("properties", {})
  required = spec.inputs.get("required", ())
  names = list(required) or list(properties)
  if len(names) != 1 or names[0] not in properties:
    return ""
  return names[0] if properties[names[0]].get("type") == "string" else ""


def arguments(
  body: str, spec: tool_lib.ToolSpec
) -> commands.Arguments | trajectory_lib.ParseFailure:
  """What the body of a tool's tag says to the tool; never raises."""
  if name := text_argument(spec):
    return commands.read_arguments({name: body})
  for value in lenient_json.find_values(body):
    if isinstance(value, dict):
      return commands.read_arguments(value)
  return trajectory_lib.ParseFailure(
    reason="not a JSON object with the arguments"
  )


def _tag(spec: tool_lib.ToolSpec) -> str:
  """The name a config uses, fit for a tag."""
  name = spec.aliases[0] if spec.aliases else spec.name
  return _NO_NAME.sub("_", name.lower()).strip("_").lstrip("0123456789_") or (
    "tool"
  )
