r"""Serves a model over HTTP as an OpenAI-compatible chat completions API.

POST /v1/chat/completions (streamed or not), GET /v1/models, GET /health.
Listens on loopback and wants the token in SERVE_TOKEN; it speaks plain HTTP, so
put it behind a proxy with TLS before it leaves the machine.

Example:
  export SERVE_TOKEN=$(openssl rand -hex 32)
  python launch/serve.py --checkpoint=runs/quickstart-seed0 --name=planner
  python launch/serve.py --checkpoint=planner --config=configs/quickstart.py \
    --config.sampler.slots=16 --port=8002

Our agents ask it as engine "compatible:planner", with the token as
COMPATIBLE_API_KEY, engines.ROLE_options.base_url=http://127.0.0.1:8001/v1 and
engines.ROLE_options.structured=false.

The sections sampler, mesh and model are those of the run the checkpoint lies
in; a model that comes alone takes --config. --config.section.key=value changes
either: sampler.slots completions are drawn at once, --max_waiting more wait,
others are answered 429. What a request leaves out is as in the section sampler.
"""

import asyncio
import pathlib
import signal
import socket

from absl import flags

from agentflow_jax.core import config as config_lib
from agentflow_jax.core import config_validation
from agentflow_jax.core import engine as engine_lib
from agentflow_jax.tools import serving
from agentflow_jax.training import cli, compile_cache, model_files
from agentflow_jax.training import run_dir as run_dir_lib

_TOKEN_VARIABLE = "SERVE_TOKEN"
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", None, "A run, a model or a Hugging Face dir.", required=True
)
_NAME = flags.DEFINE_string(
  "name", "", "The model's name to clients; else that of its directory."
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
_PORT = flags.DEFINE_integer(
  "port", 8001, "Port to listen on; 0 is any.", lower_bound=0, upper_bound=65535
)
_MAX_WAITING = flags.DEFINE_integer(
  "max_waiting",
  64,
  "Requests that wait for a slot; further ones get 429.",
  lower_bound=0,
  upper_bound=1024,
)
_NO_TOKEN = flags.DEFINE_bool(
  "no_token", False, "Answer everybody (on loopback only)."
)
_CONFIG = cli.define_config_flag()


def main(argv: list[str]) -> None:
  del argv
  token = serving.token(
    _TOKEN_VARIABLE,
    host=_HOST.value,
    without=_NO_TOKEN.value,
    what="the model",
  )
  serving.import_httptools()
  config = _chosen_config()
  config_validation.validate(config, training=False)
  model_files.check_model(_CHECKPOINT.value)
  run = model_files.find_run(_CHECKPOINT.value)
  compile_cache.enable(
    config.run.compile_cache_dir
    or (run.parent if run else run_dir_lib.cache_dir()) / "compile_cache"
  )
  name = _NAME.value or pathlib.Path(_CHECKPOINT.value).absolute().name
  # Before the model is loaded, so that a taken port is noticed at once.
  with serving.listen(_HOST.value, _PORT.value) as sock:
    asyncio.run(_serve(config, name, token, sock))


def _chosen_config() -> config_lib.Config:
  """The named file's, else the run's, else the built-in one; then flags."""
  run = model_files.find_run(_CHECKPOINT.value)
  if run is None or cli.has_config_file():
    return _CONFIG.value
  config = run_dir_lib.read_config(run)
  cli.apply_overrides(config)
  return config


async def _serve(
  config: config_lib.Config, name: str, token: str, sock: socket.socket
) -> None:
  """Serves until a signal."""
  from agentflow_jax.assembly import api_connection, chat_server

  stop = asyncio.Event()
  loop = asyncio.get_running_loop()
  sampler = config.sampler
  async with chat_server.open_engine(config, _CHECKPOINT.value, name) as engine:
    server = chat_server.ChatServer(
      engine,
      model=name,
      token=token,
      defaults=engine_lib.SamplingParams(
        temperature=sampler.temperature,
        top_k=sampler.top_k,
        top_p=sampler.top_p,
        min_p=sampler.min_p,
        max_tokens=sampler.max_completion_tokens,
      ),
      max_open=sampler.slots + _MAX_WAITING.value,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
      loop.add_signal_handler(number, stop.set)
    print(
      f"serving {name} on {_HOST.value}:{sock.getsockname()[1]}", flush=True
    )
    await api_connection.serve(server.answer, sock, stop)


if __name__ == "__main__":
  cli.run_app(main)
