"""The grammar, by recursive descent: linear in the text, bounded in depth and size.

filter     = or
or         = and { OR and }
and        = not { AND not }
not        = NOT not | "(" or ")" | comparison
comparison = field ( comparator value | [NOT] IN "(" value { "," value } ")" | [NOT] (LIKE | ILIKE) text | IS [NOT] NULL )
           | sum ( comparator sum | [NOT] IN "(" value { "," value } ")" | IS [NOT] NULL )
sum        = product { ("+" | "-") product }
product    = factor { ("*" | "/") factor }
factor     = { "+" | "-" } ( field | number | "(" sum ")" )
field      = attribute | collection "." key [ "{" label "=" text { "," label "=" text } "}" ] [ "." summary ]
key        = word { "." word } | `anything` | "anything"

A parenthesis opens a sum when an operator or a comparison follows the one that closes it; they are paired beforehand.
"""

import math

from mlops_platform.core.query.errors import QueryError
from mlops_platform.core.query.lexer import Token, TokenKind, tokenize
from mlops_platform.core.query.tree import (
    And,
    Arithmetic,
    Comparator,
    Compare,
    CompareTerms,
    Expression,
    Field,
    IsNull,
    Like,
    Not,
    Number,
    OneOf,
    Operator,
    Or,
    Order,
    Term,
    TermIsNull,
    Value,
    fields_of_term,
)
from mlops_platform.core.query.vocabulary import Attribute, Mismatch, Type, Vocabulary, fit

MAX_DEPTH = 50
MAX_TERMS = 200
MAX_VALUES = 1000
MAX_KEY = 250
MAX_LABELS = 8
MAX_OPERANDS = 20
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
    if field.collection is not None and vocabulary.collections[field.collection].many:
        raise parser.wrong(f"{field.collection} stand in filters only: there may be several", column=field.column)
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
        self.operands = 0
        self.depth = 0
        self.closing = _closing(self.tokens)

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
        return self.next() if self.is_here(punctuation) else None

    def is_here(self, punctuation: str) -> bool:
        return self.here.kind is TokenKind.PUNCTUATION and self.here.value == punctuation

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
        elif self.is_here("(") and not self.opens_sum():
            self.next()
            result = self.either()
            self.expect(")")
        else:
            result = self.comparison()
        self.depth -= 1
        return result

    def computes(self) -> bool:
        return self.here.kind is TokenKind.ARITHMETIC

    def opens_sum(self) -> bool:
        closing = self.closing.get(self.position)
        if closing is None:
            return False
        after = self.tokens[closing + 1]
        return after.kind in {TokenKind.OPERATOR, TokenKind.ARITHMETIC} or after.keyword in {"IS", "IN", "NOT"}

    def comparison(self) -> Expression:
        self.count()
        self.operands = 0
        if self.here.kind in {TokenKind.NUMBER, TokenKind.ARITHMETIC} or self.is_here("("):
            return self.comparison_of(self.sum())
        start = self.position
        field, attribute = self.field()
        if self.computes():
            self.position = start
            return self.comparison_of(self.sum())
        if self.here.kind is TokenKind.OPERATOR:
            comparator = COMPARATORS[self.next().value]
            if self.starts_sum():
                self.numeric(field, attribute)
                return CompareTerms(field, comparator, self.sum())
            return Compare(field, comparator, self.value(field, attribute, comparator))
        if self.take_keyword("IS"):
            return IsNull(field, negated=self.is_null())
        return self.word_comparison(field, attribute)

    def count(self) -> None:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise self.wrong(f"holds more than {MAX_TERMS} comparisons")

    def is_null(self) -> bool:
        negated = self.take_keyword("NOT") is not None
        if not self.take_keyword("NULL"):
            raise self.wrong(f"expected NULL after IS, found {_found(self.here)}")
        return negated

    def comparison_of(self, left: Term) -> Expression:
        """What follows a sum."""
        at = self.here
        if at.kind is TokenKind.OPERATOR:
            comparator = COMPARATORS[self.next().value]
            right = self.sum()
            if not fields_of_term(left) and not fields_of_term(right):
                raise self.wrong("compares no field with anything", at)
            return _plain(left, comparator, right)
        if not fields_of_term(left):
            raise self.wrong(f"expected a comparison (=, !=, <, <=, >, >=), found {_found(at)}")
        if self.take_keyword("IS"):
            return TermIsNull(left, negated=self.is_null())
        negated = self.take_keyword("NOT") is not None
        if not self.take_keyword("IN"):
            raise self.wrong(f"expected a comparison (=, !=, <, <=, >, >=, IN, IS NULL), found {_found(at)}")
        comparator = Comparator.NE if negated else Comparator.EQ
        values = self.values(Field("the expression"), Attribute(Type.NUMBER))
        terms: list[Expression] = []
        for value in values:
            self.count()
            terms.append(CompareTerms(left, comparator, Number(float(str(value)))))
        if len(terms) == 1:
            return terms[0]
        return And(tuple(terms)) if negated else Or(tuple(terms))

    def starts_sum(self) -> bool:
        """Whether a field or an operation follows, and not a plain value."""
        at = self.position
        while self.tokens[at].kind is TokenKind.ARITHMETIC:
            at += 1
        token = self.tokens[at]
        if token.kind is TokenKind.PUNCTUATION and token.value == "(":
            return True
        if token.kind is not TokenKind.WORD or token.value.upper() in WORD_VALUES:
            return token.kind is not TokenKind.END and self.tokens[at + 1].kind is TokenKind.ARITHMETIC
        name = self.vocabulary.aliases.get(token.value.lower(), token.value.lower())
        if name in self.vocabulary.attributes:
            return True
        return self.tokens[at + 1].value == "." and (name in self.vocabulary.collections or name in PREFIXES)

    def sum(self) -> Term:
        left = self.product()
        while self.computes() and self.here.value in "+-":
            left = Arithmetic(Operator(self.next().value), left, self.product())
        return left

    def product(self) -> Term:
        left = self.factor()
        while self.computes() and self.here.value in "*/":
            left = Arithmetic(Operator(self.next().value), left, self.factor())
        return left

    def factor(self) -> Term:
        self.operands += 1
        if self.operands > MAX_OPERANDS:
            raise self.wrong(f"computes with more than {MAX_OPERANDS} operands in one comparison")
        negative = self.sign()
        token = self.here
        if self.take("("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.wrong(f"is nested deeper than {MAX_DEPTH} levels")
            term = self.sum()
            self.expect(")")
            self.depth -= 1
        elif token.kind is TokenKind.NUMBER or (token.kind is TokenKind.WORD and token.value.upper() in WORD_VALUES):
            value = self.literal()
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise self.wrong(f"expected a field or a number, found {_found(token)}", token)
            return Number(-float(value) if negative else float(value))
        else:
            field, attribute = self.field()
            self.numeric(field, attribute)
            term = field
        return Arithmetic(Operator.TIMES, Number(-1.0), term) if negative else term

    def sign(self) -> bool:
        negative = False
        while self.computes() and self.here.value in "+-":
            negative ^= self.next().value == "-"
        return negative

    def numeric(self, field: Field, attribute: Attribute) -> None:
        if attribute.type not in {Type.NUMBER, Type.ANY}:
            raise self.wrong(
                f"{field.name!r} is a {attribute.type}: only numbers are computed and compared with each other; "
                "texts stand in single quotes",
                column=field.column,
            )

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
        token = self.here
        literal = self.literal()
        try:
            return fit(literal, attribute, comparator)
        except Mismatch as problem:
            raise self.wrong(f"{field.name!r} {problem}", token) from None

    def literal(self) -> Value:
        """A value as it is written, with its sign."""
        start = self.here
        negative = self.sign()
        is_signed = self.here is not start
        token = self.next() if self.here.kind is not TokenKind.END else self.here
        literal = _literal(token)
        if literal is None or (is_signed and (isinstance(literal, bool) or not isinstance(literal, int | float))):
            raise self.wrong(f"expected a value, found {_found(token)}; texts stand in single quotes", token)
        if literal in {math.inf, -math.inf} and "inf" not in token.written.lower():
            raise self.wrong("this number is larger than any float", token)
        return -literal if negative and isinstance(literal, int | float) else literal

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
            hint = "; keys with other characters than letters and _ stand in backticks" if self.operands else ""
            raise self.wrong(f"{start.value!r} is no field; known are {self.vocabulary.known()}{hint}", start)
        return Field(name, column=start.column), attribute

    def name(self) -> tuple[Token, str]:
        start = self.next() if self.here.kind is not TokenKind.END else self.here
        if start.kind is not TokenKind.WORD or start.keyword:
            raise self.wrong(f"expected a field ({self.vocabulary.known()}), found {_found(start)}", start)
        return start, self.vocabulary.aliases.get(start.value.lower(), start.value.lower())

    def key(self, name: str, start: Token) -> tuple[Field, Attribute]:
        collection = self.vocabulary.collections[name]
        token = self.next() if self.here.kind is not TokenKind.END else self.here
        summary: str | None = None
        labels: tuple[tuple[str, str], ...] = ()
        is_quoted = token.kind in {TokenKind.KEY, TokenKind.QUOTED}
        parts = [token.value] if is_quoted else self.dotted_words(token)
        if self.is_here("{") and collection.takes_labels:
            labels = self.labels()
            is_quoted = True
        if is_quoted and self.take("."):
            summary = self.next().value.lower()
            if summary not in collection.summaries:
                raise self.wrong(
                    f"after such a key only one of {', '.join(collection.summaries) or 'nothing'} may follow", token
                )
        elif not is_quoted and len(parts) > 1 and parts[-1].lower() in collection.summaries:
            summary = parts.pop().lower()
        key = ".".join(parts)
        if not 0 < len(key) <= MAX_KEY:
            raise self.wrong(f"a key has 1 to {MAX_KEY} characters, this one {len(key)}", token)
        if collection.keys and key not in collection.keys:
            raise self.wrong(f"{name} have only {', '.join(collection.keys)}, not {key[:60]!r}", token)
        field = Field(key, collection=name, summary=summary, column=start.column, labels=labels)
        return field, Attribute(collection.type)

    def labels(self) -> tuple[tuple[str, str], ...]:
        opening = self.next()
        found: dict[str, str] = {}
        while not self.take("}"):
            if found:
                self.expect(",")
            at = self.here
            name = self.label()
            if self.here.kind is not TokenKind.OPERATOR or self.here.value != "=":
                raise self.wrong(f"expected '=' after the label, found {_found(self.here)}")
            self.next()
            if name in found or len(found) >= MAX_LABELS:
                raise self.wrong(f"a context has at most {MAX_LABELS} labels, each once", at)
            found[name] = self.label()
        if any(not 0 < len(part) <= MAX_KEY for pair in found.items() for part in pair):
            raise self.wrong(f"a label has 1 to {MAX_KEY} characters", opening)
        return tuple(sorted(found.items()))

    def label(self) -> str:
        token = self.next() if self.here.kind is not TokenKind.END else self.here
        if token.kind not in {TokenKind.WORD, TokenKind.QUOTED, TokenKind.KEY, TokenKind.NUMBER}:
            raise self.wrong(f"expected a label such as split=val, found {_found(token)}", token)
        return token.value

    def dotted_words(self, first: Token) -> list[str]:
        parts = [self.part(first)]
        while self.take("."):
            parts.append(self.part(self.next() if self.here.kind is not TokenKind.END else self.here))
        return parts

    def part(self, token: Token) -> str:
        if token.kind is not TokenKind.WORD and not (token.kind is TokenKind.NUMBER and token.value.isdigit()):
            raise self.wrong(f"expected a key, found {_found(token)}; put odd keys in backticks", token)
        return token.value


def _closing(tokens: list[Token]) -> dict[int, int]:
    """For each opening parenthesis, the place of the one that closes it."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token.kind is not TokenKind.PUNCTUATION:
            continue
        if token.value == "(":
            opened.append(at)
        elif token.value == ")" and opened:
            found[opened.pop()] = at
    return found


FLIPPED = {
    Comparator.LT: Comparator.GT,
    Comparator.LE: Comparator.GE,
    Comparator.GT: Comparator.LT,
    Comparator.GE: Comparator.LE,
}


def _plain(left: Term, comparator: Comparator, right: Term) -> Expression:
    """A field beside a number is a plain comparison, which an index may serve."""
    if isinstance(left, Number) and isinstance(right, Field):
        left, comparator, right = right, FLIPPED.get(comparator, comparator), left
    if isinstance(left, Field) and isinstance(right, Number) and not math.isnan(right.value):
        return Compare(left, comparator, right.value)
    return CompareTerms(left, comparator, right)


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
    if written.isdigit() and len(written) < 20:
        return int(written)
    return float(written)


def _found(token: Token) -> str:
    return "the end" if token.kind is TokenKind.END else repr(token.written[:60])
