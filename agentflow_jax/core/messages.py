"""Messages and the roles that write or answer them."""

import dataclasses
import enum
from collections.abc import Sequence


class ModuleRole(enum.StrEnum):
  """Who is asking an engine: the paper's four modules, tools, the judge.

  POLICY is all four modules at once, in the monolithic flow (core/flows.py).
  """

  PLANNER = "planner"
  EXECUTOR = "executor"
  VERIFIER = "verifier"
  GENERATOR = "generator"
  TOOL = "tool"
  JUDGE = "judge"
  POLICY = "policy"


# Who chooses the step of a turn, and so is asked first in it.
DECIDING = (ModuleRole.PLANNER, ModuleRole.POLICY)

# The role of text that is put into an answer before the answer goes on.
OBSERVATION = "observation"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
  """One chat message.

  Messages of "assistant" and "observation" at the end of a list are an answer
  that is to be continued. `token_ids` of the former are the ids as sampled,
  which count instead of `content`; () where the text is all there is.

  Example: `Message("user", "Question: What is the capital of Laos?")`.
  """

  role: str  # "system" | "user" | "assistant" | OBSERVATION
  content: str
  token_ids: tuple[int, ...] = ()


def continued(
  messages: Sequence[Message],
) -> tuple[Sequence[Message], Sequence[Message]]:
  """The chat, and the begun answer at its end (nearly always empty)."""
  end = len(messages)
  while end and messages[end - 1].role in ("assistant", OBSERVATION):
    end -= 1
  return messages[:end], messages[end:]


# Headings that open a section of a prompt. Prompts are written with them and
# rule-based engines read them back, so they live here, once.
QUESTION = "Question:"
ANALYSIS = "Query Analysis:"
TOOLS = "Tools:"
MEMORY = "Memory:"
CONTEXT = "Context:"
SUB_GOAL = "Sub-Goal:"
TOOL_NAME = "Tool Name:"
RESULT = "Result:"
VERDICT = "Verdict:"
COMMAND = "Command:"
