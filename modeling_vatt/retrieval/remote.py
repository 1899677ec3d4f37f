# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A search by a `vatt serve` that is running: nothing is loaded here, so it takes milliseconds."""

import json
import urllib.error
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .moments import Moment, find_moments
from .query import Query


_PATIENCE = 120.0  # seconds; a sound or clip has to be decoded
_MORE = 4  # times as many moments as wanted are asked for, as some files may have too many


def ask_server(
    address: str,
    query: Query,
    top_k: int = 10,
    folder: str | None = None,
    min_score: float | None = None,
    per_file: int | None = None,
) -> tuple[list[Moment], list[str]]:
    """Moments that a server finds, and the words that its model does not know.

    Args:
        address: of the page, such as `http://127.0.0.1:8000`.
        query: words, or a sound, or a clip, whose file is sent.
        top_k, folder, min_score, per_file: see [`VattIndex.search`].

    Raises:
        ConnectionError: no server answers there.
        ValueError: an address that is none, a query of several parts, or one that the server refuses.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address!r}: the address of a server must be one that begins with http:// or https://."
        )
    sources = {name: getattr(query, name) for name in ("text", "audio", "video")}
    given = {name: source for name, source in sources.items() if source is not None}
    if len(given) != 1 or query.like is not None or query.avoid:
        raise ValueError(
            f"{address}: a server takes one of words, a sound or a clip. Ask the index for more."
        )
    ((name, source),) = given.items()
    options: dict[str, Any] = {"folder": folder, "min_score": min_score}
    options |= {"q": source} if name == "text" else {"by": name, "name": Path(source).name}
    content = None if name == "text" else Path(source).read_bytes()
    try:
        answer = _answer(address, {**options, "top_k": _MORE * top_k}, content)
    except ValueError:  # more than it allows
        answer = _answer(address, {**options, "top_k": top_k}, content)
    known = {entry.name for entry in fields(Moment)}
    found = [
        Moment(**{key: value for key, value in row.items() if key in known}) for row in answer["moments"]
    ]
    chosen = find_moments(lambda count: found[:count], top_k, merge=False, per_file=per_file)
    return chosen, answer.get("unknown", [])


def _answer(address: str, options: dict[str, Any], content: bytes | None) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    url = f"{address.rstrip('/')}/api/search?{urlencode(given)}"
    headers = {} if content is None else {"Content-Type": "application/octet-stream"}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(url, content, headers), timeout=_PATIENCE) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        try:
            reason = str(json.load(error)["error"])
        except (KeyError, TypeError, ValueError):
            reason = f"answers with {error.code}. Check that it is `vatt serve`."
        raise ValueError(f"{address}: {reason}") from None
    except (OSError, ValueError) as error:  # of the network, or no JSON
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ConnectionError(
            f"{address}: no `vatt serve` answers there ({cause}). Start one, or leave --server out."
        ) from None
