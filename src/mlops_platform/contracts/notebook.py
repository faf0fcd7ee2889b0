"""How an answer looks in a notebook. Everything that came from outside is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from mlops_platform.contracts.common import Answer

LONGEST_CELL = 300
MOST_PAIRS = 50


class Displayed(Answer):
    """An answer that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        fields = {name: value for name, value in self.model_dump(mode="json").items() if value not in (None, {}, [])}
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(key)}</th><td>{_cell(it)}</td></tr>" for key, it in fields.items()
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def table(rows: Iterable[Mapping[str, Any]], *, note: str = "") -> str:
    """Rows as a table; columns in the order in which they turn up."""
    listed = list(rows)
    columns = list(dict.fromkeys(column for row in listed for column in row))
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(column))}</td>" for column in columns) + "</tr>" for row in listed)
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        shown = [f"{escape(_short(key))}: {escape(_short(item))}" for key, item in list(value.items())[:MOST_PAIRS]]
        return "<br>".join([*shown, *(["&hellip;"] if len(value) > MOST_PAIRS else [])])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return escape(_short(", ".join(str(item) for item in value[:MOST_PAIRS])))
    return escape(_short(value))


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}…"
