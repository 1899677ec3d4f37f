# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks of every request, and security headers of every answer."""

import ipaddress
import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import WebSettings


_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:\d{1,5})?")

# Everything comes from this server; nothing is inline, so a file name cannot become a script.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def host_name(header: str) -> str | None:
    """The name or address in a Host header, without port and brackets; None if it is malformed."""
    match = _HOST.fullmatch(header)
    return (match["ipv6"] or match["name"]).lower() if match else None


class Guard:
    """Refuses other host names and origins, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self.app = app
        self.allow_remote = settings.allow_remote
        self.names = _LOOPBACK | {name.lower() for name in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
                return
            raise RuntimeError(f"no {scope['type']} connections here")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        app: Any = self.app if refusal is None else refusal
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._known(name):
            message = "The server does not go by this name. Use its address, or start it with --allow-host."
            return JSONResponse({"error": message}, 421)
        # Browsers send the origin of a request, programs such as curl do not.
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        origin = headers.get("origin")
        foreign = foreign or (origin is not None and origin.partition("://")[2] != hosts[0])
        # Links to the page may come from elsewhere.
        if foreign and not (scope["method"] == "GET" and scope["path"] == "/"):
            return JSONResponse({"error": "Requests from other sites are refused."}, 403)
        return None

    def _known(self, name: str) -> bool:
        if name in self.names:
            return True
        if not self.allow_remote:
            return False
        try:  # an address cannot be rebound
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
