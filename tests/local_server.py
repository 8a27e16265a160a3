"""A real HTTP server on loopback that does what a test says."""

import contextlib
import http.server
import json
import threading


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_GET(self):
    self._answer(b"")

  def do_POST(self):
    self._answer(self.rfile.read(int(self.headers.get("content-length", 0))))

  def _answer(self, body):
    self.server.requests.append((self.command, self.path, body))
    self.server.seen.append(dict(self.headers))
    self.close_connection = True
    with contextlib.suppress(OSError):  # a client that hung up
      self.server.answer(self)

  def log_message(self, *args):
    pass

  def send(self, body, status=200, kind="text/html", **headers):
    """A whole answer."""
    self.send_response(status)
    self.send_header("content-type", kind)
    self.send_header("content-length", str(len(body)))
    for name, value in headers.items():
      self.send_header(name.replace("_", "-"), value)
    self.end_headers()
    self.wfile.write(body)

  def send_json(self, value, status=200):
    self.send(json.dumps(value).encode(), status, "application/json")


class LocalServer(http.server.ThreadingHTTPServer):
  """`requests` holds (method, path, body), `seen` the headers."""

  daemon_threads = True
  request_queue_size = 256

  def __init__(self, answer):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.answer = answer
    self.requests = []
    self.seen = []

  @property
  def authority(self):
    return f"127.0.0.1:{self.server_port}"

  @property
  def url(self):
    return f"http://{self.authority}"

  def handle_error(self, request, client_address):
    pass


@contextlib.contextmanager
def serving(answer):
  """Runs a server whose `answer(handler)` is called for every request."""
  server = LocalServer(answer)
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
