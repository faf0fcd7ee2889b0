"""The reader of marked blocks is not fooled: a mark without a block would be a snippet that nobody runs."""

import pytest

from tests.factories.fences import Snippet, differences, read

RUN = "<!-- run -->\n```bash\necho 1\n```\n"


def test_marked_blocks_are_found_and_others_are_not():
    text = f"```bash\nrm -rf /\n```\n\n{RUN}\n<!-- expected -->\n```json\n1\n```\n"
    assert list(read(text)) == [Snippet(5, "echo 1\n", "1\n")]


@pytest.mark.parametrize(
    "text",
    ["<!-- run -->\n", "<!-- run -->\n\ntext\n", "<!-- run -->\n```json\n1\n```\n", "<!-- expected -->\n```json\n1\n```\n"],
)
def test_a_mark_without_its_block_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  # each says another sentence
        list(read(text))


def test_an_answer_may_hold_more_than_was_expected():
    assert list(differences({"a": [{"b": 1}], "id": "..."}, {"a": [{"b": 1, "c": 2}], "id": "x", "d": 3})) == []


@pytest.mark.parametrize("actual", [{}, {"a": 2}, {"a": True}, {"a": [1]}, []])
def test_an_answer_that_differs_is_told(actual):
    assert len(list(differences({"a": 1}, actual))) == 1
