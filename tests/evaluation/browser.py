"""A real Chromium, driven over the W3C WebDriver protocol with urllib alone."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.request

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-dev-shm-usage",
  "--window-size=1280,1000",
)
KEYS = {
  **{"up": "\ue013", "down": "\ue015", "left": "\ue012", "right": "\ue014"},
  **{"home": "\ue011", "end": "\ue010", "enter": "\ue007"},
  **{"escape": "\ue00c", "/": "/"},
}


def find() -> tuple[str, str] | None:
  """Paths of a browser and its driver; $CHROMIUM and $CHROMEDRIVER win."""
  browser = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, _BROWSERS)), None
  )
  driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
  return (browser, driver) if browser and driver else None


class Browser:
  """One session."""

  def __init__(self, address: str, session: str):
    self._base = f"{address}/session/{session}"

  def open(self, path: pathlib.Path) -> None:
    self._send("POST", "/url", {"url": path.resolve().as_uri()})

  def run(self, script: str, *arguments):
    """What JavaScript returns, a promise's value included.

    It runs outside of the page's policy.
    """
    body = {"script": script, "args": list(arguments)}
    return self._send("POST", "/execute/sync", body)

  def click(self, css: str) -> None:
    self.run(  # at once: the page scrolls smoothly, and clicks would miss
      "document.querySelector(arguments[0]).scrollIntoView("
      "{behavior: 'instant', block: 'center'})",
      css,
    )
    self._send("POST", f"/element/{self._find(css)}/click", {})

  def type(self, css: str, text: str) -> None:
    path = f"/element/{self._find(css)}/value"
    self._send("POST", path, {"text": text})

  def press(self, key: str) -> None:
    """A key, to whatever has the focus."""
    actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
    keyboard = {"type": "key", "id": "keyboard", "actions": actions}
    self._send("POST", "/actions", {"actions": [keyboard]})

  def scheme(self, name: str) -> None:
    """As if the user's system were "dark", or "light"."""
    features = [{"name": "prefers-color-scheme", "value": name}]
    command = {"cmd": "Emulation.setEmulatedMedia", "params": {}}
    command["params"] = {"features": features}
    self._send("POST", "/goog/cdp/execute", command)

  def size(self, width: int, height: int) -> None:
    body = {"width": width, "height": height}
    self._send("POST", "/window/rect", body)

  def screenshot(self, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

  def complaints(self) -> list[str]:
    """What the page logged as errors, refused requests included."""
    entries = self._send("POST", "/se/log", {"type": "browser"})
    return [entry["message"] for entry in entries]

  def _find(self, css: str) -> str:
    body = {"using": "css selector", "value": css}
    return next(iter(self._send("POST", "/element", body).values()))

  def _send(self, method, path, body=None):
    return _request(method, self._base + path, body)


@contextlib.contextmanager
def start(browser: str, driver: str):
  """A session; browser and driver end with the block."""
  process = subprocess.Popen(
    [driver, "--port=0"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  assert process.stdout
  try:
    port = next(
      line.rsplit(" ", 1)[1].strip(" .\n")
      for line in process.stdout
      if "started successfully on port" in line
    )
    address = f"http://127.0.0.1:{port}"
    options = {"binary": browser, "args": list(_ARGUMENTS)}
    wanted = {
      "goog:chromeOptions": options,
      "goog:loggingPrefs": {"browser": "ALL"},
    }
    body = {"capabilities": {"alwaysMatch": wanted}}
    made = _request("POST", f"{address}/session", body)
    session = Browser(address, made["sessionId"])
    try:
      yield session
    finally:
      _request("DELETE", f"{address}/session/{made['sessionId']}")
  finally:
    process.kill()
    process.wait()


def _request(method, url, body=None):
  data = None if body is None else json.dumps(body).encode()
  request = urllib.request.Request(url, data=data, method=method)
  try:
    with urllib.request.urlopen(request, timeout=300) as response:
      return json.load(response)["value"]
  except urllib.error.HTTPError as error:
    raise RuntimeError(json.load(error)["value"]["message"]) from error
