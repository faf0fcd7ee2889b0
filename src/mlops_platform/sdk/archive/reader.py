"""Reads an experiment archive that anybody may have made: all of it is checked before any of it is used."""

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from mlops_platform.sdk.archive import layout
from mlops_platform.sdk.archive.layout import ArchiveError
from mlops_platform.sdk.archive.rows import Rows

_CHUNK = 1024 * 1024
_LOCAL_HEADER = 30
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArchiveFile:
    """An archive whose members are what its manifest says: names, sizes and digests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._size = path.stat().st_size
            with zipfile.ZipFile(path) as archive:
                self._infos = self._checked_infos(archive.infolist())
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise ArchiveError(f"{path} is no experiment archive: {error}") from error
        self.manifest = self._read_manifest()
        self.members: Mapping[str, Mapping[str, Any]] = self.manifest["members"]

    def open(self, name: str) -> BinaryIO:
        """A member, from its beginning. What is stored as it is can be read anywhere, which zipfile cannot do quickly."""
        info = self._infos[name]
        file = self._path.open("rb")
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
        if len(header) != _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            file.close()
            raise ArchiveError(f"{name} is damaged: nothing begins where it should.")
        start = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
        if start + info.file_size > self._size:
            file.close()
            raise ArchiveError(f"{name} is damaged: the archive ends before it does.")
        return cast("BinaryIO", io.BufferedReader(_Window(file, start, info.file_size), _CHUNK))

    def json(self, name: str) -> Any:
        """A member that is JSON."""
        if self._infos[name].file_size > layout.MAX_JSON_BYTES:
            raise ArchiveError(f"{name} is larger than {layout.MAX_JSON_BYTES} bytes.")
        try:
            with self.open(name) as member:
                return json.loads(member.read())
        except (ValueError, RecursionError) as error:
            raise ArchiveError(f"{name} cannot be read: {error}") from error

    def table(self, name: str) -> Rows:
        """A member that is a table, checked as far as it describes itself."""
        return Rows(name, self.open(f"{name}.parquet"))

    def verify(self) -> None:
        """Read every member once: each must be what the manifest says of it."""
        for name, promised in self.members.items():
            digest, size = hashlib.sha256(), 0
            with self.open(name) as member:
                while chunk := member.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
            if (digest.hexdigest(), size) != (promised["sha256"], promised["size"]):
                raise ArchiveError(f"{name} is damaged: it is not what the manifest says of it.")

    def _checked_infos(self, listed: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        infos: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in listed:
            name = info.filename
            if name not in layout.MEMBERS and not layout.BLOB.fullmatch(name):
                raise ArchiveError(f"The archive holds {name[:200]!r}, which no archive of an experiment has.")
            if name in infos:
                raise ArchiveError(f"The archive holds {name!r} twice.")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.file_size != info.compress_size:
                raise ArchiveError(f"{name} is compressed or encrypted; in an archive nothing is.")
            total += info.file_size + _LOCAL_HEADER + len(name)
            infos[name] = info
        if total > self._size:
            raise ArchiveError("The members of the archive say that they are larger than the archive.")
        if missing := sorted(layout.MEMBERS - infos.keys()):
            raise ArchiveError(f"The archive lacks {', '.join(missing)}.")
        return infos

    def _read_manifest(self) -> dict[str, Any]:
        manifest = self.json(layout.MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != layout.FORMAT:
            raise ArchiveError("The manifest is not that of an experiment archive.")
        if manifest.get("version") != layout.VERSION:
            raise ArchiveError(
                f"The archive has the format {manifest.get('version')!r}; this client reads {layout.VERSION}.",
                hint="A newer client may read it.",
            )
        members = manifest.get("members")
        if not isinstance(members, dict) or set(members) != set(self._infos) - {layout.MANIFEST}:
            raise ArchiveError("The manifest does not name exactly the members that the archive has.")
        for name, promised in members.items():
            self._check_promise(name, promised)
        return manifest

    def _check_promise(self, name: str, promised: Any) -> None:
        is_right = (
            isinstance(promised, dict)
            and isinstance(promised.get("sha256"), str)
            and _DIGEST.fullmatch(promised["sha256"]) is not None
            and promised.get("size") == self._infos[name].file_size
        )
        blob = layout.BLOB.fullmatch(name)
        if not is_right or (blob is not None and blob[1] != promised["sha256"]):
            raise ArchiveError(f"The manifest says of {name} what cannot be.")


class _Window(io.RawIOBase):
    """A part of a file as if it were one."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view) if len(view) else 0  # type: ignore[attr-defined]  # of every file that is opened
        self._at += count
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()
