"""From a document to a graph that can run, or the one sentence that says why not."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlops_platform.contracts.pipelines import PipelineCreate, TaskSpec
from mlops_platform.core.errors import FieldError
from mlops_platform.pipelines.domain import references
from mlops_platform.pipelines.errors import PipelineInvalid, UnresolvableReference

MAX_EDGES = 100_000
MAX_DEPTH = 1_000


@dataclass(frozen=True, slots=True)
class Node:
    """A task at its position in the document, with the positions that it waits for."""

    position: int
    spec: TaskSpec
    upstream: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked graph: every dependency exists, nothing waits for itself."""

    nodes: tuple[Node, ...]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Each (upstream, downstream) pair of positions."""
        return [(up, node.position) for node in self.nodes for up in node.upstream]


def build_graph(document: PipelineCreate) -> Graph:
    """Check the document as a whole and give its graph. Raises `PipelineInvalid` naming the field."""
    positions = _positions(document.tasks)
    nodes = tuple(
        Node(index, spec, _upstream(index, spec, positions, document)) for index, spec in enumerate(document.tasks)
    )
    edges = sum(len(node.upstream) for node in nodes)
    if edges > MAX_EDGES:
        raise PipelineInvalid.of("tasks", f"have {edges} dependencies in all, more than {MAX_EDGES}", edges)
    _check_order(nodes)
    return Graph(nodes)


def referenced_tasks(spec: TaskSpec) -> tuple[str, ...]:
    """The tasks whose results the arguments of this one need."""
    found = (reference for _, reference in _references(spec, "task"))
    return tuple(dict.fromkeys(reference.name for reference in found if reference.kind == "tasks"))


def _positions(tasks: Sequence[TaskSpec]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for index, task in enumerate(tasks):
        if task.name in positions:
            raise PipelineInvalid.of(
                f"tasks.{index}.name", f"is taken by task {positions[task.name]} already; names are unique", task.name
            )
        positions[task.name] = index
    return positions


def _upstream(index: int, spec: TaskSpec, positions: dict[str, int], document: PipelineCreate) -> tuple[int, ...]:
    upstream: dict[int, None] = {}
    for order, name in enumerate(spec.depends_on):
        field = f"tasks.{index}.depends_on.{order}"
        upstream[_position(name, field, spec, positions)] = None
    is_list_or_one = isinstance(spec.for_each, list) or (
        isinstance(spec.for_each, str) and references.is_one(spec.for_each)
    )
    if spec.for_each is not None and not is_list_or_one:
        raise PipelineInvalid.of(f"tasks.{index}.for_each", "must be a list or a reference to one", spec.for_each)
    try:
        found = list(_references(spec, f"tasks.{index}"))
    except UnresolvableReference as error:
        field, _, message = str(error).partition(": ")
        raise PipelineInvalid.of(field, message) from None
    for field, reference in found:
        if reference.kind == "tasks":
            upstream[_position(reference.name, field, spec, positions)] = None
        _check_reference(field, reference, spec, document)
    return tuple(sorted(upstream))


def _references(spec: TaskSpec, at: str) -> Iterable[tuple[str, references.Reference]]:
    yield from references.find(spec.arguments, f"{at}.arguments")
    yield from references.find(spec.for_each, f"{at}.for_each")


def _position(name: str, field: str, spec: TaskSpec, positions: dict[str, int]) -> int:
    if name not in positions:
        raise PipelineInvalid.of(field, f"there is no task named {name!r}", name)
    if name == spec.name:
        raise PipelineInvalid.of(field, f"task {name!r} depends on itself", name)
    return positions[name]


def _check_reference(field: str, reference: references.Reference, spec: TaskSpec, document: PipelineCreate) -> None:
    if reference.kind == "params" and reference.name not in document.parameters:
        raise PipelineInvalid.of(field, f"there is no parameter named {reference.name!r}", reference.name)
    if reference.kind == "item" and (spec.for_each is None or field.split(".")[2] == "for_each"):
        raise PipelineInvalid.of(field, "${item} is only known in the arguments of a task with for_each")


def _check_order(nodes: Sequence[Node]) -> None:
    waiting = [len(node.upstream) for node in nodes]
    downstream: list[list[int]] = [[] for _ in nodes]
    for node in nodes:
        for up in node.upstream:
            downstream[up].append(node.position)
    depth = [1] * len(nodes)
    ready = deque(position for position, count in enumerate(waiting) if count == 0)
    seen = 0
    while ready:
        position = ready.popleft()
        seen += 1
        for down in downstream[position]:
            depth[down] = max(depth[down], depth[position] + 1)
            waiting[down] -= 1
            if waiting[down] == 0:
                ready.append(down)
    if seen < len(nodes):
        raise _cycle(nodes, {position for position, count in enumerate(waiting) if count > 0})
    deepest = max(depth)
    if deepest > MAX_DEPTH:
        raise PipelineInvalid.of("tasks", f"form a chain of {deepest} tasks, longer than {MAX_DEPTH}", deepest)


def _cycle(nodes: Sequence[Node], stuck: set[int]) -> PipelineInvalid:
    """Walk upstream among the tasks that never become ready: the walk must meet itself."""
    walked: dict[int, None] = {}
    position = min(stuck)
    while position not in walked:
        walked[position] = None
        position = next(up for up in nodes[position].upstream if up in stuck)
    trail = list(walked)
    loop = trail[trail.index(position) :]
    names = [nodes[at].spec.name for at in reversed([*loop, position])]
    spelled = " -> ".join(names)
    return PipelineInvalid(
        f"tasks: the dependencies form a cycle: {spelled}",
        errors=[FieldError(f"tasks.{position}.depends_on", f"closes the cycle {spelled}", names)],
        hint="Remove one dependency of the cycle. A reference to a task's result is a dependency too.",
    )
