"""What the programs of sandbox_attempts.py do in plain CPython.

A program that reaches nothing where nothing holds it says nothing about a
sandbox. Every attempt is in exactly one of these groups; the tests run all but
the last two.
"""

# Print ESCAPED on any machine.
PRINTS = frozenset(
  [
    *("read_passwd", "read_secret", "read_repository", "read_dotdot"),
    *("write_secret", "unlink_secret", "chmod_secret", "symlink"),
    *("symlink_write", "hardlink", "proc_root", "proc_environ"),
    *("proc_of_parent", "shared_memory", "getenv", "environ", "environb"),
    *("libc_getenv", "tcp", "tcp_wildcard", "unix_socket", "udp", "lookup"),
    *("abstract_socket", "dns", "fork", "system", "subprocess"),
    *("kill_parent", "ptrace", "memfd", "importlib", "importlib_path"),
    *("marshal", "one_allocation", "subclasses", "frames", "garbage"),
    *("inherited_files", "forge_ready"),
  ]
)
# Print it if the machine has what they ask for, or lets its root do it.
DEPENDS = frozenset(
  [
    *("read_shadow", "read_ssh", "read_root", "write_python", "proc_of_one"),
    *("disk_device", "memory_device", "ipv6", "netlink", "raw", "chroot"),
    *("setuid", "unshare", "socket_by_number", "raise_limits", "open_files"),
    *("import_of_host", "site_packages"),
  ]
)
# Leave something behind instead.
CHANGES_FILES = frozenset(["pickle"])
CONNECTS = frozenset(["http"])
LEAVES_A_PROCESS = frozenset(["daemonise"])
# Are still there when the limit would have ended them.
ENDLESS = frozenset(
  [
    *("spin", "spin_in_c", "sleep", "wait_for_input", "output"),
    *("output_of_errors", "power", "backtracking", "ignore_signals"),
    *("block_signals", "reset_alarm", "atexit", "exit_hook_thread"),
    *("catch_everything", "close_pipes"),
  ]
)
# End by themselves: what is tested is that their end is an ordinary one.
ENDS = frozenset(
  [
    *("recursion", "nested_list", "daemon_thread", "hard_exit", "abort"),
    *("segfault", "import_hook", "patch_json", "forge_exit"),
  ]
)
# Would do to this machine what a sandbox is to prevent.
NOT_RUN = {
  "write_usr": "writes into the system's libraries",
  "write_guest": "writes into the root directory",
  "tool_config": "opens a setting of the kernel for writing",
  "mount": "hides /tmp of this machine",
  "path_file": "changes every later interpreter",
  "sitecustomize": "changes every later interpreter",
  "metadata": "asks a server outside this machine",
  "dns_lookup": "asks a server outside this machine",
  "fork_bomb": "takes all processes",
  "thread_bomb": "takes all threads",
  "memory": "takes all memory",
  "deep_recursion": "takes all memory",
  "repr": "takes 10 GB of memory",
  "digits": "takes minutes, then ends by itself",
  "disk": "writes 1.6 GB to /tmp",
  "file_size": "leaves a file of a terabyte in /tmp",
}
