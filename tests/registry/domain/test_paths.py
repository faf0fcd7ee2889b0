import posixpath
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_platform.core.errors import InvalidInput
from mlops_platform.registry.domain.paths import MAX_PATH_BYTES, ancestors, check_path, file_name

anything = st.text(st.characters() | st.sampled_from("./\\%:\0~"), max_size=40)


@settings(deadline=None)
@given(anything)
def test_whatever_is_accepted_stays_in_its_folder_and_has_one_spelling(path):
    try:
        assert check_path(path) == path
    except InvalidInput as refused:
        assert refused.errors[0].field == "path"  # noqa: PT017  # which of both happens is the input's choice
        return
    inside = posixpath.normpath(posixpath.join("/folder", path))
    assert inside == f"/folder/{path}"
    assert unicodedata.normalize("NFC", path) == path
    assert not any(unicodedata.category(character) == "Cc" for character in path)
    assert len(path.encode()) <= MAX_PATH_BYTES


@pytest.mark.parametrize("path", ["é" * 512, "a" * 1024])
def test_the_limit_is_in_bytes(path):
    assert check_path(path) == path
    with pytest.raises(InvalidInput, match="1024 bytes"):
        check_path(path + "b")


def test_a_lone_surrogate_is_refused():
    with pytest.raises(InvalidInput):
        check_path("a\ud800")


def test_folders_and_name_of_a_path():
    assert list(ancestors("a/b/c")) == ["a", "a/b"]
    assert list(ancestors("a")) == []
    assert file_name("a/b/c") == "c"
