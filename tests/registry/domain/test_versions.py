import pytest

from mlops_platform.contracts.registry import VersionStatus
from mlops_platform.registry.domain.versions import TRANSITIONS, check_transition, next_version
from mlops_platform.registry.errors import ModelVersionImmutable


def test_every_status_has_its_row_in_the_table():
    assert set(TRANSITIONS) == set(VersionStatus)


@pytest.mark.parametrize("current", VersionStatus)
@pytest.mark.parametrize("wanted", VersionStatus)
def test_the_one_move_is_from_pending_to_ready(current, wanted):
    if (current, wanted) == (VersionStatus.PENDING, VersionStatus.READY):
        check_transition("fraud", "1", current, wanted)
    else:
        with pytest.raises(ModelVersionImmutable, match="cannot become"):
            check_transition("fraud", "1", current, wanted)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "1"),
        (["9", "10"], "11"),
        (["v3", "1.5"], "1"),
        (["٣"], "1"),
        (["007"], "8"),
        (["9" * 127], "1" + "0" * 127),
        (["9" * 128, "3"], "4"),
    ],
)
def test_the_next_version_follows_the_greatest_whole_number(taken, expected):
    assert next_version(taken) == expected
