"""Flows: who works on a question, and whose completions are trained.

| `agent.flow` | what an episode is | roles |
|---|---|---|
| modular | plan, command, tool, verdict, turn by turn; then the answer | 4 |
| monolithic | one growing answer with calls in tags, as in Search-R1 | policy |

A role is asked for by its engine in the config (`engines.planner`, ...) and
trained if `learner.trained_roles` names it. Search-R1 is arXiv 2503.09516.
"""

import types
from collections.abc import Iterator, Mapping

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rule, providers

MODULAR, MONOLITHIC = "modular", "monolithic"

# The roles whose completions an episode records; tools and judges are none.
ROLES: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
  {
    MODULAR: ("planner", "executor", "verifier", "generator"),
    MONOLITHIC: ("policy",),
  }
)
# What the answer of one policy has no place for.
_MODULES_ONLY = ("plan_format", "query_analysis", "outputs")


def engine_names(config: config_lib.Config) -> dict[str, str]:
  """The engine of each role that the flow asks; a judge if there is one."""
  roles = [*ROLES[config.agent.flow], "tool"]
  if config.engines.judge:
    roles.append(config_lib.JUDGE)
  return {role: getattr(config.engines, role) for role in roles}


def _changed(config: config_lib.Config) -> bool:
  default = config_lib.Config().agent
  return any(
    getattr(config.agent, name) != getattr(default, name)
    for name in _MODULES_ONLY
  )


def _unknown_roles(config: config_lib.Config) -> bool:
  named = config.learner.trained_roles
  return (
    not named
    or len(set(named)) < len(named)
    or bool(set(named) - set(ROLES[config.agent.flow]))
  )


def _rules() -> Iterator[config_rule.Rule]:
  yield config_rule.Rule(
    fields=("agent.flow", *(f"agent.{name}" for name in _MODULES_ONLY)),
    broken=lambda c: c.agent.flow == MONOLITHIC and _changed(c),
    why="a monolithic agent has no plans, analysis or generator to set",
  )
  yield config_rule.Rule(
    fields=("agent.flow", "learner.trained_roles"),
    broken=_unknown_roles,
    why="name roles of the flow, each once: "
    + "; ".join(f"{flow}: {', '.join(ROLES[flow])}" for flow in ROLES),
    training=True,
  )
  for role in (role for roles in ROLES.values() for role in roles):
    yield config_rule.Rule(
      fields=("learner.trained_roles", f"engines.{role}"),
      broken=lambda c, role=role: (
        role in c.learner.trained_roles
        and getattr(c.engines, role) != providers.TRAINABLE
      ),
      why="only a role that the trainable engine answers can be trained",
      training=True,
    )
  yield config_rule.Rule(
    fields=("warm_start.enabled", "agent.flow", "tasks.train"),
    broken=lambda c: (
      c.warm_start.enabled
      and c.agent.flow == MONOLITHIC
      and c.tasks.train != "worldfacts"
    ),
    why="the warm start teaches a policy worldfacts only; elsewhere, name a "
    "model.checkpoint",
    training=True,
  )


RULES = tuple(_rules())
