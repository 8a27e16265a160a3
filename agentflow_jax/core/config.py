"""The whole config as one dataclass tree; every knob acts.

Mutable so that launch scripts can apply `--config.section.key=value`;
core/config_validation.py checks it at start and nothing writes afterwards.
Names carry units (`_s` seconds, `_mb` mebibytes, `_tokens`).
"""

import dataclasses

from agentflow_jax.core import (
  agent_config,
  learner_presets,
  lora_config,
  training_config,
)


def _section(cls):
  return dataclasses.field(default_factory=cls)


@dataclasses.dataclass
class RunConfig:
  """Identity of the run."""

  seed: int = 0  # Of every random choice: weights, tasks, sampling
  # Where everything goes; "" = runs/<config name>-seed<seed>.
  run_dir: str = ""
  # Compiled programs are kept here across runs; "" = beside the run dir.
  compile_cache_dir: str = ""


@dataclasses.dataclass
class ModelConfig:
  """The trained network and where its weights start."""

  # A Hugging Face directory to start from; "" = random weights of `preset`.
  checkpoint: str = ""
  # Architecture when there is no checkpoint: a name in models/presets.py.
  preset: str = "worldfacts_planner"
  # Type that is computed in.
  dtype: str = "float32"  # float32 | bfloat16
  # Type that parameters are stored in.
  param_dtype: str = "float32"  # float32 | bfloat16
  # The backward pass keeps everything, layer inputs with what attention gave,
  # layer inputs, or those on the host; it computes the rest again.
  remat: str = "none"  # none | attention | block | offload
  lora: lora_config.LoraConfig = _section(lora_config.LoraConfig)


@dataclasses.dataclass
class MeshConfig:
  """Devices per mesh axis; -1 (one axis only) takes what is left."""

  data: int = -1  # Devices that repeat the parameters and split the batch
  fsdp: int = 1  # Devices that split parameters, optimizer state and batch
  tensor: int = 1  # Devices that split heads, feed-forward and vocabulary


@dataclasses.dataclass
class TasksConfig:
  """Questions to train and evaluate on."""

  # "worldfacts", "jsonl:PATH" (id, question, answers, data_source, scorer),
  # "tfds:NAME" (launch/prepare_data.py) or "mix:SPEC@WEIGHT@LIMIT,...".
  train: str = "worldfacts"
  # Held-out questions, named as in tasks.train.
  evaluation: str = "worldfacts"
  # Prepared datasets and indexes; "" = RUN_DIR/data.
  data_dir: str = ""
  # Evaluate on the first N questions; 0 = all.
  evaluation_questions: int = 0


@dataclasses.dataclass
class EngineOptions:
  """How one role's PROVIDER:MODEL (or "frozen") is reached and sampled."""

  # Where the API is; "" = the provider's own address.
  base_url: str = ""
  # Sampling temperature, 0 = greedy; -1 = engines.frozen_temperature.
  temperature: float = -1.0
  # Share of probability sampled from (nucleus); 1 = all.
  top_p: float = 1.0
  # Tokens of one answer at most; 0 = engines.frozen_max_tokens.
  max_tokens: int = 0
  # Bind answers to a JSON schema where the provider can do so.
  structured: bool = True
  # Price of a million prompt tokens, in any currency; for the cost metric.
  input_price: float = 0.0
  # Price of a million completion tokens.
  output_price: float = 0.0


@dataclasses.dataclass
class EnginesConfig:
  """Who answers for each role.

  "trainable" = the policy, "frozen" = the start model (shared with the KL
  reference), "scripted:worldfacts" = the rules of the embedded world,
  "scripted:search" = rules that search for what the planner says, and go on,
  "PROVIDER:MODEL" = a model behind an API (core/providers.py), e.g.
  "openai:gpt-4o-mini" or "vllm:Qwen/Qwen2.5-7B-Instruct".
  """

  planner: str = "trainable"  # Who picks each sub-goal and tool
  executor: str = "frozen"  # Who writes the tool call
  verifier: str = "frozen"  # Who decides when to stop
  generator: str = "frozen"  # Who writes the answer
  tool: str = "frozen"  # Whom tools ask that need a model
  # Whoever is all four modules in the monolithic flow.
  policy: str = "trainable"
  # Asked about answers the rules call wrong, greedily; "" = rules only.
  judge: str = ""
  planner_options: EngineOptions = _section(EngineOptions)
  executor_options: EngineOptions = _section(EngineOptions)
  verifier_options: EngineOptions = _section(EngineOptions)
  generator_options: EngineOptions = _section(EngineOptions)
  tool_options: EngineOptions = _section(EngineOptions)
  policy_options: EngineOptions = _section(EngineOptions)
  judge_options: EngineOptions = _section(EngineOptions)
  call_timeout_s: float = 120.0  # Seconds that one try of a call may take
  # Further tries after an infrastructure failure, with jittered back-off.
  retries: int = 2
  # Sampling temperature of roles that are not trainable; 0 = greedy.
  frozen_temperature: float = 0.0
  frozen_max_tokens: int = 1024  # Tokens of one answer of such a role
  # Calls to one role's API at the same time; further ones wait.
  max_concurrent_calls: int = 64
  # Failures in a row after which an API is left alone for a while.
  circuit_failures: int = 5
  circuit_pause_s: float = 10.0  # Seconds that an API is left alone then
  # Let APIs send answers piece by piece (for gateways that cut idle calls).
  stream: bool = False
  # Answers of APIs are kept here and used again; "" = off.
  cache_dir: str = ""

  def options(self, role: str) -> EngineOptions:
    return getattr(self, f"{role}_options")


JUDGE = "judge"
# The fields of EnginesConfig that name an engine.
ENGINE_ROLES = (
  *("planner", "executor", "verifier", "generator", "tool", "policy", JUDGE),
)


@dataclasses.dataclass
class ToolsConfig:
  """Tools the planner may choose, and their limits."""

  # Names the planner may choose from; docs/tools.md lists them.
  enabled: tuple[str, ...] = (
    "base_generator",
    "python_coder",
    "wikipedia_search",
  )
  call_timeout_s: float = 120.0  # Seconds that one tool call may take
  # Characters of a result kept for the prompts; the middle is cut.
  max_output_chars: int = 20000
  max_output_tokens: int = 4096  # Tokens of a result kept, likewise
  # Where wikipedia_search looks: a saved index, or the API of a wiki.
  wikipedia_source: str = "index"  # index | api
  # Address of the wiki's API (MediaWiki).
  wikipedia_api_url: str = "https://en.wikipedia.org/w/api.php"
  # What launch/build_index.py wrote; "" = the index worldfacts builds.
  search_index_dir: str = ""
  search_top_k: int = 3  # Results that a search returns
  # Characters of a passage that wikipedia_search shows; 0 = all.
  search_passage_chars: int = 0
  # An OpenAI-compatible embedding API for dense search; "" = BM25.
  embedding_url: str = ""
  embedding_model: str = ""  # The model to ask for at embedding_url
  # Who answers google_search.
  # programmable_search | gemini | searxng | retrieve
  google_backend: str = "programmable_search"
  # Where google_backend is reached; "" = Google's own address.
  google_url: str = ""
  # The model that searches, with google_backend=gemini.
  google_model: str = "gemini-2.5-flash"
  # HOST:PORT pairs web_search may reach though they are not public.
  web_allowed_hosts: tuple[str, ...] = ()
  # Modules to import that define tools of your own (docs/tools.md).
  user_modules: tuple[str, ...] = ()
  # MCP servers whose tools are added: NAME=COMMAND or NAME=URL.
  mcp_servers: tuple[str, ...] = ()
  # Where model code runs: monty (a subset) | bubblewrap (CPython in a jail).
  python_sandbox: str = "monty"  # monty | bubblewrap
  python_timeout_s: float = 10.0  # Seconds that a program may run
  python_memory_mb: int = 256  # Mebibytes that a program may use
  python_max_output_chars: int = 3500  # Characters of its output kept


@dataclasses.dataclass
class SamplerConfig:
  """How the policy is sampled. Training rejects top_k/top_p/min_p."""

  temperature: float = 0.7  # Divides the logits; 0 = greedy
  top_k: int = 0  # Sample from the k likeliest tokens; 0 = all
  top_p: float = 1.0  # Sample from this share of probability; 1 = all
  # Leave out tokens below this share of the likeliest one's probability.
  min_p: float = 0.0
  max_prompt_tokens: int = 18432  # Tokens of a prompt; more is an error
  max_completion_tokens: int = 2048  # Tokens of one completion at most
  # Rows decoded together; further requests wait.
  slots: int = 64
  # Decode steps of a window; a dispatch has more of them while nobody waits.
  decode_steps: int = 16
  # Prompt tokens of one row computed per prefill dispatch.
  prefill_chunk_tokens: int = 128


@dataclasses.dataclass
class RolloutConfig:
  """Episodes per iteration and how they run."""

  tasks: int = 32  # Questions per iteration
  group_size: int = 8  # Episodes per question, compared with each other
  max_concurrent_episodes: int = 256  # Episodes that run at the same time
  # Seconds a rollout may take; unfinished episodes are masked.
  timeout_s: float = 3600.0
  # With fewer members left by failures than this, a group is masked whole.
  min_group: int = 2
  # Record every n-th iteration's trajectories as JSONL.
  record_every: int = 1
  # record: keep all engine and tool answers; replay: answer from them.
  replay: str = "off"  # off | record | replay
  # Where recorded answers are; needed with replay=record and replay=replay.
  replay_dir: str = ""


@dataclasses.dataclass
class LearnerConfig(learner_presets.Preset):
  """Flow-GRPO and its optimizer (design section 5)."""

  # Recipe of core/learner_presets.py for the loss, before any other key.
  preset: str = learner_presets.field()
  # Whose completions are trained, of those that "trainable" answers.
  trained_roles: tuple[str, ...] = ("planner",)
  lr: float = 1e-6  # Peak learning rate of AdamW
  # Course of the rate after warm-up; the last two fall to 0 at the end.
  schedule: str = "constant"  # constant | linear | cosine
  warmup_steps: int = 0  # Optimizer steps in which the rate rises to lr
  b1: float = 0.9  # AdamW: decay of the mean of gradients
  b2: float = 0.999  # AdamW: decay of the mean of squared gradients
  eps: float = 1e-8  # AdamW: added to the divisor of a step
  weight_decay: float = 0.01  # AdamW: a step shrinks weights by lr times this
  max_grad_norm: float = 1.0  # Gradients with a larger norm are scaled down
  # False: embeddings and head stay, so that unseen names are still copied.
  train_embeddings: bool = True
  # Trajectories per optimizer step; 0 = all of the iteration.
  mini_batch_trajectories: int = 0
  # Passes over an iteration's trajectories.
  epochs: int = 1
  clip_low: float = 0.2  # The probability ratio is clipped below 1 - this
  clip_high: float = 0.3  # The probability ratio is clipped above 1 + this
  # Dual clip for negative advantages; 0 = off.
  dual_clip: float = 0.0
  # beta of the KL to the reference; 0 = no reference forward.
  kl_coefficient: float = 0.001
  # Estimate per token, with r = log(reference / current): k1 = -r, k2 =
  # r^2 / 2, k3 = e^r - 1 - r.
  kl_estimator: str = "k3"  # k1 | k2 | k3
  entropy_coefficient: float = 0.0  # Reward for entropy of the policy; 0 = off
  # What counts alike: episodes and the turns in each; tokens; turns; tokens,
  # over a fixed number.
  aggregation: str = "flow"  # flow | token_mean | turn_mean | constant
  # Probability ratios are taken per token, or per completion as in GSPO.
  ratio: str = "token"  # token | sequence
  # Truncated importance sampling cap on the ratio weight; 0 = off.
  importance_cap: float = 0.0
  # Clip against logprobs that the learner computes before the first step.
  recompute_behavior: bool = False
  # Taken off a reward; "none" needs normalize_by_std=False.
  baseline: str = "group_mean"  # group_mean | leave_one_out | none
  normalize_by_std: bool = True  # Divide advantages by the group's deviation
  # What counts once in a group's mean and deviation.
  statistics_over: str = "trajectories"  # trajectories | turns
  # Resample zero-spread groups at most this many times (dynamic sampling).
  refill_rounds: int = 0
  row_tokens: int = 20480  # Tokens of a packed row
  micro_batch_rows: int = 1  # Rows per device and micro-batch
  # tree: a group's shared prefixes computed once; rows: one row per sample.
  packing: str = "tree"  # tree | rows
  # Completion tokens scored at once by the LM head.
  loss_chunk_tokens: int = 1024
  # Non-finite steps in a row before the run aborts.
  max_non_finite_steps: int = 5
  # Abort when mean |current - behavior logprob| exceeds this; 0 = never.
  max_drift: float = 0.0


@dataclasses.dataclass
class WarmStartConfig:
  """Teach a random planner the format, with random strategy.

  For worldfacts, and for whatever the rules of scripted:search search for.
  """

  enabled: bool = False  # Needs one of these and no checkpoint
  vocab_size: int = 4096  # Tokens of the tokenizer that is trained
  # Optimizer steps of stage 1: repeat random token segments (forms copying).
  copy_steps: int = 600
  copy_batch_tokens: int = 1024  # Tokens per step of stage 1
  copy_lr: float = 5e-3  # Peak learning rate of stage 1
  # Episodes of random strategy that stage 2 imitates.
  traces: int = 1500
  imitation_steps: int = 600  # Optimizer steps of stage 2
  imitation_rows: int = 16  # Rows of learner.row_tokens per step of stage 2
  imitation_lr: float = 2e-3  # Peak learning rate of stage 2
  # Plans imitated per prompt: the episode's, and others drawn at random.
  plans_per_prompt: int = 1
  # Share of traces whose names are replaced by made-up ones.
  renamed_share: float = 0.8


@dataclasses.dataclass
class Config:
  """Everything a run depends on.

  Example: `Config()` is Flow-GRPO with the paper's settings;
  `configs/quickstart.py` is the laptop version.
  """

  run: RunConfig = _section(RunConfig)
  model: ModelConfig = _section(ModelConfig)
  mesh: MeshConfig = _section(MeshConfig)
  tasks: TasksConfig = _section(TasksConfig)
  agent: agent_config.AgentConfig = _section(agent_config.AgentConfig)
  engines: EnginesConfig = _section(EnginesConfig)
  tools: ToolsConfig = _section(ToolsConfig)
  sampler: SamplerConfig = _section(SamplerConfig)
  rollout: RolloutConfig = _section(RolloutConfig)
  learner: LearnerConfig = _section(LearnerConfig)
  warm_start: WarmStartConfig = _section(WarmStartConfig)
  training: training_config.TrainingConfig = _section(
    training_config.TrainingConfig
  )
