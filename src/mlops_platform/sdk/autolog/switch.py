"""On and off. One client at a time records by itself in a process: the last one that said so."""

import threading
from typing import Any

from mlops_platform.sdk.autolog import boosters, networks, patches, sklearn
from mlops_platform.sdk.autolog.session import Options, Session

_switching = threading.Lock()


def on(tracking: Any, options: Options) -> None:
    """Record trainings of the libraries that are here, and of those that are imported later."""
    with _switching:
        patches.undo_all()
        session = Session(tracking, options)
        for library in (sklearn, boosters, networks):
            patches.quietly(library.install, session)


def off() -> None:
    """All libraries are as they were."""
    with _switching:
        patches.undo_all()
