"""Lineage: what the registry itself keeps at once, and what it hears from the other services."""

from collections.abc import Sequence
from datetime import datetime

from mlops_platform.contracts.common import LineageEdge
from mlops_platform.contracts.registry import LineageDirection, LineageGraph, LineageNode, Relation
from mlops_platform.core.db.session import Record
from mlops_platform.core.identity import Permission, Principal
from mlops_platform.core.work.unit import UnitOfWork
from mlops_platform.registry.domain.lineage import Edge, Urn, known_urn
from mlops_platform.registry.repository.lineage import MAX_EDGES, MAX_NODES, LineageReader, LineageRepository

ALIAS_REMOVED = "alias.removed"
LINEAGE_READ = Permission("lineage:read")


class Lineage:
    """The graph as it changes."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._edges = LineageRepository(work.session, work.principal)

    async def state(self, subject: str, relation: Relation, target: str) -> None:
        """State an edge: as an event for all, and kept at once, so that who stated it can read it."""
        await self._work.link(subject, relation, target)
        await self._edges.add(Edge(subject, relation, target), self._work.clock.now())

    async def state_by_hand(self, subject: Urn, relation: Relation, target: Urn) -> LineageEdge:
        """State an edge that no service states, with an audit entry of its own."""
        edge = LineageEdge(subject=str(subject), relation=relation, object=str(target))
        await self._work.audit("lineage.stated", edge.subject, after=edge.model_dump())
        await self.state(edge.subject, relation, edge.object)
        return edge

    async def hear(self, subject: str, relation: str, target: str, *, stated_at: datetime) -> None:
        """Keep an edge that a service stated; a redelivery changes nothing."""
        await self._edges.add(Edge(subject, relation, target), stated_at)

    async def forget_alias(self, alias: str, removed_at: datetime) -> None:
        """An alias that is gone points nowhere."""
        await self._edges.end(alias, Relation.POINTS_TO, removed_at)


async def graph(
    edges: LineageReader, principal: Principal, root: Urn, direction: LineageDirection, *, depth: int
) -> LineageGraph:
    """The part of the graph around a thing. What the principal's grants do not name is left out."""
    reached: list[Record] = []
    if direction is not LineageDirection.DOWNSTREAM:
        reached += await edges.upstream(str(root), depth)
    if direction is not LineageDirection.UPSTREAM:
        reached += await edges.downstream(str(root), depth)
    nodes = _nodes(reached, principal)
    shown = nodes[:MAX_NODES]
    among = await edges.edges_among([node.urn for node in shown])
    return LineageGraph(
        root=str(root),
        direction=direction,
        depth=depth,
        nodes=shown,
        edges=[LineageEdge(subject=row.subject, relation=row.relation, object=row.object) for row in among],
        is_truncated=len(nodes) > MAX_NODES or len(reached) > MAX_NODES or len(among) == MAX_EDGES,
    )


def _nodes(reached: Sequence[Record], principal: Principal) -> list[LineageNode]:
    nearest: dict[str, int] = {}
    for row in reached:
        nearest[row.urn] = min(row.distance, nearest.get(row.urn, row.distance))
    nodes = []
    for text, distance in sorted(nearest.items(), key=lambda item: (item[1], item[0])):
        urn = known_urn(text)
        if principal.may(LINEAGE_READ, urn.resource):
            nodes.append(LineageNode(urn=text, kind=urn.kind, name=urn.name, distance=distance))
    return nodes
