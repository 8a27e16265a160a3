"""What our HTTP servers have in common: who may ask, and where they listen."""

import ipaddress
import os
import socket
from typing import Any

from agentflow_jax.core import errors


def token(variable: str, *, host: str, without: bool, what: str) -> str:
  """What clients have to send; "" if everybody may ask, on loopback only.

  Args:
    variable: the environment variable that holds it.
    host: where the server listens.
    without: whether the user asked for no token.
    what: is served, for the message: "the model".

  Raises:
    UserError: there is none, or none was asked for beyond loopback.
  """
  if not without:
    found = os.environ.get(variable, "").strip()
    if not found:
      raise errors.UserError(
        f"set {variable} to a secret of your choice, or pass --no_token on "
        "loopback"
      )
    return found
  try:
    loopback = ipaddress.ip_address(host).is_loopback
  except ValueError:
    loopback = host == "localhost"
  if not loopback:
    raise errors.UserError(
      f"--no_token would open {what} to everybody who reaches {host}"
    )
  return ""


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
  """An open socket; with `shared` several processes may have the port.

  Raises:
    UserError: the port is taken, or the address is not ours.
  """
  try:
    return socket.create_server((host, port), backlog=1024, reuse_port=shared)
  except OSError as error:
    raise errors.UserError(
      f"can not listen on {host}:{port}: {error}"
    ) from error


def import_httptools() -> Any:
  """The HTTP parser.

  Raises:
    UserError: the extra is missing.
  """
  try:
    import httptools
  except ImportError as error:
    raise errors.UserError(
      "serving needs the extra: pip install 'agentflow_jax[serve]'"
    ) from error
  return httptools
