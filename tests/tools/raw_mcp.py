"""An MCP server made by hand, which answers what no library would.

`python raw_mcp.py` speaks through its pipes, `python raw_mcp.py PORT` over
HTTP. Every tool's name says how it answers. With "stubborn" instead of a port
it ends neither at SIGTERM nor, while it hangs, when its stdin closes; with
"silent" it lists its tools once and never again.
"""

import gzip
import http.server
import json
import os
import signal
import sys
import time

_PIECE = b"x" * (1 << 20)
_PIECES = 100
_TEXT = b'{"content":[{"type":"text","text":"'
_END = b'"}]}'


def _long(before, after):
  yield before
  for _ in range(_PIECES):
    yield _PIECE
  yield after


def _in_order(number, result):
  return b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (number, result)


def _text(number, text):
  result = {"content": [{"type": "text", "text": text}]}
  return [_in_order(number, json.dumps(result).encode())]


def _first(number):
  head = b'{"jsonrpc":"2.0","id":%d,"result":' % number
  return _long(head + _TEXT, _END + b"}")


def _last(number):
  """As servers in JavaScript put it, with a number that misleads."""
  head = b'{"result":{"id":999,"content":[{"type":"text","text":"'
  return _long(head, _END + b',"jsonrpc":"2.0","id":%d}' % number)


def _unnamed(number):
  return _long(b'{"result":' + _TEXT, b'"}]},"id":%d,"more":{}}' % number)


def _hang(number):
  del number
  time.sleep(600)
  return []


TOOLS = {
  "pid": lambda number: _text(number, str(os.getpid())),
  "small": lambda number: _text(number, "ok"),
  "fits": lambda number: _text(number, "x" * 1_000_000),
  "first": _first,
  "last": _last,
  "unnamed": _unnamed,
  "packed": _first,
  "events": _first,
  "small_events": lambda number: _text(number, "ok"),
  "hang": _hang,
}


_listed = []


def _answer(request):
  """(name of the tool or "", pieces of the body), or None if none is due."""
  method, number = request["method"], request.get("id")
  if number is None:
    return None
  if method == "tools/call":
    name = request["params"]["name"]
    return name, TOOLS[name](number)
  if method == "initialize":
    result = {
      "protocolVersion": request["params"]["protocolVersion"],
      "capabilities": {"tools": {}},
      "serverInfo": {"name": "raw", "version": "1"},
    }
  elif method == "tools/list":
    if "silent" in sys.argv and _listed:
      time.sleep(600)
    _listed.append(number)
    schema = {"type": "object", "properties": {}}
    names = [{"name": name, "inputSchema": schema} for name in TOOLS]
    result = {"tools": names}
  else:
    error = {"code": -32601, "message": f"no {method}"}
    body = {"jsonrpc": "2.0", "id": number, "error": error}
    return "", [json.dumps(body).encode()]
  return "", [_in_order(number, json.dumps(result).encode())]


def _through_pipes():
  for line in sys.stdin.buffer:
    if found := _answer(json.loads(line)):
      for piece in found[1]:
        sys.stdout.buffer.write(piece)
      sys.stdout.buffer.write(b"\n")
      sys.stdout.buffer.flush()


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.send_error(405)

  do_DELETE = do_GET

  def do_POST(self):
    size = int(self.headers["content-length"])
    found = _answer(json.loads(self.rfile.read(size)))
    if found is None:
      self.send_response(202)
      self.end_headers()
      return
    name, pieces = found
    events = name.endswith("events")
    self.send_response(200)
    self.send_header(
      "content-type", "text/event-stream" if events else "application/json"
    )
    if name == "packed":
      self.send_header("content-encoding", "gzip")
      pieces = [gzip.compress(b"".join(pieces))]
    if events:
      pieces = [b"event: message\ndata: ", *pieces, b"\n\n"]
    self.end_headers()
    for piece in pieces:
      self.wfile.write(piece)

  def log_message(self, *args):
    pass


if __name__ == "__main__":
  if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
  if sys.argv[1:] and sys.argv[1].isdigit():
    address = ("127.0.0.1", int(sys.argv[1]))
    http.server.ThreadingHTTPServer(address, _Handler).serve_forever()
  else:
    _through_pipes()
