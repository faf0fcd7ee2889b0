"""The lineage graph as a person reads it."""

from mlops_platform.cli.lineage import tree
from mlops_platform.contracts.common import LineageEdge
from mlops_platform.contracts.registry import LineageDirection, LineageGraph, LineageNode


def graph(*edges, nodes):
    return LineageGraph(
        root=nodes[0][0],
        direction=LineageDirection.UPSTREAM,
        depth=5,
        nodes=[LineageNode(urn=urn, kind="thing", name=urn, distance=distance) for urn, distance in nodes],
        edges=[LineageEdge(subject=subject, relation=relation, object=object_) for subject, relation, object_ in edges],
        is_truncated=False,
    )


def test_each_step_is_indented_below_what_it_explains():
    found = graph(("alias", "points_to", "v1"), ("v1", "derived_from", "run"), nodes=[("alias", 0), ("v1", 1), ("run", 2)])
    assert list(tree(found)) == ["thing alias", "  points_to -> thing v1", "    derived_from -> thing run"]


def test_an_edge_that_points_the_other_way_is_drawn_so():
    found = graph(("run", "produced", "v1"), nodes=[("v1", 0), ("run", 1)])
    assert list(tree(found)) == ["thing v1", "  produced <- thing run"]


def test_what_is_reached_twice_is_written_out_once():
    edges = [("a", "used", "b"), ("a", "used", "c"), ("b", "used", "d"), ("c", "used", "d"), ("d", "used", "e")]
    found = graph(*edges, nodes=[("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 3)])
    lines = list(tree(found))
    assert [line.strip() for line in lines].count("used -> thing e") == 1
    assert lines[-1] == "    used -> thing d (see above)"


def test_a_circle_ends():
    found = graph(("a", "used", "b"), ("b", "used", "a"), nodes=[("a", 0), ("b", 1)])
    assert len(list(tree(found))) == 3
