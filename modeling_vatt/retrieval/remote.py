# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A search by a running `vatt serve`, without loading a model here."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..files import hash_file
from .moments import Moment
from .query import Query


_PATIENCE = 120.0  # seconds; a sound or clip has to be decoded
HASH = "sha256:"  # before the hash of a file in place of its name


def ask_server(address: str, query: Query, top_k: int = 10, **options: Any) -> tuple[list[Moment], list[str]]:
    """Moments that a server finds, and the words that its model ignores.

    Args:
        address: of the page, such as `http://127.0.0.1:8000`.
        query: its files are sent; that of `like` only if the server's index has no file of its content.
        top_k: number of results.
        options: `folder`, `min_score`, `per_file`, `merge` and `exact`, see [`VattIndex.search`]; `at_least`,
            see [`VideoSearch.find`].

    Raises:
        ConnectionError: no server answers there.
        ValueError: an invalid address, or a query that the server refuses.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(
            f"{address!r}: the address of a server must be one that begins with http:// or https://."
        )
    given: list[tuple[str, Any]] = [("top_k", top_k), *options.items(), ("q", query.text)]
    given += [("not", words) for words in query.avoid]
    given += [("weight", f"{part}={weight}") for part, weight in query.weights.items()]
    sources: dict[str, Any] = {"audio": query.audio, "video": query.video}
    files = {part: Path(source) for part, source in sources.items() if source is not None}
    answer = None
    if query.like is not None:
        file, seconds = query.like
        given.append(("t", seconds))
        if Path(file).is_file():
            try:
                answer = _answer(address, [*given, ("like", HASH + hash_file(file))], files)
            except _NotThere:
                files["like"] = Path(file)
        else:
            given.append(("like", str(file)))
    answer = answer or _answer(address, given, files)
    known = {entry.name for entry in fields(Moment)}
    try:
        rows = [{key: value for key, value in row.items() if key in known} for row in answer["moments"]]
        return [Moment(**row) for row in rows], answer.get("unknown", [])
    except (AttributeError, KeyError, TypeError) as error:
        raise ConnectionError(
            f"{address}: answers, but not as `vatt serve` does ({error!r}). Check the address."
        ) from None


class _NotThere(ValueError):
    """The index of the server holds no such file."""


def _answer(address: str, options: list[tuple[str, Any]], files: Mapping[str, Path]) -> dict[str, Any]:
    contents = [file.read_bytes() for file in files.values()]
    given = [pair for pair in options if pair[1] is not None] + [("by", part) for part in files]
    given += [("size", len(content)) for content in contents[:-1]]
    given += [("name", " and ".join(file.name for file in files.values()))] if files else []
    url = f"{address.rstrip('/')}/api/search?{urlencode(given)}"
    content = b"".join(contents) if files else None
    headers = {"Content-Type": "application/octet-stream"} if files else {}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(urllib.request.Request(url, content, headers), timeout=_PATIENCE) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        try:
            reason = str(json.load(error)["error"])
        except (KeyError, TypeError, ValueError):
            reason = f"answers with {error.code}. Check that it is `vatt serve`."
        kind = _NotThere if error.code == 404 else ValueError
        raise kind(f"{address}: {reason}") from None
    except (OSError, ValueError) as error:  # of the network, or no JSON
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ConnectionError(
            f"{address}: no `vatt serve` answers there ({cause}). Start one, or leave --server out."
        ) from None
