"""Where an application begins: `Platform`, and `AsyncPlatform` for asynchronous code."""

from mlops_platform.sdk._async.platform import AsyncPlatform
from mlops_platform.sdk._sync.platform import Platform

__all__ = ["AsyncPlatform", "Platform"]
