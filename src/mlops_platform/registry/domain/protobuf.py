"""The outermost fields of a protobuf message, read without its schema (https://protobuf.dev/programming-guides/encoding/)."""

from dataclasses import dataclass

_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}
_MAX_FIELDS = 4096

# ModelProto of onnx.proto: ir_version, producer_name, ..., graph, opset_import, metadata_props, training_info, functions.
_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its number, how it is written, and its value when that is a number, else its length."""

    number: int
    wire_type: int
    value: int
    # The first byte of what a length-delimited field holds; None when the sample ends before.
    first_byte: int | None = None


def fields(head: bytes, size: int) -> list[Field]:
    """The fields that begin in the head of a message of `size` bytes; an empty list for what is no message."""
    found: list[Field] = []
    at = 0
    while at < len(head) and len(found) < _MAX_FIELDS:
        field, at = _field(head, at)
        if field is None or at > size:
            # Only what the end of the sample cut off is forgiven.
            return found if field is None and len(head) <= at and len(head) < size else []
        found.append(field)
    return found


def looks_like_onnx(found: list[Field]) -> bool:
    """`ir_version`, then a `graph` that holds something, and nothing that the format does not have."""
    if not found or {field.number for field in found} - _ONNX_FIELDS:
        return False
    version = next((field for field in found if field.number == 1), None)
    graph = next((field for field in found if field.number == 7), None)
    has_version = version is not None and version.wire_type == _VARINT and 1 <= version.value <= 1000
    return has_version and graph is not None and graph.wire_type == _LENGTH and graph.value > 0


def looks_like_saved_model(found: list[Field]) -> bool:
    """`saved_model_schema_version` 1, then `meta_graphs`, each of which begins with its `meta_info_def`."""
    if len(found) < 2 or found[0] != Field(1, _VARINT, 1):
        return False
    return all(field.number == 2 and field.wire_type == _LENGTH and field.first_byte == 0x0A for field in found[1:])


def _field(head: bytes, at: int) -> tuple[Field | None, int]:
    key, at = _varint(head, at)
    if key is None or not 0 < key >> 3 < 2**29:
        return None, at
    number, wire_type = key >> 3, key & 7
    if wire_type in _FIXED_BYTES:
        return Field(number, wire_type, 0), at + _FIXED_BYTES[wire_type]
    if wire_type not in {_VARINT, _LENGTH}:
        return None, at
    value, at = _varint(head, at)
    if value is None:
        return None, at
    if wire_type == _VARINT:
        return Field(number, wire_type, value), at
    return Field(number, wire_type, value, head[at] if at < len(head) and value else None), at + value


def _varint(head: bytes, at: int) -> tuple[int | None, int]:
    value = 0
    for shift in range(10):
        if at >= len(head):
            return None, at
        byte = head[at]
        value |= (byte & 0x7F) << (7 * shift)
        at += 1
        if byte < 0x80:
            return value, at
    return None, at
