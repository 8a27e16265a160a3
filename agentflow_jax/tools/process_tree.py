"""How many processes and threads descend from one, as /proc tells.

For a limit that the kernel does not keep: RLIMIT_NPROC counts nobody whose user
is the host's root, whatever that user is called in a jail.
"""

import os


def tasks(pid: int, enough: int) -> int:
  """Threads of a process and of all that descend from it.

  A process that ends while it is looked at may or may not be counted. One whose
  parent has died is looked for under the parent that it was given.

  Args:
    pid: of the first process; its own threads count.
    enough: counting stops here, so a bomb takes no longer than a program.

  Returns:
    How many there are, or a number above `enough`; 0 if there is no such
    process or no /proc.
  """
  found = 0
  waiting = [pid]
  while waiting and found <= enough:
    directory = f"/proc/{waiting.pop()}/task"
    try:
      threads = os.listdir(directory)
      found += len(threads)
      for thread in threads[: enough + 1]:
        with open(f"{directory}/{thread}/children", "rb") as children:
          waiting += map(int, children.read().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
      continue  # it ended, or /proc hides it
  return found
