"""Folders that others filled: nothing is read through a link, and nothing but plain files is opened."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlops_platform.sdk.transfer import Unreadable

MAX_DEPTH = 64


class NotReadable(Unreadable):
    """A file is not what it should be: a link, a device, or too large."""


def plain_files(root: Path, left_out: list[str], *, what: str) -> Iterator[tuple[str, Path]]:
    """Every plain file below a folder with its path from there. Links and other things are named and not followed."""
    folders: list[tuple[str, int]] = [("", 0)]
    while folders:
        prefix, depth = folders.pop()
        for entry in _entries(root / prefix, left_out, what=what):
            path = f"{prefix}{entry.name}"
            if entry.is_symlink():
                left_out.append(f"{what}: {path!r}, which is a link")
            elif entry.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH:
                    folders.append((f"{path}/", depth + 1))
                else:
                    left_out.append(f"{what}: {path!r}, which lies too deep")
            elif entry.is_file(follow_symlinks=False):
                yield path, root / path
            else:
                left_out.append(f"{what}: {path!r}, which is no file")


def plain_folders(root: Path, left_out: list[str], *, what: str) -> list[Path]:
    """The folders directly in a folder, by name, without links."""
    found = []
    for entry in _entries(root, left_out, what=what):
        if entry.is_symlink():
            left_out.append(f"{what}: {entry.name!r}, which is a link")
        elif entry.is_dir(follow_symlinks=False):
            found.append(root / entry.name)
    return found


def plain_folder(root: Path, path: str, left_out: list[str], *, what: str) -> Path | None:
    """A folder below another, unless it or one on the way to it is a link."""
    place = root
    for name in path.split("/"):
        place = place / name
        if place.is_symlink():
            left_out.append(f"{what}: {name!r}, which is a link")
            return None
    return place


def opened(path: Path) -> BinaryIO:
    """A plain file below a resolved folder, opened without following a link that took a place on the way meanwhile."""
    if os.path.realpath(path.parent) != str(path.parent):
        raise NotReadable(f"{path} lies behind a link.")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotReadable(f"{path} is no plain file.")
    return os.fdopen(descriptor, "rb")


def text_of(path: Path, *, most: int) -> str:
    """A short file as text. Raises OSError, ValueError or `NotReadable`."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise NotReadable(f"{path} is larger than {most} bytes.")
    return content.decode("utf-8")


def _entries(folder: Path, left_out: list[str], *, what: str) -> list["os.DirEntry[str]"]:
    if folder.is_symlink():
        left_out.append(f"{what}: {folder.name!r}, which is a link")
        return []
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        left_out.append(f"{what}: {folder.name!r}, which cannot be listed: {error.strerror}")
        return []
