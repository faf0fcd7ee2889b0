"""What a file is, by the bytes at its two ends. Nothing is loaded, parsed as code or decompressed beyond a few kilobytes.

Every rule looks at no more than `SAMPLE_BYTES` from the head and from the tail, in time linear in them, and answers for
any bytes whatever: the caller streams uploads of strangers through it.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from mlops_platform.contracts.registry import ArtifactFormat
from mlops_platform.registry.domain import protobuf

SAMPLE_BYTES = 64 * 1024
_UNPACKED_BYTES = 16 * 1024
# Enough for every preset that joblib's users choose; what declares more is not looked into.
_LZMA_MEMORY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """The two ends of a file, overlapping when it is short."""

    head: bytes
    tail: bytes
    size: int


class Sampler:
    """Takes a sample of a stream that passes by."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = b""
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """See the next bytes."""
        self._size += len(chunk)
        if len(self._head) < SAMPLE_BYTES:
            self._head += chunk[: SAMPLE_BYTES - len(self._head)]
        self._tail = (self._tail + chunk[-SAMPLE_BYTES:])[-SAMPLE_BYTES:]

    async def passing(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same stream, seen on its way."""
        async for chunk in chunks:
            self.add(chunk)
            yield chunk

    def sample(self) -> Sample:
        """What was seen."""
        return Sample(bytes(self._head), self._tail, self._size)


def recognise(sample: Sample) -> ArtifactFormat:
    """The format of a file.

    >>> recognise(Sample(b"CBM1....", b"CBM1....", 8))
    <ArtifactFormat.CATBOOST: 'catboost'>
    """
    return next((found for rule in _RULES if (found := rule(sample)) is not None), ArtifactFormat.OTHER)


def summary(files: Sequence[tuple[str, ArtifactFormat]]) -> list[ArtifactFormat]:
    """What a whole version consists of: each format once, `other` left out, in the order of the alphabet.

    >>> summary([("a.bin", ArtifactFormat.OTHER), ("m.onnx", ArtifactFormat.ONNX)])
    [<ArtifactFormat.ONNX: 'onnx'>]
    """
    return sorted({found for _, found in files} - {ArtifactFormat.OTHER})


def _signature(sample: Sample) -> ArtifactFormat | None:
    return next((found for magic, found in _SIGNATURES.items() if sample.head.startswith(magic)), None)


_SIGNATURES = {
    b"GGUF": ArtifactFormat.GGUF,
    b"CBM1": ArtifactFormat.CATBOOST,
    b"binf": ArtifactFormat.XGBOOST,
    b"bs64": ArtifactFormat.XGBOOST,
    b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner": ArtifactFormat.XGBOOST,
    b"{L\x00\x00\x00\x00\x00\x00\x00\x06Config": ArtifactFormat.XGBOOST,
    b"tree\nversion=": ArtifactFormat.LIGHTGBM,
    # The pickled "magic number" with which files of PyTorch before 1.6 begin.
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": ArtifactFormat.PYTORCH,
}


def _text(sample: Sample) -> ArtifactFormat | None:
    if _XGBOOST_JSON.match(sample.head):
        return ArtifactFormat.XGBOOST
    if _PMML.match(sample.head):
        return ArtifactFormat.PMML
    return None


_XGBOOST_JSON = re.compile(
    rb'\s{0,64}\{\s{0,64}"(?:learner"\s{0,64}:\s{0,64}\{|version"\s{0,64}:[\s\d,\[]{1,64}\],"learner")'
)
_PMML = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<\?xml[^>]{0,200}\?>\s{0,64})?(?:<!--[^>]{0,2000}-->\s{0,64})?<PMML[\s>]")


def _safetensors(sample: Sample) -> ArtifactFormat | None:
    """Eight bytes of length, little-endian, then a JSON object of that length."""
    length = int.from_bytes(sample.head[:8], "little")
    starts_object = sample.head[8:10] in {b'{"', b"{}", b"{ "}
    return ArtifactFormat.SAFETENSORS if starts_object and 2 <= length <= sample.size - 8 else None


def _hdf5(sample: Sample) -> ArtifactFormat | None:
    if not sample.head.startswith(b"\x89HDF\r\n\x1a\n"):
        return None
    is_keras = any(word in end for word in (b"keras_version", b"model_config") for end in (sample.head, sample.tail))
    return ArtifactFormat.KERAS if is_keras else ArtifactFormat.HDF5


def _zip(sample: Sample) -> ArtifactFormat | None:
    """A zip is what its members' names say; they stand in the local headers and in the directory at the end."""
    if not sample.head.startswith(b"PK\x03\x04"):
        return None
    names = {*_zip_names(sample.head, b"PK\x03\x04", 26, 30), *_zip_names(sample.tail, b"PK\x01\x02", 28, 46)}
    files = {name.rpartition(b"/")[2] for name in names}
    if b"data.pkl" in files or b"serialized_exported_program.json" in files or b"archive_format" in files:
        return ArtifactFormat.PYTORCH
    if {b"config.json", b"metadata.json"} <= names:
        return ArtifactFormat.KERAS
    return ArtifactFormat.SKOPS if b"schema.json" in names else None


def _zip_names(data: bytes, marker: bytes, length_at: int, name_at: int) -> list[bytes]:
    names, at = [], data.find(marker)
    while at >= 0 and at + name_at <= len(data):
        length = int.from_bytes(data[at + length_at : at + length_at + 2], "little")
        names.append(data[at + name_at : at + name_at + min(length, 512)])
        at = data.find(marker, at + name_at)
    return names


def _pickle(sample: Sample) -> ArtifactFormat | None:
    if not _is_pickle(sample.head):
        return None
    return ArtifactFormat.JOBLIB if b"joblib.numpy_pickle" in sample.head else ArtifactFormat.PICKLE


def _is_pickle(head: bytes) -> bool:
    """Protocol 2 and later say so in two bytes; earlier ones begin with one of a few forms of text."""
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03"}:
        return head[2:3] in _PICKLE_STARTS
    if head[:1] == b"\x80" and head[1:2] in {b"\x04", b"\x05"}:
        return head[2:3] == b"\x95" or head[2:3] in _PICKLE_STARTS
    return _OLD_PICKLE.match(head) is not None


# Opcodes with which a pickled object begins: constants, containers, globals, and marks.
_PICKLE_STARTS = frozenset(bytes([code]) for code in b"(]}).cXTUBCGIJKMLNV\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x96")
_OLD_PICKLE = re.compile(
    rb"\(?c[A-Za-z_][\w.]{0,200}\r?\n[A-Za-z_][\w.]{0,200}\r?\n"
    rb"|\((?:[ldt]p\d{1,9}|i[A-Za-z_][\w.]{0,200}|I-?\d{1,20})\r?\n"
    rb"|[\]}]q\x00"
)


def _compressed(sample: Sample) -> ArtifactFormat | None:
    """Pickles of joblib come through a compressor, or with a prefix of their own from its first releases."""
    if sample.head.startswith(b"ZF") and sample.head[2:4] == b"0x":
        return ArtifactFormat.JOBLIB
    for magic, unpack in _UNPACKERS.items():
        if sample.head.startswith(magic):
            return ArtifactFormat.JOBLIB if _is_pickle(_unpacked(sample.head, unpack)) else None
    return None


def _unpacked(head: bytes, unpack: Callable[[bytes], bytes]) -> bytes:
    try:
        return unpack(head)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return b""


def _inflate(head: bytes) -> bytes:
    # 32 more than the window: gzip and zlib headers both.
    return zlib.decompressobj(wbits=47).decompress(head, _UNPACKED_BYTES)


def _bunzip(head: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(head, _UNPACKED_BYTES)


def _unlzma(head: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES).decompress(head, _UNPACKED_BYTES)


_UNPACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x78\x01": _inflate,
    b"\x78\x5e": _inflate,
    b"\x78\x9c": _inflate,
    b"\x78\xda": _inflate,
    b"\x1f\x8b": _inflate,
    b"BZh": _bunzip,
    b"\xfd7zXZ": _unlzma,
    b"\x5d\x00\x00": _unlzma,
}


def _protobuf(sample: Sample) -> ArtifactFormat | None:
    """ONNX models and TensorFlow's saved models have no magic number: their fields tell them."""
    fields = protobuf.fields(sample.head, sample.size)
    if protobuf.looks_like_onnx(fields):
        return ArtifactFormat.ONNX
    return ArtifactFormat.TENSORFLOW_SAVED_MODEL if protobuf.looks_like_saved_model(fields) else None


_RULES: tuple[Callable[[Sample], ArtifactFormat | None], ...] = (
    _signature, _safetensors, _hdf5, _zip, _compressed, _text, _pickle, _protobuf,
)  # fmt: skip
