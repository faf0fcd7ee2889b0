"""Becomes a PostgreSQL program that does not outlive its parent. Run as a script, by path: standard library only.

Everything here must happen after the fork and before the exec. `preexec_fn` would do it in a copy of a process with
many threads, where any lock (the allocator's, the import system's) may be held for ever; a fresh interpreter has none.
The order matters: the kernel forgets the parent-death signal when a process changes its user.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Arguments: parent's pid, signal on its death, user id and group id (-1 to keep ours), program, its arguments."""
    parent, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    os.umask(0o077)
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
