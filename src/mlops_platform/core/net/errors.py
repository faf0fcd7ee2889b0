"""What can go wrong when the platform calls an address that a user named."""

from mlops_platform.core.errors import InvalidInput, PlatformError


class UnsafeAddress(InvalidInput):
    """The address is not one that the platform may call. Which address a name stands for is not told."""

    code = "unsafe_address"
    title = "The address may not be called"


class EndpointUnreachable(PlatformError):
    """The address may be called and does not answer as HTTP in time."""

    status = 502
    code = "endpoint_unreachable"
    title = "The address does not answer"
