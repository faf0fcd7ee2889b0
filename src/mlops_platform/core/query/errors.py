"""The one error of the search language: where, what, and the line with a caret under the column."""

from mlops_platform.core.errors import FieldError, PlatformError

SHOWN_BEFORE = 60
SHOWN_AFTER = 30


class QueryError(PlatformError):
    """A filter or an ordering that cannot be read; `column` counts characters from 1."""

    status = 400
    code = "invalid_query"
    title = "The filter cannot be read"

    def __init__(self, message: str, *, text: str, column: int, source: str = "filter") -> None:
        excerpt = point_at(text, column)
        super().__init__(
            f"{source}, column {column}: {message}\n{excerpt}",
            errors=[FieldError(source, f"column {column}: {message}", text[:200])],
            hint="The language: docs/reference/search-language.md.",
        )
        self.message = message
        self.column = column


def point_at(text: str, column: int) -> str:
    """The part of the text around a column, and a caret below it.

    >>> print(point_at("metrics.acc >> 1", 14))
    metrics.acc >> 1
                 ^
    """
    start = max(0, column - 1 - SHOWN_BEFORE)
    shown = "".join(char if char.isprintable() else " " for char in text[start : column - 1 + SHOWN_AFTER])
    prefix = "..." if start else ""
    suffix = "..." if column - 1 + SHOWN_AFTER < len(text) else ""
    return f"{prefix}{shown}{suffix}\n{' ' * (len(prefix) + column - 1 - start)}^"
