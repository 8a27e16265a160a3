"""Every choice, range and rule of the config refuses what it should."""

import math

import pytest

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_rules, config_validation, errors, flows


def _valid() -> config_lib.Config:
  config = config_lib.Config()
  config.learner.row_tokens = (
    config.sampler.max_prompt_tokens + config.sampler.max_completion_tokens
  )
  return config


def _set(config: config_lib.Config, path: str, value) -> None:
  section, _, name = path.rpartition(".")
  setattr(config_validation.get(config, section), name, value)


def _problem(config: config_lib.Config, *, training: bool = True) -> str:
  with pytest.raises(errors.ConfigError) as caught:
    config_validation.validate(config, training=training)
  assert "\n" not in str(caught.value)
  return str(caught.value)


# (what to set, the fields the message must name), one row or more per rule.
_BROKEN = [
  ({"model.preset": ""}, ("model.checkpoint", "model.preset")),
  ({"mesh.data": -1, "mesh.fsdp": -1}, ("mesh.data", "mesh.fsdp")),
  ({"mesh.tensor": 0}, ("mesh.tensor",)),
  ({"mesh.data": -2}, ("mesh.data",)),
  ({"tasks.train": "jsonl:"}, ("tasks.train",)),
  ({"tasks.evaluation": "worldfact"}, ("tasks.evaluation",)),
  ({"agent.outputs": ()}, ("agent.outputs",)),
  ({"agent.outputs": ("direct", "direct")}, ("agent.outputs",)),
  ({"agent.outputs": ("direkt",)}, ("agent.outputs",)),
  (
    {"agent.prompt_style": "compact", "agent.plan_format": "json"},
    ("agent.prompt_style", "agent.plan_format"),
  ),
  (
    {"agent.memory_tokens": 18432},
    ("agent.memory_tokens", "sampler.max_prompt_tokens"),
  ),
  ({"model.lora.target_modules": ("up",)}, ("target_modules", "up_proj")),
  (
    {"agent.max_episode_tokens": 2047},
    ("agent.max_episode_tokens", "sampler.max_completion_tokens"),
  ),
  (
    {"engines.frozen_max_tokens": 2049},
    ("engines.frozen_max_tokens", "sampler.max_completion_tokens"),
  ),
  *(
    (
      {f"engines.{role}": engine, f"engines.{role}_options.{name}": value},
      (f"engines.{role}={engine!r}", f"engines.{role}_options.{name}={value}"),
    )
    for role in config_lib.ENGINE_ROLES
    for engine, name, value in (
      ("frozen", "input_price", 1.0),
      ("scripted:worldfacts", "temperature", 0.5),
      ("trainable", "max_tokens", 9),
      ("openai:gpt-4o", "temperature", -0.5),
      ("openai-reasoning:o4-mini", "top_p", 0.5),
      ("anthropic:claude", "temperature", 1.5),
      ("frozen", "max_tokens", 2049),
    )
  ),
  *(
    (
      {
        f"engines.{role}": "vllm:m",
        f"engines.{role}_options.base_url": "ftp://a",
      },
      (f"engines.{role}_options.base_url",),
    )
    for role in config_lib.ENGINE_ROLES
  ),
  (
    {"engines.tool": "anthropic:claude", "engines.frozen_temperature": 1.5},
    ("engines.tool", "engines.frozen_temperature"),
  ),
  (
    {"sampler.prefill_chunk_tokens": 18433},
    ("sampler.prefill_chunk_tokens", "sampler.max_prompt_tokens"),
  ),
  (
    {"engines.verifier": "scripted:worldfacts", "tasks.train": "jsonl:a"},
    ("engines.verifier", "tasks.train"),
  ),
  (
    {"engines.tool": "scripted:worldfacts", "tasks.evaluation": "jsonl:a"},
    ("engines.tool", "tasks.evaluation"),
  ),
  (
    {"tools.enabled": (), "tools.user_modules": ("mine",)},
    ("tools.enabled=()", "tools.mcp_servers=()", "at least one tool"),
  ),
  ({"tools.enabled": ("a", "a")}, ("tools.enabled",)),
  (
    {"tasks.train": "jsonl:a", "tasks.evaluation": "jsonl:a"},
    ("tools.search_index_dir", "tasks.train"),
  ),
  (
    {"tools.embedding_url": "http://127.0.0.1:1/v1"},
    ("tools.embedding_url", "tools.embedding_model"),
  ),
  (
    {"tools.enabled": ("google_search",), "tools.google_backend": "searxng"},
    ("tools.google_backend", "tools.google_url"),
  ),
  (
    {"tools.python_timeout_s": 120.0},
    ("tools.python_timeout_s", "tools.call_timeout_s"),
  ),
  ({"engines.judge": "trainable"}, ("engines.judge",)),
  (
    {"engines.judge": "openai:m", "engines.judge_options.max_tokens": 9},
    ("engines.judge_options.max_tokens",),
  ),
  ({"rollout.replay": "record"}, ("rollout.replay_dir",)),
  ({"rollout.replay_dir": "a"}, ("rollout.replay", "rollout.replay_dir")),
  ({"rollout.min_group": 9}, ("rollout.min_group=9", "rollout.group_size=8")),
  ({"learner.dual_clip": 1.0}, ("learner.dual_clip",)),
  ({"learner.importance_cap": 0.5}, ("learner.importance_cap",)),
  (
    {"engines.planner": "frozen"},
    ("learner.trained_roles=('planner',)", "engines.planner='frozen'"),
  ),
  *(
    (
      {f"engines.{role}": "frozen", "learner.trained_roles": (role,)},
      (f"learner.trained_roles=('{role}',)", f"engines.{role}='frozen'"),
    )
    for role in ("executor", "verifier", "generator")
  ),
  (
    {
      "agent.flow": "monolithic",
      "learner.trained_roles": ("policy",),
      "engines.policy": "vllm:m",
    },
    ("learner.trained_roles=('policy',)", "engines.policy='vllm:m'"),
  ),
  ({"learner.trained_roles": ()}, ("learner.trained_roles=()", "planner")),
  ({"learner.trained_roles": ("planner",) * 2}, ("learner.trained_roles",)),
  (
    {"learner.trained_roles": ("planer",)},
    ("agent.flow='modular'", "learner.trained_roles=('planer',)"),
  ),
  (
    {"agent.flow": "monolithic"},
    ("agent.flow='monolithic'", "learner.trained_roles=('planner',)"),
  ),
  *(
    (
      {
        "agent.flow": "monolithic",
        "learner.trained_roles": ("policy",),
        f"agent.{name}": value,
      },
      ("agent.flow='monolithic'", f"agent.{name}={value!r}"),
    )
    for name, value in (
      ("plan_format", "json"),
      ("query_analysis", True),
      ("outputs", ("final",)),
    )
  ),
  (
    {
      "agent.flow": "monolithic",
      "learner.trained_roles": ("policy",),
      "agent.prompt_style": "compact",
      "warm_start.enabled": True,
      "tasks.train": "jsonl:a",
    },
    (
      "warm_start.enabled",
      "agent.flow='monolithic'",
      "tasks.train='jsonl:a'",
      "teaches a policy worldfacts",
    ),
  ),
  ({"sampler.temperature": 0}, ("sampler.temperature",)),
  ({"sampler.top_p": 0.9}, ("sampler.top_p",)),
  ({"sampler.top_k": 5}, ("sampler.top_k",)),
  ({"sampler.min_p": 0.1}, ("sampler.min_p",)),
  ({"rollout.group_size": 1}, ("rollout.group_size",)),
  (
    {"learner.baseline": "none"},
    ("learner.baseline", "learner.normalize_by_std"),
  ),
  (
    {
      "learner.baseline": "none",
      "learner.normalize_by_std": False,
      "learner.refill_rounds": 1,
    },
    ("learner.baseline", "learner.refill_rounds"),
  ),
  (
    {"learner.mini_batch_trajectories": 48},
    (
      "learner.mini_batch_trajectories=48",
      "rollout.tasks=32",
      "rollout.group_size=8",
    ),
  ),
  (
    {"learner.row_tokens": 20479},
    (
      "learner.row_tokens=20479",
      "sampler.max_prompt_tokens=18432",
      "sampler.max_completion_tokens=2048",
    ),
  ),
  (
    {"learner.schedule": "cosine", "learner.warmup_steps": 100},
    ("learner.warmup_steps", "training.iterations"),
  ),
  (
    {"training.max_staleness": 1, "mesh.tensor": 2},
    ("training.max_staleness=1", "mesh.tensor=2"),
  ),
  (
    {"training.max_staleness": 1, "learner.recompute_behavior": True},
    (
      "training.max_staleness=1",
      "learner.recompute_behavior=True",
      "learner.importance_cap=0.0",
    ),
  ),
  (
    {"warm_start.enabled": True, "model.checkpoint": "a"},
    ("warm_start.enabled", "model.checkpoint"),
  ),
  (
    {"warm_start.enabled": True, "tasks.train": "jsonl:a"},
    ("warm_start.enabled", "tasks.train"),
  ),
  (
    {
      "warm_start.enabled": True,
      "tasks.train": "jsonl:a",
      "tasks.evaluation": "jsonl:a",
      "tools.search_index_dir": "b",
      "engines.executor": "scripted:search",
    },
    ("warm_start.renamed_share", "engines.executor='scripted:search'"),
  ),
  (
    {"warm_start.enabled": True, "agent.prompt_style": "full"},
    ("warm_start.enabled", "agent.prompt_style"),
  ),
]


def test_the_base_of_these_tests_is_valid():
  config_validation.validate(_valid())


@pytest.mark.parametrize(("settings", "named"), _BROKEN)
def test_a_broken_rule_names_its_fields(settings, named):
  config = _valid()
  for path, value in settings.items():
    _set(config, path, value)
  message = _problem(config)
  for name in named:
    assert name in message


def test_every_rule_has_a_case():
  hit = set()
  for settings, _ in _BROKEN:
    config = _valid()
    for path, value in settings.items():
      _set(config, path, value)
    hit |= {
      index
      for index, rule in enumerate(config_rules.RULES)
      if rule.broken(config)
    }
  assert hit == set(range(len(config_rules.RULES)))


def test_rules_name_existing_fields():
  known = config_validation.field_types()
  for rule in config_rules.RULES:
    assert set(rule.fields) <= set(known)


@pytest.mark.parametrize("path", sorted(config_validation.CHOICES))
def test_an_unknown_choice_lists_the_choices(path):
  config = _valid()
  _set(config, path, "no such thing")
  message = _problem(config)
  assert f"{path}='no such thing'" in message
  for choice in config_validation.CHOICES[path]:
    assert choice in message


@pytest.mark.parametrize("role", config_lib.ENGINE_ROLES)
@pytest.mark.parametrize(
  ("written", "meant"),
  [
    ("trainabel", "trainable"),
    ("scripted:world", "scripted:worldfacts"),
    ("gpt-4o", None),  # nothing is near; the known ones are listed
    ("OpenAI:gpt-4o", "openai:MODEL"),
    ("vlm:Qwen/Qwen2.5-7B-Instruct", "vllm:MODEL"),
    ("antropic:claude", "anthropic:MODEL"),
    ("openai:", "openai:MODEL"),
    ("openai: gpt-4o", "openai:MODEL"),
    ("frozen:x", "frozen"),
    ("", None),
  ],
)
def test_a_wrong_engine_names_the_nearest_one(role, written, meant):
  if not written and role == config_lib.JUDGE:
    return  # no judge
  config = _valid()
  _set(config, f"engines.{role}", written)
  message = _problem(config, training=False)
  assert f"engines.{role}={written!r} is no engine" in message
  assert "deepseek" in message
  if meant:
    assert f"nearest: {meant!r}" in message


@pytest.mark.parametrize("path", sorted(config_validation.RANGES))
def test_a_number_outside_its_range_is_refused(path):
  allowed = config_validation.RANGES[path]
  is_float = config_validation.field_types()[path] is float
  outside = [allowed.low if allowed.above else allowed.low - 1]
  if not math.isinf(allowed.high):
    outside.append(allowed.high + 1)
  if is_float:
    outside += [math.nan, math.inf]
  for value in outside:
    config = _valid()
    _set(config, path, float(value) if is_float else int(value))
    assert f"{path}=" in _problem(config)


def test_the_ends_of_a_range_are_allowed():
  config = _valid()
  config.run.seed = 2**32 - 1
  config.warm_start.renamed_share = 1.0
  config.learner.weight_decay = 0
  config_validation.validate(config)


def test_a_mini_batch_divides_the_trajectories_not_the_tasks():
  config = _valid()
  config.learner.mini_batch_trajectories = 64  # of 32 tasks x 8 members
  config_validation.validate(config)


def test_every_number_has_a_range():
  numbers = {
    path
    for path, kind in config_validation.field_types().items()
    if kind in (int, float) and not path.startswith("mesh.")
  }
  assert numbers == set(config_validation.RANGES)


@pytest.mark.parametrize(
  ("path", "value", "words"),
  [
    ("learner.lr", "1e-6", "a number"),
    ("learner.lr", True, "a number"),
    ("learner.epochs", 1.0, "an integer"),
    ("learner.epochs", True, "an integer"),
    ("training.export_hf", 1, "true or false"),
    ("tasks.train", None, "a string"),
    ("tools.enabled", ["a"], "a tuple of strings"),
    ("tools.enabled", "a", "a tuple of strings"),
    ("agent.outputs", (1,), "a tuple of strings"),
  ],
)
def test_a_wrong_type_is_refused(path, value, words):
  config = _valid()
  _set(config, path, value)
  message = _problem(config)
  assert path in message
  assert words in message
  assert repr(value) in message


def test_an_unknown_key_set_by_a_config_file_is_refused():
  config = _valid()
  config.learner.lrr = 1e-3  # pyright: ignore[reportAttributeAccessIssue]
  assert _problem(config) == (
    "unknown config key 'learner.lrr'; nearest: 'learner.lr'"
  )
  config = _valid()
  config.learning_rate = 1  # pyright: ignore[reportAttributeAccessIssue]
  assert "'learning_rate'" in _problem(config)


def test_an_overwritten_section_is_refused():
  config = _valid()
  config.learner = {"lr": 1}  # pyright: ignore[reportAttributeAccessIssue]
  assert "config section 'learner'" in _problem(config)


def test_evaluation_may_do_what_training_may_not():
  config = _valid()
  config.sampler.top_p = 0.9
  config.engines.planner = "frozen"
  config.rollout.group_size = 1
  config_validation.validate(config, training=False)
  config.agent.outputs = ()
  assert "agent.outputs" in _problem(config, training=False)


def test_the_tools_of_mcp_servers_are_enough():
  config = _valid()
  config.tools.enabled = ()
  config.tools.mcp_servers = ("clock=python clock_server.py",)
  config_validation.validate(config)


def test_a_monolithic_agent_has_no_memory_and_asks_no_frozen_module():
  config = _valid()
  config.agent.flow = "monolithic"
  config.learner.trained_roles = ("policy",)
  config.agent.memory_tokens = config.sampler.max_prompt_tokens
  config.engines.tool = "vllm:m"
  config.engines.frozen_max_tokens = config.sampler.max_completion_tokens + 1
  config_validation.validate(config)
  assert flows.engine_names(config) == {"policy": "trainable", "tool": "vllm:m"}


def test_several_roles_of_one_engine_may_be_trained():
  config = _valid()
  config.learner.trained_roles = ("planner", "verifier")
  config.engines.verifier = "trainable"
  config_validation.validate(config)


def test_engines_are_read_by_the_first_colon():
  config = _valid()
  for name in (
    "openai:gpt-4o-mini",
    "vllm:openai/gpt-oss-20b",
    "together:azure/claude",
    "ollama:gpt-oss:20b",
    "compatible:/ckpt/foo1/x",
  ):
    config.engines.executor = name
    config_validation.validate(config)


def test_all_problems_are_told_at_once():
  config = _valid()
  config.rollout.group_size = 1
  config.sampler.top_k = 3
  message = _problem(config)
  assert "rollout.group_size" in message
  assert "sampler.top_k" in message


@pytest.mark.parametrize(
  ("written", "meant"),
  [
    ("learner.lrr", "learner.lr"),
    ("lr", "learner.lr"),
    ("train.lr", "learner.lr"),
    ("sampler.temp", "sampler.temperature"),
    ("rollout.groups", "rollout.group_size"),
    ("training.iteration", "training.iterations"),
  ],
)
def test_the_nearest_key_is_the_one_meant(written, meant):
  known = config_validation.field_types()
  assert config_validation.nearest(written, known) == meant
