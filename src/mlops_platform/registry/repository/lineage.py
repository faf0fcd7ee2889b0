"""The lineage graph of the whole platform, one edge a row."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Row, Text, delete, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert

from mlops_platform.core.auth.visibility import in_project, visible_to
from mlops_platform.core.db.session import ReadSession, WriteSession
from mlops_platform.core.identity import Principal
from mlops_platform.registry.domain.lineage import EXCLUSIVE, Edge
from mlops_platform.registry.tables import lineage_edges

_TEXTS = ARRAY(Text)
MAX_NODES = 2000
MAX_EDGES = 10_000
# A node is met once per distance at which it can be reached, so this bounds the walk and not only the answer.
_MAX_STEPS = 20_000


class LineageReader:
    """Walks of the graph, within the principal's project."""

    def __init__(self, session: ReadSession, principal: Principal) -> None:
        self._session = session
        self._principal = principal

    async def upstream(self, urn: str, depth: int) -> Sequence[Row[Any]]:
        """(urn, distance) of what this was made from, nearest first."""
        return await self._walk(urn, depth, lineage_edges.c.dependent, lineage_edges.c.source)

    async def downstream(self, urn: str, depth: int) -> Sequence[Row[Any]]:
        """(urn, distance) of what was made from this, nearest first."""
        return await self._walk(urn, depth, lineage_edges.c.source, lineage_edges.c.dependent)

    async def edges_among(self, urns: Sequence[str]) -> Sequence[Row[Any]]:
        """The edges between these nodes."""
        among = func.unnest(literal(list(urns), type_=_TEXTS)).table_valued("urn").render_derived()
        again = func.unnest(literal(list(urns), type_=_TEXTS)).table_valued("urn").render_derived()
        statement = visible_to(self._principal, lineage_edges).where(
            lineage_edges.c.dependent.in_(select(among.c.urn)), lineage_edges.c.source.in_(select(again.c.urn))
        )
        ordered = statement.order_by(lineage_edges.c.subject, lineage_edges.c.relation, lineage_edges.c.object)
        return await self._session.all(ordered.limit(MAX_EDGES))

    async def _walk(self, urn: str, depth: int, here: ColumnElement[str], there: ColumnElement[str]) -> Sequence[Row[Any]]:
        """UNION drops what was met at the same distance, so diamonds do not multiply; the depth ends cycles."""
        reached = select(
            literal(urn, type_=Text(collation="C")).label("urn"), literal(0, type_=Integer).label("distance")
        ).cte("reached", recursive=True)
        reached = reached.union(
            select(there, reached.c.distance + 1)
            .join(reached, here == reached.c.urn)
            .where(in_project(self._principal, lineage_edges), reached.c.distance < depth)
        )
        steps = select(reached).limit(_MAX_STEPS).subquery()
        nearest = func.min(steps.c.distance)
        return await self._session.all(
            select(steps.c.urn, nearest.label("distance"))
            .group_by(steps.c.urn)
            .order_by(nearest, steps.c.urn)
            .limit(MAX_NODES + 1)
        )


_TAKE_TURNS = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"


class LineageRepository(LineageReader):
    """Writes of the graph."""

    def __init__(self, session: WriteSession, principal: Principal) -> None:
        super().__init__(session, principal)
        self._session: WriteSession = session

    async def add(self, edge: Edge, stated_at: datetime) -> None:
        """Remember an edge; once is enough. Of an exclusive relation only the newest statement stands."""
        if edge.relation in EXCLUSIVE and not await self._supersede(edge, stated_at):
            return
        await self._session.execute(
            upsert(lineage_edges)
            .values(
                project_id=self._principal.project,
                subject=edge.subject,
                relation=edge.relation,
                object=edge.target,
                dependent=edge.dependent,
                source=edge.source,
                stated_at=stated_at,
            )
            .on_conflict_do_update(
                index_elements=["project_id", "subject", "relation", "object"],
                set_={"stated_at": func.greatest(lineage_edges.c.stated_at, stated_at)},
            )
        )

    async def end(self, subject: str, relation: str, before: datetime) -> None:
        """Forget what a subject stated by that relation until then."""
        await self._session.execute(delete(lineage_edges).where(*self._stated(subject, relation, before)))

    async def _supersede(self, edge: Edge, stated_at: datetime) -> bool:
        """Forget earlier statements of the same subject; False when a later one stands already."""
        # Who states and who hears of it meet here, over the same edges in any order: one after the other.
        await self._session.fetch(_TAKE_TURNS, f"{self._principal.project}:{edge.subject}:{edge.relation}")
        await self._session.execute(
            delete(lineage_edges).where(
                *self._stated(edge.subject, edge.relation, stated_at), lineage_edges.c.object != edge.target
            )
        )
        later = visible_to(self._principal, lineage_edges).where(
            lineage_edges.c.subject == edge.subject,
            lineage_edges.c.relation == edge.relation,
            lineage_edges.c.object != edge.target,
        )
        return await self._session.first(later.limit(1)) is None

    def _stated(self, subject: str, relation: str, before: datetime) -> tuple[ColumnElement[bool], ...]:
        return (
            in_project(self._principal, lineage_edges),
            lineage_edges.c.subject == subject,
            lineage_edges.c.relation == relation,
            lineage_edges.c.stated_at <= before,
        )
