"""Where every select of a service starts: the rows that the caller may see."""

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, and_, false, or_, select

from mlops_platform.core.identity import Permission, Principal


def visible_to(principal: Principal, table: Table) -> Select[Any]:
    """`SELECT * FROM table`, limited to the principal's project."""
    return select(table).where(in_project(principal, table))


def in_project(principal: Principal, *tables: Table) -> ColumnElement[bool]:
    """The condition alone, for joins, updates and deletes."""
    return and_(*(table.c.project_id == principal.project for table in tables))


def names_allowed(principal: Principal, permission: Permission, column: ColumnElement[str]) -> ColumnElement[bool] | None:
    """The condition on a name column for grants that are limited to name patterns; None when there is no limit."""
    patterns = principal.name_patterns(permission)
    if patterns is None:
        return None
    # Without any pattern nothing is visible; an empty `or_` would mean everything.
    return or_(false(), *(column.like(_like(pattern), escape="\\") for pattern in patterns))


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")
