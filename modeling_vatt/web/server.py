# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A server for the page on this machine."""

import contextlib
import ipaddress
import socket

import uvicorn
from starlette.types import ASGIApp


_CONNECTIONS = 200  # at the same time
_PATIENCE = 2  # seconds for open connections, such as playing videos, at the end


def is_loopback(host: str) -> bool:
    """Whether a name or address is only reached from this machine; OSError for an unknown name."""
    found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at a name or address of this machine; port 0 takes a free one. OSError if the
    port is taken, or the address is not of this machine."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address, family=family, backlog=128)


def address_of(listening: socket.socket) -> str:
    """`http://...` of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until Ctrl+C or the signal to terminate."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        # Forwarding headers are not trusted.
        proxy_headers=False,
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_PATIENCE,
    )
    with contextlib.suppress(KeyboardInterrupt), listening:
        uvicorn.Server(config).run(sockets=[listening])
