"""Asks a web service the user has configured, and reads its JSON.

One way for every client to fail: a ToolHostError that names the service and
the problem, never a key or a URL with one.
"""

from collections.abc import Mapping
from typing import Any

from agentflow_jax.core import deadline as deadline_lib
from agentflow_jax.core import errors
from agentflow_jax.tools import fetching, url_guard


class Service:
  """A JSON API behind one base URL.

  Args:
    name: what to call it in messages.
    url: where it is, chosen by the user and not checked further.

  Example: `await Service("Wikipedia", URL).get({"action": "query"}, deadline)`.
  """

  def __init__(self, name: str, url: str):
    self._name = name
    self._url = url
    self._fetcher = fetching.Fetcher(None)

  async def get(
    self,
    query: Mapping[str, str],
    deadline: deadline_lib.Deadline,
    headers: Mapping[str, str] | None = None,
  ) -> Any:
    """GETs with a query string; the JSON of a 200 answer.

    Raises:
      ToolHostError: anything else came back.
    """
    return await self._json(
      self._fetcher.get(
        self._url, query=query, headers=headers, deadline=deadline
      )
    )

  async def post(
    self,
    payload: Any,
    deadline: deadline_lib.Deadline,
    headers: Mapping[str, str] | None = None,
  ) -> Any:
    """POSTs JSON; raises as `get`."""
    return await self._json(
      self._fetcher.post_json(
        self._url, payload, headers=headers, deadline=deadline
      )
    )

  async def _json(self, request: Any) -> Any:
    try:
      response = await request
      if response.status != 200:
        raise fetching.FetchError(f"HTTP status {response.status}")
      return response.json()
    except (fetching.FetchError, url_guard.RefusedUrlError) as error:
      raise errors.ToolHostError(f"{self._name} failed: {error}") from error

  def malformed(self, error: Exception) -> errors.ToolHostError:
    """The error for JSON that is not shaped as the API says."""
    return errors.ToolHostError(
      f"{self._name} answered something unexpected: {type(error).__name__}"
    )
