"""The grammar, by recursive descent: linear in the text, bounded in depth and size.

filter     = or
or         = and { OR and }
and        = not { AND not }
not        = NOT not | "(" or ")" | comparison
comparison = field ( comparator value | [NOT] IN "(" value { "," value } ")" | [NOT] (LIKE | ILIKE) text | IS [NOT] NULL )
field      = attribute | collection "." key [ "." summary ]
key        = word { "." word } | `anything` | "anything"
"""

import math

from mlops_platform.core.query.errors import QueryError
from mlops_platform.core.query.lexer import Token, TokenKind, tokenize
from mlops_platform.core.query.tree import (
    And,
    Comparator,
    Compare,
    Expression,
    Field,
    IsNull,
    Like,
    Not,
    OneOf,
    Or,
    Order,
    Value,
)
from mlops_platform.core.query.vocabulary import Attribute, Mismatch, Type, Vocabulary, fit

MAX_DEPTH = 50
MAX_TERMS = 200
MAX_VALUES = 1000
MAX_KEY = 250
COMPARATORS = {"==": Comparator.EQ, "<>": Comparator.NE, **{str(each): each for each in Comparator}}
# What may stand before an attribute, once.
PREFIXES = frozenset({"attributes", "attribute", "attr"})
WORD_VALUES: dict[str, Value] = {"TRUE": True, "FALSE": False, "NAN": math.nan, "INFINITY": math.inf, "INF": math.inf}


def parse_filter(text: str, vocabulary: Vocabulary, *, source: str = "filter") -> Expression | None:
    """The tree of a filter; None for an empty one. Raises `QueryError` with the column."""
    parser = _Parser(text, vocabulary, source)
    if parser.here.kind is TokenKind.END:
        return None
    tree = parser.either()
    parser.end("AND, OR or the end of the filter")
    return tree


def parse_order(text: str, vocabulary: Vocabulary, *, source: str = "order_by") -> Order:
    """`field [ASC | DESC]`."""
    parser = _Parser(text, vocabulary, source)
    field, _ = parser.field()
    direction = parser.take_keyword("ASC", "DESC")
    parser.end("ASC, DESC or the end")
    return Order(field, descending=direction == "DESC")


class _Parser:
    def __init__(self, text: str, vocabulary: Vocabulary, source: str) -> None:
        self.text = text
        self.source = source
        self.vocabulary = vocabulary
        self.tokens = tokenize(text, source=source)
        self.position = 0
        self.terms = 0
        self.depth = 0

    @property
    def here(self) -> Token:
        return self.tokens[self.position]

    def wrong(self, message: str, token: Token | None = None, *, column: int | None = None) -> QueryError:
        at = column if column is not None else (token or self.here).column
        return QueryError(message, text=self.text, column=at, source=self.source)

    def next(self) -> Token:
        token = self.here
        self.position += 1
        return token

    def take_keyword(self, *words: str) -> str | None:
        word = self.here.keyword
        if word in words:
            self.position += 1
            return word
        return None

    def take(self, punctuation: str) -> Token | None:
        if self.here.kind is TokenKind.PUNCTUATION and self.here.value == punctuation:
            return self.next()
        return None

    def expect(self, punctuation: str) -> None:
        if not self.take(punctuation):
            raise self.wrong(f"expected {punctuation!r}, found {_found(self.here)}")

    def end(self, expected: str) -> None:
        if self.here.kind is not TokenKind.END:
            raise self.wrong(f"expected {expected}, found {_found(self.here)}")

    def either(self) -> Expression:
        terms = [self.both()]
        while self.take_keyword("OR"):
            terms.append(self.both())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def both(self) -> Expression:
        terms = [self.term()]
        while self.take_keyword("AND"):
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def term(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.wrong(f"is nested deeper than {MAX_DEPTH} levels")
        result: Expression
        if self.take_keyword("NOT"):
            result = Not(self.term())
        elif self.take("("):
            result = self.either()
            self.expect(")")
        else:
            result = self.comparison()
        self.depth -= 1
        return result

    def comparison(self) -> Expression:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise self.wrong(f"holds more than {MAX_TERMS} comparisons")
        field, attribute = self.field()
        if self.here.kind is TokenKind.OPERATOR:
            comparator = COMPARATORS[self.next().value]
            return Compare(field, comparator, self.value(field, attribute, comparator))
        if self.take_keyword("IS"):
            negated = self.take_keyword("NOT") is not None
            if not self.take_keyword("NULL"):
                raise self.wrong(f"expected NULL after IS, found {_found(self.here)}")
            return IsNull(field, negated=negated)
        return self.word_comparison(field, attribute)

    def word_comparison(self, field: Field, attribute: Attribute) -> Expression:
        negated = self.take_keyword("NOT") is not None
        if self.take_keyword("IN"):
            return OneOf(field, self.values(field, attribute), negated=negated)
        at = self.here
        word = self.take_keyword("LIKE", "ILIKE")
        if word is None:
            raise self.wrong(f"expected a comparison (=, !=, <, <=, >, >=, IN, LIKE, ILIKE, IS NULL), found {_found(at)}")
        if attribute.type in {Type.NUMBER, Type.TIME}:
            raise self.wrong(f"{word} compares texts, and {field.name!r} is a {attribute.type}", at)
        pattern = self.next()
        if pattern.kind is not TokenKind.QUOTED:
            raise self.wrong(f"expected a pattern in quotes after {word}, found {_found(pattern)}", pattern)
        return Like(field, pattern.value, ignores_case=word == "ILIKE", negated=negated)

    def values(self, field: Field, attribute: Attribute) -> tuple[Value, ...]:
        self.expect("(")
        values = [self.value(field, attribute)]
        while self.take(","):
            values.append(self.value(field, attribute))
            if len(values) > MAX_VALUES:
                raise self.wrong(f"IN lists more than {MAX_VALUES} values")
        self.expect(")")
        return tuple(values)

    def value(self, field: Field, attribute: Attribute, comparator: Comparator | None = None) -> Value:
        token = self.next() if self.here.kind is not TokenKind.END else self.here
        literal = _literal(token)
        if literal is None:
            raise self.wrong(f"expected a value, found {_found(token)}; texts stand in single quotes", token)
        if literal in {math.inf, -math.inf} and "inf" not in token.written.lower():
            raise self.wrong("this number is larger than any float", token)
        try:
            return fit(literal, attribute, comparator)
        except Mismatch as problem:
            raise self.wrong(f"{field.name!r} {problem}", token) from None

    def field(self) -> tuple[Field, Attribute]:
        start, name = self.name()
        dotted = self.take(".") is not None
        if dotted and name in PREFIXES:
            start, name = self.name()
            dotted = self.take(".") is not None
        if name in self.vocabulary.collections:
            if not dotted:
                raise self.wrong(f"expected a key, as in {name}.<key>, found {_found(self.here)}")
            return self.key(name, start)
        attribute = self.vocabulary.attributes.get(name)
        if attribute is None or dotted:
            raise self.wrong(f"{start.value!r} is no field; known are {self.vocabulary.known()}", start)
        return Field(name, column=start.column), attribute

    def name(self) -> tuple[Token, str]:
        start = self.next() if self.here.kind is not TokenKind.END else self.here
        if start.kind is not TokenKind.WORD or start.keyword:
            raise self.wrong(f"expected a field ({self.vocabulary.known()}), found {_found(start)}", start)
        return start, self.vocabulary.aliases.get(start.value.lower(), start.value.lower())

    def key(self, name: str, start: Token) -> tuple[Field, Attribute]:
        collection = self.vocabulary.collections[name]
        token = self.next() if self.here.kind is not TokenKind.END else self.here
        summary = None
        if token.kind in {TokenKind.KEY, TokenKind.QUOTED}:
            key = token.value
            if self.take("."):
                summary = self.next().value.lower()
                if summary not in collection.summaries:
                    raise self.wrong(
                        f"after a quoted key only one of {', '.join(collection.summaries) or 'nothing'} may follow", token
                    )
        else:
            parts = self.dotted_words(token)
            if len(parts) > 1 and parts[-1].lower() in collection.summaries:
                summary = parts.pop().lower()
            key = ".".join(parts)
        if not 0 < len(key) <= MAX_KEY:
            raise self.wrong(f"a key has 1 to {MAX_KEY} characters, this one {len(key)}", token)
        field = Field(key, collection=name, summary=summary, column=start.column)
        return field, Attribute(collection.type)

    def dotted_words(self, first: Token) -> list[str]:
        parts = [self.part(first)]
        while self.take("."):
            parts.append(self.part(self.next() if self.here.kind is not TokenKind.END else self.here))
        return parts

    def part(self, token: Token) -> str:
        if token.kind is not TokenKind.WORD and not (token.kind is TokenKind.NUMBER and token.value.isdigit()):
            raise self.wrong(f"expected a key, found {_found(token)}; put odd keys in backticks", token)
        return token.value


def _literal(token: Token) -> Value | None:
    match token.kind:
        case TokenKind.QUOTED:
            return token.value
        case TokenKind.NUMBER:
            return _number(token.value)
        case TokenKind.WORD:
            return WORD_VALUES.get(token.value.upper())
        case _:
            return None


def _number(written: str) -> int | float:
    if written.lstrip("+-").isdigit() and len(written) < 20:
        return int(written)
    return float(written)


def _found(token: Token) -> str:
    return "the end" if token.kind is TokenKind.END else repr(token.written[:60])
