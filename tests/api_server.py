"""A chat completions API on loopback, run as a process; models misbehave.

The model's name says how: "echo" answers, "busy-2" refuses twice with 429 and
then answers, and so on (see `_answer`); "faulty-20" fails or dawdles for one
request in five, as if it were one of the others. A GET of /stats is a JSON
object of what was seen: requests per model, bodies, most at the same time, open
now, faults by model.

  python api_server.py   # reads the key, prints its port, ends with stdin
"""

import asyncio
import collections
import json
import random
import sys
import threading

_STATS = {
  "open": 0,
  "most": 0,
  "requests": collections.Counter(),
  "bodies": [],
  "faults": collections.Counter(),
}
# What "faulty" behaves as where it does not answer; all but "slow" are none.
_FAULTS = ("hang", "slow", "cut", "half", "status-429", "status-500")
_random = random.Random(5)
_SCHEMAS = {
  "NextStep": {
    "justification": "j",
    "context": "Laos",
    "sub_goal": "find the capital",
    "tool_name": "Wikipedia_Search_Tool",
  },
  "ToolCommand": {
    "analysis": "a",
    "command": 'execution = tool.execute(query="Laos capital")',
  },
  "MemoryVerification": {"analysis": "enough", "stop_signal": True},
}


def _text(body):
  """What "echo" says: the schema's object, or the last user message."""
  bound = body.get("response_format")
  if bound:
    return json.dumps(_SCHEMAS[bound["json_schema"]["name"]])
  users = [m["content"] for m in body["messages"] if m["role"] == "user"]
  return f"echo: {users[-1]}"


def _completion(text, reason="stop"):
  return json.dumps(
    {
      "id": "c1",
      "object": "chat.completion",
      "created": 1,
      "model": "m",
      "choices": [
        {
          "index": 0,
          "finish_reason": reason,
          "message": {"role": "assistant", "content": text},
        }
      ],
      "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 10,
        "total_tokens": 1010,
      },
    }
  )


def _events(text):
  """One event per character, then the end, then the usage."""
  choice = {"index": 0, "finish_reason": None}
  for character in text:
    yield {"choices": [choice | {"delta": {"content": character}}]}
  yield {"choices": [choice | {"delta": {}, "finish_reason": "stop"}]}
  usage = {"prompt_tokens": 1000, "completion_tokens": 10}
  yield {"choices": [], "usage": usage}


class _Reply:
  def __init__(self, writer):
    self._writer = writer

  async def head(self, status, length=None, headers=(), kind="json"):
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: application/{kind}"]
    lines += [*headers, "Connection: close"]
    if length is not None:
      lines.append(f"Content-Length: {length}")
    await self.raw("\r\n".join(lines) + "\r\n\r\n")

  async def whole(self, status, text, headers=(), kind="json"):
    body = text.encode("utf-8")
    await self.head(status, len(body), headers, kind)
    await self.raw(body)

  async def error(self, status, message, code=None, headers=()):
    error = {"message": message, "code": code, "type": "t", "param": None}
    await self.whole(status, json.dumps({"error": error}), headers)

  async def raw(self, data):
    self._writer.write(data.encode() if isinstance(data, str) else data)
    await self._writer.drain()

  async def stream(self, text, cut=False):
    await self.head(200, kind="event-stream")
    events = list(_events(text))
    for event in events[: len(events) // 2] if cut else events:
      await self.raw(f"data: {json.dumps(event)}\n\n")
    if not cut:
      await self.raw("data: [DONE]\n\n")


async def _answer(model, body, reply, key):
  """Behaves as `model` says."""
  name, _, number = model.partition("-")
  if name == "faulty":
    if _random.random() < int(number) / 100:
      name, _, number = _random.choice(_FAULTS).partition("-")
      _STATS["faults"]["-".join(filter(None, (name, number)))] += 1
  seen = _STATS["requests"][model]
  text = _text(body)
  if name in ("busy", "down") and seen <= int(number):
    status = 429 if name == "busy" else 503
    await reply.error(status, "later", headers=["Retry-After: 0.05"])
  elif name == "status":
    await reply.error(int(number), f"no, {key} will not do")
  elif name == "long":
    await reply.error(
      400,
      "This model's maximum context length is 4096 tokens. However, you "
      "requested 5000 tokens.",
      "context_length_exceeded",
    )
  elif name == "hang":
    await asyncio.sleep(3600)
  elif name == "drip":
    await reply.head(200)
    while True:
      await reply.raw(b" ")
      await asyncio.sleep(0.01)
  elif name == "cut":
    if body.get("stream"):
      await reply.stream(text, cut=True)
    else:
      whole = _completion(text).encode()
      await reply.head(200, len(whole))
      await reply.raw(whole[: len(whole) // 2])
  elif name == "half":  # truncated JSON of the right length
    await reply.whole(200, _completion(text)[:-20])
  elif name == "html":
    await reply.whole(200, "<html>gateway</html>", kind="html")
  elif name == "shape":
    await reply.whole(200, '{"choices": [{"message": {"content": 7}}]}')
  elif name == "error":
    await reply.whole(200, f'{{"error": "{key} is overloaded"}}')
  elif name == "endless":
    await reply.head(200)
    while True:
      await reply.raw(b" " * 65536)
  elif name == "schema":
    await reply.whole(200, _completion('{"stop_signal": "perhaps"}'))
  elif name == "short":
    await reply.whole(200, _completion('{"analysis": "eno', "length"))
  elif name == "filter":
    await reply.whole(200, _completion("", "content_filter"))
  elif name == "slow":
    await asyncio.sleep(0.05)
    await reply.whole(200, _completion(text))
  elif body.get("stream"):
    await reply.stream(text)
  else:
    await reply.whole(200, _completion(text))


async def _serve(reader, writer, key):
  reply = _Reply(writer)
  _STATS["open"] += 1
  try:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if head.startswith("GET /stats"):
      _STATS["open"] -= 1
      await reply.whole(200, json.dumps(_STATS))
      _STATS["open"] += 1
      return
    headers = dict(
      line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
    )
    body = json.loads(await reader.readexactly(int(headers["content-length"])))
    _STATS["most"] = max(_STATS["most"], _STATS["open"])
    _STATS["requests"][body["model"]] += 1
    _STATS["bodies"].append(body)
    if not head.startswith("POST /v1/chat/completions "):
      await reply.error(404, "no such path")
    elif headers.get("authorization") != f"bearer {key}".lower():
      await reply.error(401, f"Incorrect API key: {headers['authorization']}")
    else:
      # A client that leaves ends what it asked for.
      work = asyncio.ensure_future(_answer(body["model"], body, reply, key))
      gone = asyncio.ensure_future(reader.read(1))
      await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
      for task in (work, gone):
        task.cancel()
      await asyncio.gather(work, gone, return_exceptions=True)
  except (ConnectionError, asyncio.IncompleteReadError):
    pass
  finally:
    _STATS["open"] -= 1
    writer.close()


async def _main(key):
  server = await asyncio.start_server(
    lambda r, w: _serve(r, w, key), "127.0.0.1", 0, limit=2**24, backlog=1024
  )
  print(server.sockets[0].getsockname()[1], flush=True)
  loop, ended = asyncio.get_running_loop(), asyncio.Event()

  def wait_for_end():
    sys.stdin.read()
    loop.call_soon_threadsafe(ended.set)

  threading.Thread(target=wait_for_end, daemon=True).start()
  await ended.wait()


if __name__ == "__main__":
  asyncio.run(_main(sys.stdin.readline().strip()))
