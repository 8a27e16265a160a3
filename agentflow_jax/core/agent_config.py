"""AgentConfig: the section `agent`, what an episode may take and gives."""

import dataclasses


@dataclasses.dataclass
class AgentConfig:
  """Limits and outputs of an episode."""

  # modular: four modules; monolithic: one growing answer (core/flows.py).
  flow: str = "modular"  # modular | monolithic
  max_turns: int = 3  # Turns of a training episode at most
  evaluation_max_turns: int = 10  # Turns of an evaluation episode at most
  # Tool calls the executor may make in one turn; later ones are refused.
  max_calls_per_turn: int = 4
  # Planner tokens (prompt + completion, all turns) an episode may use.
  max_episode_tokens: int = 65536
  episode_timeout_s: float = 500.0  # Wall-clock seconds of an episode at most
  turn_timeout_s: float = 500.0  # Wall-clock seconds of one turn at most
  # Unreadable plans in a row that end the episode as PARSE_FAILURE.
  max_parse_failures: int = 3
  # full: with rules, for any LLM; compact: labels, for a warm-started planner.
  prompt_style: str = "full"  # full | compact
  # labelled: "Context: .. Sub-Goal: .. Tool Name: .."; json: one object.
  plan_format: str = "labelled"  # labelled | json
  # Tokens of memory shown to the modules; older results are cut first, in
  # the middle.
  memory_tokens: int = 8192
  # Ask the generator's engine to analyse the question before turn 1.
  query_analysis: bool = False
  # Texts to produce: base (no tools), final (report), direct (answer).
  outputs: tuple[str, ...] = ("direct",)
