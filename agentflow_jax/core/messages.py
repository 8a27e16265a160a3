"""Messages and the roles that write or answer them."""

import dataclasses
import enum


class ModuleRole(enum.StrEnum):
  """Who is asking an engine: the paper's four modules, tools, the judge."""

  PLANNER = "planner"
  EXECUTOR = "executor"
  VERIFIER = "verifier"
  GENERATOR = "generator"
  TOOL = "tool"
  JUDGE = "judge"


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
  """One chat message.

  Example: `Message("user", "Question: What is the capital of Laos?")`.
  """

  role: str  # "system" | "user" | "assistant"
  content: str


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
