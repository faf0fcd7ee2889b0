"""One platform for all tests that leave it running."""

from collections.abc import Iterator

import pytest

from tests.factories.running import RunningPlatform, platform_home, running


@pytest.fixture(scope="session")
def shared() -> Iterator[RunningPlatform]:
    """A platform that was started in an empty home, as `mlops up` does it for a newcomer."""
    with platform_home() as home, running(home) as platform:
        yield platform
