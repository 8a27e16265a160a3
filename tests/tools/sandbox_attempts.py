"""Programs that try to get out of a sandbox, to break it, or to outlive it.

Each prints ESCAPED if it reached its goal. `{secret}` is a file on the host,
`{tcp}` `{unix}` `{abstract}` are servers on the host, `{canary}` the name of
an environment variable that holds a key. What each does where no sandbox holds
it, so that holding it is worth something, is in sandbox_controls.py.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
  """One program."""

  name: str
  code: str


def _tries(goal: str) -> str:
  """A program that prints ESCAPED if `goal` (an expression) comes out true."""
  return (
    "import os, sys\n"
    "try:\n"
    f"  found = {goal}\n"
    "except NameError: raise\n"  # a slip of ours
    "except BaseException as error:\n"
    "  found = None\n"
    "print('ESCAPED' if found else 'held')\n"
  )


_FILES = {
  "read_passwd": "open('/etc/passwd').read()",
  "read_shadow": "open('/etc/shadow').read()",
  "read_ssh": "os.listdir(os.path.expanduser('~/.ssh'))",
  "read_root": "os.listdir('/root')",
  "read_secret": "open('{secret}').read()",
  "read_dotdot": "open('../../../../../../../../{secret}').read()",
  "read_repository": "os.listdir('{repository}')",
  "write_secret": "open('{secret}', 'a').write('x')",
  "write_usr": "open('/usr/lib/escaped', 'w')",
  "write_python": "open(os.__file__, 'a')",
  "write_guest": "open('/guest.py', 'a')",
  "unlink_secret": "os.unlink('{secret}') is None",
  "chmod_secret": "os.chmod('{secret}', 0o777) is None",
  "proc_root": "os.listdir('/proc/self/root/etc')",
  "proc_environ": "open('/proc/self/environ').read()",
  "proc_of_parent": "open('/proc/%d/environ' % os.getppid()).read()",
  "proc_of_one": "open('/proc/1/cmdline').read()",
  "disk_device": "os.open('/dev/vda', os.O_RDONLY)",
  "memory_device": "os.open('/dev/mem', os.O_RDONLY)",
  "shared_memory": "open('/dev/shm/escaped', 'w')",
  "tool_config": "open('/proc/sys/kernel/hostname', 'w')",
  "symlink": "os.symlink('{secret}', 'link') or open('link').read()",
  "symlink_write": (
    "os.symlink('{secret}', 'link2') or open('link2', 'a').write('x')"
  ),
  "hardlink": "os.link('{secret}', 'hard') or open('hard').read()",
}
_ENVIRONMENT = {
  "getenv": "os.getenv('{canary}')",
  "environ": "'{canary}' in str(dict(os.environ))",
  "environb": "os.environb.get(b'{canary}')",
  "libc_getenv": (
    "(lambda c: setattr(c.getenv, 'restype', __import__('ctypes').c_char_p) "
    "or c.getenv(b'{canary}'))(__import__('ctypes').CDLL(None))"
  ),
}
_NETWORK = {
  "tcp": ("__import__('socket').create_connection(('127.0.0.1', {tcp}), 1)"),
  "tcp_wildcard": "__import__('socket').create_connection(('0', {tcp}), 1)",
  "unix_socket": (
    "(lambda s: s.socket(s.AF_UNIX).connect('{unix}') is None)"
    "(__import__('socket'))"
  ),
  "abstract_socket": (
    "(lambda s: s.socket(s.AF_UNIX).connect('\\0{abstract}') is None)"
    "(__import__('socket'))"
  ),
  "udp": (
    "(lambda s: s.socket(s.AF_INET, s.SOCK_DGRAM)"
    ".sendto(b'x', ('127.0.0.1', {tcp})))(__import__('socket'))"
  ),
  "ipv6": (
    "(lambda s: s.socket(s.AF_INET6, s.SOCK_DGRAM)"
    ".sendto(b'x', ('::1', {tcp})))(__import__('socket'))"
  ),
  "netlink": (
    "(lambda s: s.socket(s.AF_NETLINK, s.SOCK_RAW))(__import__('socket'))"
  ),
  "raw": (
    "(lambda s: s.socket(s.AF_INET, s.SOCK_RAW, 1))(__import__('socket'))"
  ),
  "metadata": (
    "__import__('socket').create_connection(('169.254.169.254', 80), 1)"
  ),
  "http": (
    "__import__('urllib.request').request"
    ".urlopen('http://127.0.0.1:{tcp}/', timeout=1)"
  ),
  # A name every host's files know, and one that a server would be asked for.
  "lookup": "__import__('socket').getaddrinfo('localhost', 80)[0][4][0] == "
  "'127.0.0.1' and __import__('socket').create_connection("
  "('localhost', {tcp}), 1)",
  "dns": (
    "(lambda s: s.connect(('127.0.0.53', 53)) is None and s.send(b'x'))"
    "((lambda m: m.socket(m.AF_INET, m.SOCK_DGRAM))(__import__('socket')))"
  ),
  "dns_lookup": "__import__('socket').gethostbyname('example.com')",
}
_SYSTEM = {
  "fork": "os.fork() >= 0",
  "system": "os.system('true') == 0",
  "subprocess": "__import__('subprocess').run(['/bin/true'])",
  # Whoever is the first process of a pid namespace is told, and lives on.
  "kill_parent": (
    "(lambda parent: os.kill(parent, 9) or __import__('time').sleep(0.3) "
    "or os.getppid() != parent)(os.getppid())"
  ),
  "chroot": "os.chroot('/tmp') is None",
  "setuid": "os.setuid(0) is None",
  "ptrace": "__import__('ctypes').CDLL(None).ptrace(0, 0, 0, 0) == 0",
  "mount": (
    "__import__('ctypes').CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, 0) == 0"
  ),
  "unshare": "__import__('ctypes').CDLL(None).unshare(0x10000000) == 0",
  "socket_by_number": (
    "__import__('ctypes').CDLL(None).syscall(41, 2, 1, 0) >= 0"
  ),
  "memfd": "os.memfd_create('x')",
  "raise_limits": (
    "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, "
    "(-1, -1)) is None"
  ),
  "import_of_host": "__import__('agentflow_jax')",
  "importlib": (
    "__import__('importlib').import_module('subprocess')"
    ".run(['/bin/sh', '-c', 'true']).returncode == 0"
  ),
  "importlib_path": (
    "__import__('importlib.machinery').machinery.SourceFileLoader("
    "'x', '{repository}/setup.py').get_source('x')"
  ),
  # Code that no compiler has seen: an object of bytes.
  "marshal": (
    "eval(__import__('marshal').loads(__import__('marshal').dumps("
    "compile('open(\"{secret}\").read()', 'x', 'eval'))))"
  ),
  "site_packages": "[p for p in sys.path if '{repository}' in p]",
}
_ESCAPES = {
  "files": _FILES,
  "environment": _ENVIRONMENT,
  "network": _NETWORK,
  "system": _SYSTEM,
}
# Programs that must end by a limit or an error of their own.
_RESOURCES = {
  "fork_bomb": "import os\nwhile True: os.fork()",
  "thread_bomb": (
    "import threading, time\n"
    "while True: threading.Thread(target=time.sleep, args=(99,)).start()"
  ),
  "memory": "a = []\nwhile True: a.append('x' * (1 << 24))",
  "one_allocation": "a = 'x' * (10 * {memory} << 20)\nprint('ESCAPED')",
  "spin": "while True: pass",
  "spin_in_c": "sum(range(10 ** 15))",
  "sleep": "import time\ntime.sleep(99)\nprint('ESCAPED')",
  "wait_for_input": "import sys\nsys.stdin.read()\nwhile True: pass",
  "disk": (
    "import os\n"
    "for i in range(99): open(f'/tmp/{{i}}', 'wb').write(b'x' * (1 << 24))\n"
    "print('ESCAPED')"
  ),
  "file_size": "open('/tmp/a', 'wb').truncate(1 << 40)\nprint('ESCAPED')",
  "open_files": (
    "import os\na = [open('/dev/null') for _ in range(2000)]\nprint('ESCAPED')"
  ),
  "output": "while True: print('x' * 10 ** 6)",
  "output_of_errors": (
    "import sys\nwhile True: sys.stderr.write('x' * 10 ** 6)"
  ),
  "recursion": "def f(n): return f(n + 1)\nf(0)",
  "deep_recursion": (
    "import sys\nsys.setrecursionlimit(10 ** 9)\n"
    "def f(n): return f(n + 1)\nf(0)"
  ),
  "digits": "print(len(str(10 ** 10 ** 8)))\nwhile True: pass",
  "power": "9 ** 9 ** 9 ** 9",
  "backtracking": "import re\nre.match('(a+)+$', 'a' * 99 + 'b')",
  "repr": ("class A:\n  def __repr__(self): return 'x' * 10 ** 10\nA()"),
  "nested_list": "a = []\nfor _ in range(10 ** 6): a = [a]\nprint(a)",
}
_SURVIVAL = {
  "ignore_signals": (
    "import signal\n"
    "for s in range(1, 32):\n"
    "  try: signal.signal(s, signal.SIG_IGN)\n"
    "  except (OSError, ValueError): pass\n"
    "while True: pass"
  ),
  "block_signals": (
    "import signal\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\n"
    "while True: pass"
  ),
  "reset_alarm": "import signal\nsignal.alarm(0)\nwhile True: pass",
  "daemonise": (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "  os.setsid()\n"
    "  if os.fork() == 0: time.sleep(99)\n"
  ),
  "atexit": ("import atexit\ndef f():\n  while True: pass\natexit.register(f)"),
  "exit_hook_thread": (
    "import threading\ndef f():\n  while True: pass\n"
    "threading.Thread(target=f).start()"
  ),
  "daemon_thread": (
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    "print('done')"
  ),
  "hard_exit": "import os\nos._exit(0)",
  "abort": "import os\nos.abort()",
  "segfault": "import ctypes\nctypes.string_at(0)",
  "catch_everything": (
    "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
  ),
  "close_pipes": "import os, time\nos.closerange(0, 99)\ntime.sleep(99)",
}
_LANGUAGE = {
  "subclasses": (
    "for c in ().__class__.__base__.__subclasses__():\n"
    "  f = getattr(c.__init__, '__globals__', {{}})\n"
    "  if 'sys' in f and f['sys'].modules['os'].getenv('{canary}'):\n"
    "    print('ESCAPED')"
  ),
  "frames": (
    "import sys\nf = sys._getframe()\n"
    "while f:\n"
    "  host = f.f_builtins['__import__']('os')\n"
    "  if '{canary}' in f.f_globals.get('os', host).environ: "
    "print('ESCAPED')\n"
    "  f = f.f_back"
  ),
  "garbage": (
    "import gc\n"
    "for o in gc.get_objects():\n"
    "  try:\n"
    "    if '{canary}' in o.keys(): print('ESCAPED')\n"
    "  except BaseException: pass"
  ),
  "pickle": (
    "import pickle\n"
    "pickle.loads(b\"cposix\\nsystem\\n(S'touch {secret}.2'\\ntR.\")"
  ),
  "import_hook": (
    "import sys\nsys.meta_path.clear()\nsys.modules.clear()\nimport os"
  ),
  "path_file": (
    "import os\n"
    "path = os.path.join(os.path.dirname(os.__file__), 'site-packages')\n"
    "open(path + '/x.pth', 'w').write('import os')\nprint('ESCAPED')"
  ),
  # What every later interpreter would run first.
  "sitecustomize": (
    "import site, os, sys\n"
    "for d in [*sys.path, os.path.dirname(os.__file__), '/packages']:\n"
    "  try:\n"
    "    with open(os.path.join(d or '.', 'sitecustomize.py'), 'x') as f:\n"
    "      f.write('import os')\n"
    "    if not d.startswith('/tmp') and d: print('ESCAPED', d)\n"
    "  except OSError: pass"
  ),
  "patch_json": "import json\njson.dumps = json.loads = None\nprint(1)",
  "forge_exit": "import os\nprint('half')\nos._exit(77)",
  "inherited_files": (
    "import os\nfor fd in range(3, 256):\n"
    "  try: os.fstat(fd); print('ESCAPED', fd)\n"
    "  except OSError: pass"
  ),
  "forge_ready": (
    "import os\nfor fd in range(3, 64):\n"
    "  try: os.write(fd, b'1'); print('ESCAPED')\n"
    "  except OSError: pass"
  ),
}


def attempts() -> list[Attempt]:
  """All of them."""
  table = [
    Attempt(name=name, code=_tries(goal))
    for group in _ESCAPES.values()
    for name, goal in group.items()
  ]
  return table + [
    Attempt(name=name, code=code)
    for group in (_RESOURCES, _SURVIVAL, _LANGUAGE)
    for name, code in group.items()
  ]
