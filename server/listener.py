"""The socket that the server listens on, bound before anything that takes long is loaded."""

from __future__ import annotations

import errno
import os
import socket

from engines.errors import EngineryError


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, which refuses connections until the server is ready.

    Raises:
        EngineryError: The port is in use, not allowed, or the host is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise EngineryError(f"the host {host!r} is not an address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise EngineryError(_why_not(error, host, port)) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Where clients of the API point their `base_url`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: choose another with --port"
    if error.errno == errno.EACCES:
        return f"port {port} of {host} needs more rights: choose one above 1023 with --port"
    return f"{host}:{port} cannot be listened on: {error.strerror}"
