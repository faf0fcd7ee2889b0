"""Finding an embedded server that another process runs: for `mlops doctor`, `mlops db` and repairs."""

import json
from pathlib import Path

from mlops_platform.core.crypto.secrets_file import read_secret_file
from mlops_platform.core.db.embedded.address import APP_ROLE, OWNER_ROLE, EmbeddedAddress
from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.db.embedded.places import RECORD
from mlops_platform.core.db.embedded.server import PORT


def running_address(home: Path) -> EmbeddedAddress | None:
    """Where the server of a home listens, when the platform of that home runs."""
    if not home.is_dir() or HomeLock(home).holder() is None:
        return None
    try:
        record = json.loads((home / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    passwords = [read_secret_file(home / "secrets" / f"postgres_{role}_password") for role in (OWNER_ROLE, APP_ROLE)]
    if not all(passwords) or "socket_dir" not in record:
        return None
    return EmbeddedAddress(Path(record["socket_dir"]), PORT, passwords[0] or "", passwords[1] or "")
