"""Secrets that the embedded platform makes for itself: once, at random, readable by their owner alone."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from mlops_platform.core.auth.keys import make_key
from mlops_platform.core.crypto.secrets_file import ensure_secret_file
from mlops_platform.core.identity import PrincipalKind
from mlops_platform.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Places:
    """Where the secrets of a home lie."""

    home: Path

    @property
    def first_key(self) -> Path:
        """The first admin's API key, where the SDK and the CLI look for it."""
        return self.home / "secrets" / "api_key"

    @property
    def root_secret(self) -> Path:
        """What `API_SECRET_KEY` is when nobody gives one."""
        return self.home / "secrets" / "api_secret_key"

    @property
    def storage_key(self) -> Path:
        """What `MLOPS_STORAGE_KEY` is when nobody gives one."""
        return self.home / "secrets" / "storage_key"


def with_generated_secrets(settings: Settings) -> Settings:
    """The settings, with what is missing made and kept under `MLOPS_HOME`."""
    places = Places(settings.home)
    missing: dict[str, SecretStr] = {}
    if settings.api_secret_key is None:
        missing["api_secret_key"] = SecretStr(ensure_secret_file(places.root_secret, lambda: secrets.token_urlsafe(48)))
    if settings.storage_key is None:
        missing["storage_key"] = SecretStr(ensure_secret_file(places.storage_key, lambda: secrets.token_hex(32)))
    return settings.model_copy(update=missing)


def first_key(settings: Settings) -> str:
    """The first admin's API key, made when absent."""
    return ensure_secret_file(Places(settings.home).first_key, lambda: make_key(PrincipalKind.USER))
