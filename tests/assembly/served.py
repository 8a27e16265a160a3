"""Runs a chat server on loopback, in a thread with an event loop of its own."""

import asyncio
import contextlib
import json
import socket
import threading
import urllib.request

from agentflow_jax.assembly import api_connection, chat_server
from agentflow_jax.core import engine as engine_lib

NAME, TOKEN = "planner", "serve-canary-90c1"


def server_of(engine, *, max_open=8, max_tokens=64, token=TOKEN):
  return chat_server.ChatServer(
    engine,
    model=NAME,
    token=token,
    defaults=engine_lib.SamplingParams(max_tokens=max_tokens),
    max_open=max_open,
  )


@contextlib.contextmanager
def serving(opened, **options):
  """The port of a server over an engine.

  Args:
    opened: an async context manager that gives the engine.
    **options: of `server_of`.
  """
  sock = socket.create_server(("127.0.0.1", 0))
  ready = threading.Event()
  stopping = []

  async def main():
    async with opened as engine:
      stop = asyncio.Event()
      loop = asyncio.get_running_loop()
      stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
      ready.set()
      await api_connection.serve(
        server_of(engine, **options).answer, sock, stop
      )

  thread = threading.Thread(target=asyncio.run, args=(main(),))
  thread.start()
  try:
    assert ready.wait(120)
    yield sock.getsockname()[1]
  finally:
    for stop in stopping:
      stop()
    thread.join()


def health(port):
  address = f"http://127.0.0.1:{port}/health"
  with urllib.request.urlopen(address, timeout=30) as response:
    return json.load(response)
