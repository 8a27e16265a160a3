"""Runs api_server.py as a process, for the tests that talk to it."""

import contextlib
import json
import pathlib
import subprocess
import sys
import urllib.request

_SERVER = pathlib.Path(__file__).with_name("api_server.py")
KEY = "sk-canary-5d1e77b0"


class Api:
  """The running server."""

  def __init__(self, port: int):
    self.base_url = f"http://127.0.0.1:{port}/v1"
    self._stats = f"http://127.0.0.1:{port}/stats"

  def stats(self):
    with urllib.request.urlopen(self._stats, timeout=30) as response:
      return json.load(response)


@contextlib.contextmanager
def serve(key: str = KEY):
  """Starts the server; it ends with the block."""
  process = subprocess.Popen(
    [sys.executable, "-I", str(_SERVER)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdin and process.stdout
  try:
    process.stdin.write(f"{key}\n")  # not an argument: those are public
    process.stdin.flush()
    yield Api(int(process.stdout.readline()))
  finally:
    process.stdin.close()
    process.wait(30)
    process.stdout.close()
