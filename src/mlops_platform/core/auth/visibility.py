"""Where every select of a service starts: the rows that the caller may see."""

from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, Select, Table, Text, and_, any_, bindparam, false, or_, select

from mlops_platform.core.db.schema import HexId
from mlops_platform.core.identity import Permission, Principal


class Someone:
    """Whoever asks. Building a statement costs more than running it, so those that many requests share are built once.

    They are built for `SOMEONE` in the place of a principal, and run with `seen_by(principal, permission)`.
    """


SOMEONE: Final = Someone()
_PROJECT = bindparam("project", type_=HexId)
_NAMES = bindparam("names", type_=ARRAY(Text))


def visible_to(principal: Principal | Someone, table: Table) -> Select[Any]:
    """`SELECT * FROM table`, limited to the principal's project."""
    return select(table).where(in_project(principal, table))


def in_project(principal: Principal | Someone, *tables: Table) -> ColumnElement[bool]:
    """The condition alone, for joins, updates and deletes."""
    project = _PROJECT if isinstance(principal, Someone) else principal.project
    return and_(*(table.c.project_id == project for table in tables))


def names_allowed(
    principal: Principal | Someone, permission: Permission, column: ColumnElement[str]
) -> ColumnElement[bool] | None:
    """The condition on a name column for grants that are limited to name patterns; None when there is no limit."""
    if isinstance(principal, Someone):
        return column.like(any_(_NAMES))
    patterns = principal.name_patterns(permission)
    if patterns is None:
        return None
    # Without any pattern nothing is visible; an empty `or_` would mean everything.
    return or_(false(), *(column.like(_like(pattern), escape="\\") for pattern in patterns))


def seen_by(principal: Principal, permission: Permission) -> dict[str, Any]:
    """The parameters of a statement that was built for `SOMEONE`. Without any pattern it finds nothing."""
    patterns = principal.name_patterns(permission)
    return {"project": principal.project, "names": ["%"] if patterns is None else [_like(each) for each in patterns]}


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")
