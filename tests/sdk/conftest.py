"""What the tests of the client share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_platform.sdk.settings import ClientSettings, Service


@pytest.fixture
def settings_for(tmp_path: Path) -> Callable[..., ClientSettings]:
    """Client settings with one address for all services and a home of its own."""

    def make(url: str, **changes: Any) -> ClientSettings:
        fields: dict[str, Any] = {
            "urls": dict.fromkeys(Service, url),
            "credential": "mlops_user_test",
            "home": tmp_path,
            "timeout_seconds": 5.0,
        }
        return ClientSettings(**(fields | changes))

    return make
