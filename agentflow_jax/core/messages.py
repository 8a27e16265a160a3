"""Messages and the roles that write or answer them."""

import dataclasses
import enum


class ModuleRole(enum.StrEnum):
  """Who is asking an engine: the paper's four modules, tools, the judge.

  POLICY is all four modules at once, in the monolithic flow (core/flows.py).

  Example: `CallContext(role=ModuleRole.VERIFIER)` is a call that asks for a
  verdict; `str(ModuleRole.VERIFIER)` is "verifier".
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


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
  """One chat message.

  `token_ids` are those of a begun answer as they were sampled, which count
  instead of `content` (core/continuing.py); () where text is all there is.

  Example: `Message("user", "Question: What is the capital of Laos?")`.
  """

  role: str  # "system" | "user" | "assistant" | "observation"
  content: str
  token_ids: tuple[int, ...] = ()


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
