"""Sockets: bound before anything else starts, so that a taken port is one clear line and nothing half started."""

import errno
import socket
from collections.abc import Sequence

import psutil

from mlops_platform.core.errors import ConfigurationError
from mlops_platform.core.settings import Settings
from mlops_platform.server.catalog import CATALOG, Entry

_BACKLOG = 2048


def bind_all(settings: Settings, entries: Sequence[Entry] = CATALOG) -> list[tuple[Entry, socket.socket]]:
    """A listening socket for each service; none stays bound when one cannot be."""
    bound: list[tuple[Entry, socket.socket]] = []
    try:
        for entry in entries:
            sock = bind(settings.host, entry.port(settings), setting=entry.port_setting)
            bound.append((entry, sock))
    except ConfigurationError:
        for _, sock in bound:
            sock.close()
        raise
    return bound


def bind(host: str, port: int, *, setting: str) -> socket.socket:
    """One listening socket, or a `ConfigurationError` that names the port's owner and the way round."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: small answers must not wait for a delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(_why(error, host, port, setting)) from error
    sock.settimeout(0)
    return sock


def port_owner(port: int) -> str | None:
    """Which process listens on a port, as far as this user may see."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        address = connection.laddr
        is_it = connection.status == psutil.CONN_LISTEN and address and address.port == port
        if is_it and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.Error:
                return f"process {connection.pid}"
    return None


def _why(error: OSError, host: str, port: int, setting: str) -> str:
    variable = f"MLOPS_{setting.upper()}"
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port) or "another process"
        return f"Port {port} is taken by {owner}. Stop it, or choose another port: {variable}={port + 10000} mlops up"
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has. Choose one above 1023 with {variable}."
    return f"Cannot listen on {host}:{port}: {error.strerror}. The address is MLOPS_HOST, the port {variable}."
