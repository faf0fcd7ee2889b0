"""Statements on folders: names with slashes, read as a tree. A folder is no row; it is what names have in common."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Text, cast, func, select

from mlops_platform.core.auth.visibility import in_project
from mlops_platform.core.db.session import ReadSession, Record
from mlops_platform.core.identity import Principal
from mlops_platform.tracking.repository.experiments import current, readable
from mlops_platform.tracking.tables import experiments, run_counts

# The next part of a name. Slashes at its beginning belong to it, so that no part is empty and no folder its own parent.
_PART = "^/*[^/]*"


async def level(
    session: ReadSession, principal: Principal, folder: str, *, after: str | None, limit: int
) -> Sequence[Record]:
    """What lies directly in a folder, by name: experiments, and folders with the counts of what is below them."""
    prefix = f"{folder}/" if folder else ""
    rest = func.substr(experiments.c.name, len(prefix) + 1)
    name = func.coalesce(func.substring(rest, _PART), "").label("name")
    runs = (
        select(cast(func.coalesce(func.sum(run_counts.c.runs), 0), BigInteger))
        .where(run_counts.c.experiment_id == experiments.c.id)
        .correlate(experiments)
        .scalar_subquery()
    )
    inside = (
        select(name, (rest == name).label("is_here"), experiments.c.id, experiments.c.updated_at, runs.label("runs"))
        .where(in_project(principal, experiments), readable(principal), *current())
        .where(experiments.c.name.startswith(prefix, autoescape=True))
    )
    if after is not None:
        # Said of the whole name too, which the index is ordered by; what has `after` as its own part is shown already.
        inside = inside.where(name > after, experiments.c.name >= prefix + after)
    found = inside.subquery("inside")
    here = func.min(func.replace(cast(found.c.id, Text), "-", "")).filter(found.c.is_here)
    statement = (
        select(
            found.c.name,
            here.label("experiment_id"),
            func.bool_or(~found.c.is_here).label("is_folder"),
            func.count().label("experiments"),
            cast(func.sum(found.c.runs), BigInteger).label("runs"),
            func.max(found.c.updated_at).label("updated_at"),
        )
        .group_by(found.c.name)
        .order_by(found.c.name)
        .limit(limit)
    )
    return await session.all(statement)
