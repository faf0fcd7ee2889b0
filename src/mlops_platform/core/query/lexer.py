"""Text to tokens, in one pass: every alternative of the pattern starts with another character, so none backtracks far."""

import re
from dataclasses import dataclass
from enum import StrEnum

from mlops_platform.core.query.errors import QueryError

MAX_LENGTH = 10_000
KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "ASC", "DESC"})


class TokenKind(StrEnum):
    """What a token is, worded as an error message would say it."""

    WORD = "a name"
    QUOTED = "a quoted text"
    KEY = "a quoted key"
    NUMBER = "a number"
    OPERATOR = "a comparison"
    ARITHMETIC = "an arithmetic operator"
    PUNCTUATION = "punctuation"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind, its value (unquoted), the text as written, and its column from 1."""

    kind: TokenKind
    value: str
    written: str
    column: int

    @property
    def keyword(self) -> str | None:
        """The word in capitals when it is a keyword."""
        upper = self.value.upper()
        return upper if self.kind is TokenKind.WORD and upper in KEYWORDS else None


PATTERN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<number>(?:\d+(?:\.\d*)?|(?<![\w`"}])\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    | (?P<word>[^\W\d]\w*)
    | (?P<string>'(?:[^']|'')*')
    | (?P<double>"(?:[^"]|"")*")
    | (?P<key>`[^`]*`)
    | (?P<operator><=|>=|!=|<>|==|=|<|>)
    | (?P<arithmetic>[-+*/])
    | (?P<punctuation>[(),.{}])
    """,
    re.VERBOSE | re.IGNORECASE,
)
KINDS = {
    "number": TokenKind.NUMBER,
    "word": TokenKind.WORD,
    "string": TokenKind.QUOTED,
    "double": TokenKind.QUOTED,
    "key": TokenKind.KEY,
    "operator": TokenKind.OPERATOR,
    "arithmetic": TokenKind.ARITHMETIC,
    "punctuation": TokenKind.PUNCTUATION,
}


def tokenize(text: str, *, source: str = "filter") -> list[Token]:
    """All tokens, and an END token last."""
    if len(text) > MAX_LENGTH:
        raise QueryError(
            f"is {len(text)} characters long; at most {MAX_LENGTH} are read", text=text, column=MAX_LENGTH, source=source
        )
    if "\x00" in text:
        raise QueryError("holds the NUL character", text=text, column=text.index("\x00") + 1, source=source)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = PATTERN.match(text, position)
        if match is None:
            raise QueryError(_what_is_wrong(text, position), text=text, column=position + 1, source=source)
        group = match.lastgroup or ""
        if group != "space":
            tokens.append(Token(KINDS[group], _unquote(group, match[0]), match[0], position + 1))
        position = match.end()
    tokens.append(Token(TokenKind.END, "", "", len(text) + 1))
    return tokens


def _unquote(group: str, written: str) -> str:
    match group:
        case "string":
            return written[1:-1].replace("''", "'")
        case "double":
            return written[1:-1].replace('""', '"')
        case "key":
            return written[1:-1]
        case _:
            return written


def _what_is_wrong(text: str, position: int) -> str:
    char = text[position]
    if char in "'\"`":
        return f"the quote {char} is never closed"
    if char.isdigit():
        return "a name must not start with a digit; put such a key in backticks"
    return f"the character {char!r} means nothing here; put odd keys in backticks and texts in single quotes"
