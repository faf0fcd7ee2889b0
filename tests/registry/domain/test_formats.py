import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict

import joblib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlops_platform.contracts.registry import ArtifactFormat
from mlops_platform.registry.domain import protobuf
from mlops_platform.registry.domain.formats import SAMPLE_BYTES, Sampler, recognise, summary


class Model:
    def __init__(self):
        self.weights = [0.5, 1.5]


VALUES = [Model(), {"a": 1}, [1, 2], ("t", 1), OrderedDict(a=1), {1, 2}, np.float64]
ARRAYS = {"weights": np.arange(20_000.0), "bias": np.ones(3)}


def kind_of(value) -> str:
    """A test id that is the same in every process."""
    return value.value if isinstance(value, ArtifactFormat) else type(value).__name__


def format_of(content: bytes, step: int = 10_000) -> ArtifactFormat:
    sampler = Sampler()
    for at in range(0, len(content), step):
        sampler.add(content[at : at + step])
    return recognise(sampler.sample())


def joblib_bytes(value, **options):
    target = io.BytesIO()
    joblib.dump(value, target, **options)
    return target.getvalue()


def zip_bytes(*names, big=0):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * big + b"x")
    return target.getvalue()


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx(graph: bytes) -> bytes:
    """ModelProto: ir_version 9, producer, graph, opset 17."""
    return field(1, 9) + field(2, b"skl2onnx") + field(3, b"1.17") + field(7, graph) + field(8, field(2, 17))


def safetensors(tensors: int) -> bytes:
    header = json.dumps(
        {f"t{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(tensors)}
    )
    return struct.pack("<Q", len(header)) + header.encode() + bytes(4 * tensors)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", VALUES, ids=kind_of)
def test_a_pickle_of_any_new_protocol(value, protocol):
    assert format_of(pickle.dumps(value, protocol)) is ArtifactFormat.PICKLE


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("value", [Model(), {"a": 1}, [1, 2], OrderedDict(a=1)], ids=kind_of)
def test_a_pickle_of_the_old_protocols(value, protocol):
    assert format_of(pickle.dumps(value, protocol)) is ArtifactFormat.PICKLE


@pytest.mark.parametrize(
    "options",
    [{}, {"compress": True}, *({"compress": (method, 3)} for method in ("zlib", "gzip", "bz2", "xz", "lzma"))],
    ids=repr,
)
def test_joblib_with_any_compressor(options):
    assert format_of(joblib_bytes(ARRAYS, **options)) is ArtifactFormat.JOBLIB


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (onnx(b"\x0a\x01x" * 10), ArtifactFormat.ONNX),
        (onnx(b"x" * 300_000), ArtifactFormat.ONNX),
        (field(1, 1) + field(2, field(1, b"meta") + b"\x12" + varint(9) + b"x" * 9), ArtifactFormat.TENSORFLOW_SAVED_MODEL),
        (field(1, 1) + field(2, field(1, b"m") + field(2, b"g" * 200_000)), ArtifactFormat.TENSORFLOW_SAVED_MODEL),
        (safetensors(3), ArtifactFormat.SAFETENSORS),
        (safetensors(3000), ArtifactFormat.SAFETENSORS),
        (struct.pack("<Q", 2) + b"{}", ArtifactFormat.SAFETENSORS),
        (zip_bytes("model/data.pkl", "model/byteorder", "model/data/0", "model/version"), ArtifactFormat.PYTORCH),
        (zip_bytes("model/data/0", "model/data/1", "model/data.pkl", big=200_000), ArtifactFormat.PYTORCH),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2), ArtifactFormat.PYTORCH),
        (zip_bytes("metadata.json", "config.json", "model.weights.h5"), ArtifactFormat.KERAS),
        (zip_bytes("schema.json", "1.npy"), ArtifactFormat.SKOPS),
        (zip_bytes("word/document.xml"), ArtifactFormat.OTHER),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100 + b"keras_version", ArtifactFormat.KERAS),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 200_000 + b"model_config", ArtifactFormat.KERAS),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, ArtifactFormat.HDF5),
        (b'{"learner":{"attributes":{}},"version":[3,0,0]}', ArtifactFormat.XGBOOST),
        (b'{"version":[3,0,0],"learner":{}}', ArtifactFormat.XGBOOST),
        (b"{L" + struct.pack(">q", 7) + b"learner{", ArtifactFormat.XGBOOST),
        (b"tree\nversion=v4\nnum_class=1\n", ArtifactFormat.LIGHTGBM),
        (b"GGUF\x03\0\0\0", ArtifactFormat.GGUF),
        (b'<?xml version="1.0"?>\n<PMML version="4.4">', ArtifactFormat.PMML),
        (b"<PMMLX>", ArtifactFormat.OTHER),
        (b"", ArtifactFormat.OTHER),
        (b"column\n1\n2\n", ArtifactFormat.OTHER),
        (b"(see the notes)\n", ArtifactFormat.OTHER),
        (b'{"a": 1}', ArtifactFormat.OTHER),
        (gzip.compress(b"a,b\n1,2\n"), ArtifactFormat.OTHER),
        (zlib.compress(b"text"), ArtifactFormat.OTHER),
        (bz2.compress(b"text"), ArtifactFormat.OTHER),
        (lzma.compress(b"text"), ArtifactFormat.OTHER),
        (b"ZF0x5           ", ArtifactFormat.JOBLIB),
        (struct.pack("<Q", 2**62) + b'{"a"', ArtifactFormat.OTHER),
        (b"\x80\x04", ArtifactFormat.OTHER),
    ],
    ids=kind_of,
)  # fmt: skip
def test_what_a_file_is(content, expected):
    assert format_of(content) is expected


magics = st.sampled_from(
    [
        b"", b"PK\x03\x04", b"\x80\x04\x95", b"\x80\x02", b"\x89HDF\r\n\x1a\n", b"\x78\x9c", b"\x1f\x8b\x08", b"BZh9",
        b"\xfd7zXZ\0",
        b"\x5d\0\0", b"\x08\x09\x3a", b"\x08\x01\x12", b"\x10\0\0\0\0\0\0\0{\"", b"<?xml", b"{", b"(", b"c", b"ZF0x",
    ]
)  # fmt: skip


@settings(deadline=None)
@given(magics, st.binary(max_size=3000), st.binary(max_size=200))
@example(b"\x08", b"\xff" * 11, b"")
@example(b"<?xml" + b" " * 64, b"a" * 3000, b"")
@example(b"PK\x03\x04" * 700, b"", b"PK\x01\x02" * 40)
@example(lzma.compress(b"\x80\x04\x95" * 9)[:20], b"", b"")
def test_any_bytes_have_an_answer(magic, middle, end):
    assert recognise_all_at_once(magic + middle + end) in ArtifactFormat
    assert recognise_all_at_once((magic + middle) * 30 + end) in ArtifactFormat


@settings(deadline=None)
@given(st.lists(st.binary(max_size=70_000), max_size=8))
def test_a_sample_is_the_two_ends_however_the_stream_is_cut(chunks):
    sampler = Sampler()
    for chunk in chunks:
        sampler.add(chunk)
    sample, whole = sampler.sample(), b"".join(chunks)
    assert (sample.head, sample.tail, sample.size) == (whole[:SAMPLE_BYTES], whole[-SAMPLE_BYTES:], len(whole))


def test_a_compressed_bomb_is_not_unpacked():
    bomb = zlib.compress(bytes(20_000_000), 9)[:SAMPLE_BYTES]
    assert format_of(bomb) is ArtifactFormat.OTHER


@pytest.mark.parametrize(
    "junk", [b"\x00", b"\x08", b"\x0b", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x08\x01\x07"]
)
def test_what_is_no_protobuf_message_has_no_fields(junk):
    assert protobuf.fields(junk, len(junk)) == []


def test_a_version_names_each_format_once():
    files = [
        ("a", ArtifactFormat.PICKLE),
        ("b", ArtifactFormat.ONNX),
        ("c", ArtifactFormat.PICKLE),
        ("d", ArtifactFormat.OTHER),
    ]
    assert summary(files) == [ArtifactFormat.ONNX, ArtifactFormat.PICKLE]


def recognise_all_at_once(content):
    sampler = Sampler()
    sampler.add(content)
    return recognise(sampler.sample())
