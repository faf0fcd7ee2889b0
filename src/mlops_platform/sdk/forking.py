"""What must not survive a fork: sockets and threads belong to the parent alone."""

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that holds sockets or a thread."""

    def after_fork_in_child(self) -> None:
        """Let go of what is the parent's, without closing it, and start anew."""


_held: "weakref.WeakSet[Forkable]" = weakref.WeakSet()


def reset_in_child(item: Forkable) -> None:
    """Call `item.after_fork_in_child()` in every process that is forked from now on, while the item lives."""
    _held.add(item)


def _reset_all() -> None:
    for item in list(_held):
        item.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
