"""What the options of a role's engine may be; part of core/config_rules.py."""

import dataclasses

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rule, providers

_SCHEMES = ("http://", "https://")
SAME_SAMPLER = (
  "frozen modules are answered by the same sampler, which stops earlier"
)


def of_role(role: str) -> tuple[config_rule.Rule, ...]:
  """What the options of one role may be, given its engine."""
  engine = _RoleEngine(role)
  return (*_kinds(engine), *_values(engine))


@dataclasses.dataclass(frozen=True, slots=True)
class _RoleEngine:
  """Questions about one role's engine and options."""

  role: str

  def name(self, config: config_lib.Config) -> str:
    return getattr(config.engines, self.role)

  def options(self, config: config_lib.Config) -> config_lib.EngineOptions:
    return config.engines.options(self.role)

  def remote(self, config: config_lib.Config) -> providers.RemoteModel | None:
    return providers.remote_model(self.name(config))

  def changed(self, config: config_lib.Config, *names: str) -> bool:
    given, default = self.options(config), config_lib.EngineOptions()
    return any(getattr(given, n) != getattr(default, n) for n in names)

  def refused(self, config: config_lib.Config) -> bool:
    """A parameter was set that the provider's API does not take."""
    model = self.remote(config)
    return model is not None and any(
      self.changed(config, name) and name not in model.provider.parameters
      for name in ("temperature", "top_p")
    )

  def too_hot(self, config: config_lib.Config) -> bool:
    model = self.remote(config)
    hottest = config.engines.frozen_temperature
    if model is None or "temperature" not in model.provider.parameters:
      return False
    if self.options(config).temperature >= 0:
      hottest = self.options(config).temperature
    return hottest > model.provider.max_temperature

  def fields(self, *names: str) -> tuple[str, ...]:
    role = self.role
    return (f"engines.{role}", *(f"engines.{role}_options.{n}" for n in names))


def _kinds(engine: _RoleEngine) -> tuple[config_rule.Rule, ...]:
  """Which options an engine of its kind has at all."""
  api = ("base_url", "structured", "input_price", "output_price")
  sampling = ("temperature", "top_p", "max_tokens")
  return (
    config_rule.Rule(
      fields=engine.fields(*api),
      broken=lambda c: engine.remote(c) is None and engine.changed(c, *api),
      why="these options are for a PROVIDER:MODEL",
    ),
    config_rule.Rule(
      fields=engine.fields(*sampling),
      broken=lambda c: (
        (
          engine.name(c) in (providers.TRAINABLE, *providers.SCRIPTED)
          or engine.role == config_lib.JUDGE
        )
        and engine.changed(c, *sampling)
      ),
      why=(
        "the policy is sampled by the sampler section, rules not at all, a "
        "judge greedily"
      ),
    ),
  )


def _values(engine: _RoleEngine) -> tuple[config_rule.Rule, ...]:
  """What the values of the options may be."""
  return (
    config_rule.Rule(
      fields=engine.fields("base_url"),
      broken=lambda c: (
        bool(url := engine.options(c).base_url) and not url.startswith(_SCHEMES)
      ),
      why="an address starts with http:// or https://",
    ),
    config_rule.Rule(
      fields=engine.fields("temperature"),
      broken=lambda c: -1 < engine.options(c).temperature < 0,
      why="-1 is engines.frozen_temperature; otherwise it is at least 0",
    ),
    config_rule.Rule(
      fields=engine.fields("temperature", "top_p"),
      broken=engine.refused,
      why="this provider does not let it be set (core/providers.py)",
    ),
    config_rule.Rule(
      fields=(*engine.fields("temperature"), "engines.frozen_temperature"),
      broken=engine.too_hot,
      why="this provider does not sample so hot (core/providers.py)",
    ),
    config_rule.Rule(
      fields=(*engine.fields("max_tokens"), "sampler.max_completion_tokens"),
      broken=lambda c: (
        engine.name(c) == providers.FROZEN
        and engine.options(c).max_tokens > c.sampler.max_completion_tokens
      ),
      why=SAME_SAMPLER,
    ),
  )


JUDGE = config_rule.Rule(
  fields=("engines.judge",),
  broken=lambda c: (
    c.engines.judge in (providers.TRAINABLE, *providers.SCRIPTED)
  ),
  why="a judge is a PROVIDER:MODEL or frozen: it must not change in training",
)
