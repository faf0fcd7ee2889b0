"""What attackers, broken clients and unlucky users send."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import quote

Value = TypeVar("Value")

LONG = "A" * 10_000
HUGE = "B" * 1_000_000

TEXTS: dict[str, str] = {
    "traversal": "../../../../etc/passwd",
    "traversal, backslashes": "..\\..\\..\\windows\\win.ini",
    "traversal, encoded": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "traversal, encoded twice": "%252e%252e%252fetc%252fpasswd",
    "traversal, overlong": "..%c0%af..%c0%afetc%c0%afpasswd",
    "traversal, full width": "\uff0e\uff0e\uff0f\uff0e\uff0e\uff0fetc\uff0fpasswd",
    "dots": "..",
    "absolute": "/etc/passwd",
    "drive": "C:\\boot.ini",
    "url": "file:///etc/passwd",
    "nul": "a\x00b",
    "nul at the end": "name\x00",
    "escape": "\x1b[31mred\x07\x7f\x85",
    "headers": "a\r\nSet-Cookie: owned=1\r\n\r\n<script>",
    "line separators": "a\u2028b\u2029c",
    "right to left": "\u202egnp.exe\u202c",
    "zero width": "a\u200b\u200d\u2060\ufeffb",
    "only zero width": "\u200b",
    "combining": "e" + "\u0301" * 200,
    "emoji": "👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿" * 4,
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "turkish": "İıßŉ",
    "other digits": "٣१",
    "lone surrogate": "a\ud800b",
    "lone low surrogate": "\udfff",
    "sql": "' OR '1'='1'; DROP TABLE models; --",
    "sql, double": '" OR ""="',
    "like": "%_%\\",
    "format": "%s%n%x{0}{0.__class__.__mro__}${jndi:ldap://x/y}",
    "template": "{{7*7}}${7*7}<%= 7*7 %>",
    "markup": "<img src=x onerror=alert(1)>",
    "shell": "$(id)`id`;id|id&",
    "prototype": "__proto__",
    "constructor": "constructor",
    "null": "null",
    "nan": "NaN",
    "number": "1e400",
    "date": "99999-99-99T99:99:99Z",
    "date at the edge": "0001-01-01T00:00:00+23:59",
    "list": "[],{}",
    "empty": "",
    "blank": "   \t ",
    "long": LONG,
    "huge": HUGE,
}
_ONE_SEGMENT = {"empty"}
RAW_SEGMENTS: dict[str, bytes] = {
    "raw traversal": b"../../etc/passwd",
    "traversal, slashes encoded": b"..%2f..%2fetc%2fpasswd",
    "traversal, all encoded": b"%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "traversal, encoded twice": b"%252e%252e%252fetc",
    "traversal, overlong": b"..%c0%af..%c0%afetc",
    "traversal, utf-16 style": b"%u002e%u002e%u2215",
    "bad escape": b"%zz%",
    "bad utf-8": b"%ff%fe%80",
    "surrogate bytes": b"%ed%a0%80",
    "nul": b"a%00b",
    "line break": b"a%0d%0aSet-Cookie:%20owned=1",
    "parameters": b"a;b=c;jsessionid=1",
}


def in_url(text: str) -> bytes:
    """A text as a client writes it into a URL; surrogates as the bytes that they would be."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="").encode()


def for_segment() -> dict[str, bytes]:
    """What can stand where a path parameter stands."""
    return {
        name: in_url(text) for name, text in TEXTS.items() if name not in _ONE_SEGMENT and text is not HUGE
    } | RAW_SEGMENTS


def for_query() -> dict[str, bytes]:
    """What can stand where a query parameter's value stands."""
    return {name: in_url(text) for name, text in TEXTS.items() if text is not HUGE} | {
        name: value for name, value in RAW_SEGMENTS.items() if b"&" not in value
    }


class Literal:
    """JSON text that no serialiser writes."""

    def __init__(self, text: str) -> None:
        self.text = text


NUMBERS: dict[str, Any] = {
    "1e400": Literal("1e400"),
    "-1e400": Literal("-1e400"),
    "1e-400": Literal("1e-400"),
    "400 digits": Literal("1" + "0" * 400),
    "5000 digits": Literal("9" * 5000),
    "minus zero": Literal("-0"),
    "minus zero float": Literal("-0.0"),
    "2^63": 2**63,
    "2^64": 2**64,
    "-2^63-1": -(2**63) - 1,
    "2^31": 2**31,
    "2^53+1": 2**53 + 1,
    "half": 0.5,
    "greatest float": 1.7976931348623157e308,
    "NaN literal": Literal("NaN"),
    "Infinity literal": Literal("Infinity"),
    "-Infinity literal": Literal("-Infinity"),
    "leading zero": Literal("01"),
    "NaN text": "NaN",
    "Infinity text": "Infinity",
}
KINDS: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 12345,
    "negative": -1,
    "fraction": 1.5,
    "text": "text",
    "digits": "12",
    "list": [],
    "list of lists": [[]],
    "list of null": [None],
    "object": {},
    "object of object": {"a": {"b": None}},
}
# Tried everywhere, also where only a share of the corpus is.
ALWAYS = {
    "traversal", "raw traversal", "nul", "headers", "lone surrogate", "bad utf-8", "date at the edge", "empty", "long",
}  # fmt: skip


def share(values: Mapping[str, Value], turn: int, *, of: int = 8) -> dict[str, Value]:
    """What is always tried, and the part of the rest whose turn it is."""
    rest = [name for name in values if name not in ALWAYS]
    chosen = {*ALWAYS, *rest[turn % of :: of]}
    return {name: value for name, value in values.items() if name in chosen}
