import pytest

from tests.conftest import Caller, Platform


@pytest.fixture
async def ada(platform: Platform) -> Caller:
    """An admin of a fresh project."""
    return await platform.caller("model-registry")
