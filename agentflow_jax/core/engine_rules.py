"""What the options of a role's engine may be; part of core/config_rules.py."""

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rule, providers

_SCHEMES = ("http://", "https://")
SAME_SAMPLER = (
  "frozen modules are answered by the same sampler, which stops earlier"
)


def of_role(role: str) -> tuple[config_rule.Rule, ...]:
  """What the options of one role may be, given its engine."""
  default = config_lib.EngineOptions()

  def remote(config: config_lib.Config) -> providers.RemoteModel | None:
    return providers.remote_model(getattr(config.engines, role))

  def changed(config: config_lib.Config, *names: str) -> bool:
    given = config.engines.options(role)
    return any(getattr(given, n) != getattr(default, n) for n in names)

  def refused(config: config_lib.Config) -> bool:
    """A parameter was set that the provider's API does not take."""
    model = remote(config)
    return model is not None and any(
      changed(config, name) and name not in model.provider.parameters
      for name in ("temperature", "top_p")
    )

  def too_hot(config: config_lib.Config) -> bool:
    model = remote(config)
    hottest = config.engines.frozen_temperature
    if model is None or "temperature" not in model.provider.parameters:
      return False
    if config.engines.options(role).temperature >= 0:
      hottest = config.engines.options(role).temperature
    return hottest > model.provider.max_temperature

  def fields(*names: str) -> tuple[str, ...]:
    return (f"engines.{role}", *(f"engines.{role}_options.{n}" for n in names))

  api = ("base_url", "structured", "input_price", "output_price")
  sampling = ("temperature", "top_p", "max_tokens")
  return (
    config_rule.Rule(
      fields=fields(*api),
      broken=lambda c: remote(c) is None and changed(c, *api),
      why="these options are for a PROVIDER:MODEL",
    ),
    config_rule.Rule(
      fields=fields(*sampling),
      broken=lambda c: (
        (
          getattr(c.engines, role) in (providers.TRAINABLE, providers.SCRIPTED)
          or role == config_lib.JUDGE
        )
        and changed(c, *sampling)
      ),
      why=(
        "the policy is sampled by the sampler section, rules not at all, a "
        "judge greedily"
      ),
    ),
    config_rule.Rule(
      fields=fields("base_url"),
      broken=lambda c: (
        bool(url := c.engines.options(role).base_url)
        and not url.startswith(_SCHEMES)
      ),
      why="an address starts with http:// or https://",
    ),
    config_rule.Rule(
      fields=fields("temperature"),
      broken=lambda c: -1 < c.engines.options(role).temperature < 0,
      why="-1 is engines.frozen_temperature; otherwise it is at least 0",
    ),
    config_rule.Rule(
      fields=fields("temperature", "top_p"),
      broken=refused,
      why="this provider does not let it be set (core/providers.py)",
    ),
    config_rule.Rule(
      fields=(*fields("temperature"), "engines.frozen_temperature"),
      broken=too_hot,
      why="this provider does not sample so hot (core/providers.py)",
    ),
    config_rule.Rule(
      fields=(*fields("max_tokens"), "sampler.max_completion_tokens"),
      broken=lambda c: (
        getattr(c.engines, role) == providers.FROZEN
        and c.engines.options(role).max_tokens > c.sampler.max_completion_tokens
      ),
      why=SAME_SAMPLER,
    ),
  )


JUDGE = config_rule.Rule(
  fields=("engines.judge",),
  broken=lambda c: c.engines.judge in (providers.TRAINABLE, providers.SCRIPTED),
  why="a judge is a PROVIDER:MODEL or frozen: it must not change in training",
)
