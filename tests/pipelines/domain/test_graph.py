"""A document either becomes a graph that can run, or is refused with the field that is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_platform.contracts.pipelines import PipelineCreate
from mlops_platform.pipelines.domain import graph
from mlops_platform.pipelines.errors import PipelineInvalid


def document(tasks: list, **parameters) -> PipelineCreate:
    filled = [{"entry_point": "pkg.module:function"} | task for task in tasks]
    return PipelineCreate.model_validate({"name": "p", "parameters": parameters, "tasks": filled})


def refusal(tasks: list, **parameters) -> PipelineInvalid:
    with pytest.raises(PipelineInvalid) as refused:
        graph.build_graph(document(tasks, **parameters))
    return refused.value


class TestDependencies:
    def test_a_reference_to_a_result_is_a_dependency(self):
        built = graph.build_graph(document([{"name": "b", "arguments": {"x": ["${tasks.a.result.k}"]}}, {"name": "a"}]))
        assert built.edges == [(1, 0)]

    def test_the_same_dependency_twice_counts_once(self):
        tasks = [{"name": "a"}, {"name": "b", "depends_on": ["a", "a"], "arguments": {"x": "${tasks.a.result}"}}]
        assert graph.build_graph(document(tasks)).edges == [(0, 1)]

    def test_an_unknown_dependency_names_the_field(self):
        assert refusal([{"name": "a", "depends_on": ["ghost"]}]).errors[0].field == "tasks.0.depends_on.0"

    def test_an_unknown_task_in_a_reference_names_the_argument(self):
        assert refusal([{"name": "a", "arguments": {"x": {"y": "${tasks.ghost.result}"}}}]).errors[0].field == (
            "tasks.0.arguments.x.y"
        )

    def test_a_name_taken_twice_is_refused(self):
        assert refusal([{"name": "a"}, {"name": "a"}]).errors[0].field == "tasks.1.name"

    def test_a_task_that_waits_for_itself_is_refused(self):
        assert "depends on itself" in refusal([{"name": "a", "depends_on": ["a"]}]).detail

    def test_a_cycle_is_named_in_full_and_in_the_order_of_the_arrows(self):
        tasks = [
            {"name": "start"},
            {"name": "a", "depends_on": ["c", "start"]},
            {"name": "b", "depends_on": ["a"]},
            {"name": "c", "depends_on": ["b"]},
            {"name": "after", "depends_on": ["c"]},
        ]
        assert "a -> b -> c -> a" in refusal(tasks).detail

    def test_a_chain_longer_than_the_limit_is_refused(self):
        tasks = [{"name": "t0"}] + [{"name": f"t{n}", "depends_on": [f"t{n - 1}"]} for n in range(1, 1001)]
        assert "longer than 1000" in refusal(tasks).detail

    def test_ten_thousand_tasks_are_a_graph(self):
        tasks = [{"name": "root"}] + [{"name": f"t{n}", "depends_on": ["root"]} for n in range(9_999)]
        assert len(graph.build_graph(document(tasks)).edges) == 9_999


class TestReferences:
    @pytest.mark.parametrize(
        "text", ["${nonsense}", "${tasks.a}", "${params.}", "${", "x ${params.a b}", "${__import__('os')}"]
    )
    def test_what_is_not_a_reference_is_refused_with_its_field(self, text):
        assert refusal([{"name": "a", "arguments": {"x": text}}]).errors[0].field == "tasks.0.arguments.x"

    def test_an_unknown_parameter_is_refused(self):
        assert "no parameter named 'lr'" in refusal([{"name": "a", "arguments": {"x": "${params.lr}"}}]).detail

    def test_an_item_outside_a_fan_out_is_refused(self):
        assert "${item}" in refusal([{"name": "a", "arguments": {"x": "${item}"}}]).detail

    def test_an_escaped_brace_is_text(self):
        graph.build_graph(document([{"name": "a", "arguments": {"x": "$${HOME}"}}]))

    @pytest.mark.parametrize("value", [{"a": 1}, "words", "${params.x} and more", 7, True])
    def test_for_each_must_be_a_list_or_a_reference(self, value):
        refused = refusal([{"name": "a", "for_each": value}], x={"type": "array"})
        assert refused.errors[0].field == "tasks.0.for_each"


@st.composite
def graphs(draw) -> list[dict]:
    count = draw(st.integers(1, 25))
    order = draw(st.permutations(range(count)))
    edges = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=60))
    tasks = [{"name": f"t{n}", "depends_on": []} for n in range(count)]
    for left, right in edges:
        if left != right:
            low, high = sorted((left, right))
            tasks[order[high]]["depends_on"].append(f"t{order[low]}")
    return tasks


class TestReadiness:
    @given(graphs())
    def test_counting_down_pending_runs_every_task_after_all_that_it_waits_for(self, tasks):
        built = graph.build_graph(document(tasks))
        pending = {node.position: len(node.upstream) for node in built.nodes}
        ready = [position for position, count in pending.items() if count == 0]
        done: list[int] = []
        while ready:
            position = ready.pop()
            assert set(built.nodes[position].upstream) <= set(done)
            done.append(position)
            for up, down in built.edges:
                if up == position:
                    pending[down] -= 1
                    if pending[down] == 0:
                        ready.append(down)
        assert sorted(done) == list(range(len(tasks)))

    @given(graphs(), st.data())
    def test_any_back_edge_is_found_as_a_cycle(self, tasks, data):
        built = graph.build_graph(document(tasks))
        if not built.edges:
            return
        up, down = data.draw(st.sampled_from(built.edges))
        tasks[up]["depends_on"].append(tasks[down]["name"])
        assert " -> " in refusal(tasks).detail
