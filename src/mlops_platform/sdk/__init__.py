"""The client library: contracts and an HTTP client, nothing else."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_platform.sdk.platform import AsyncPlatform, Platform

__all__ = ["AsyncPlatform", "Platform"]


# The one package that exports: `from mlops_platform.sdk import Platform` is what a newcomer types, and lazily it costs
# the modules that need only `sdk.settings` or `sdk.errors` nothing.
def __getattr__(name: str) -> Any:
    if name == "Platform":
        from mlops_platform.sdk._sync.platform import Platform

        return Platform
    if name == "AsyncPlatform":
        from mlops_platform.sdk._async.platform import AsyncPlatform

        return AsyncPlatform
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
