"""Keeping a worker's memory and environment from the tasks that run under the same user."""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def refuse_inspection() -> bool:
    """Close this process's `/proc` entries and memory to others of its user; whether that was possible.

    A task reads no secret from its own environment, but `/proc/<worker>/environ` would be open to it. Linux only; against
    files that the user can read nothing helps but another user (`run_as`).
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
