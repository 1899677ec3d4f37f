# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The routes of the web page."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import anyio
import anyio.to_thread
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..processors import MediaError
from ..retrieval import IndexDamaged, IndexMismatch, VideoSearch
from ..retrieval import Query as SearchQuery
from ..retrieval.moments import Strength
from ..retrieval.query import parse_weight
from ..retrieval.searchable import IndexedMoment
from ..retrieval.store import Space
from .copies import MEDIA_TYPE as COPY_TYPE
from .copies import Copies
from .desktop import show_in_folder
from .guard import Guard
from .library import MEDIA_TYPES, Library
from .media import MediaFile, tagged
from .service import Layout, SearchService
from .settings import WebSettings
from .uploads import Uploads, shown_name


STATIC = Path(__file__).with_name("static")
_MAX_PATH = 4096
_DECODERS = 2  # pictures that are made at the same time
_PICTURES_KEPT = 86_400  # seconds, by browsers
_WAITING_COPIES = 4
_MOST_AVOIDED = 20

FilePath = Annotated[str, Query(max_length=_MAX_PATH)]
Count = Annotated[int, Query(ge=1)]
File = Literal["audio", "video", "like"]
Seconds = Annotated[float, Query(ge=0, le=1e7, allow_inf_nan=False)]


class _Options(BaseModel):
    """Those of [`VideoSearch.find`]."""

    folder: str | None = Field(None, max_length=_MAX_PATH)
    min_score: float | None = Field(None, ge=-1, le=1, allow_inf_nan=False)
    top_k: int = Field(24, ge=1)
    per_file: int | None = Field(None, ge=1)
    at_least: Strength = "weak"
    merge: bool = True
    exact: bool | None = None


def create_app(search: VideoSearch, settings: WebSettings | None = None) -> ASGIApp:
    """The web page as an ASGI application, for `vatt serve` or another server."""
    settings = settings or WebSettings()
    service = SearchService(search, settings)
    copies = Copies(settings.copy_seconds, settings.max_copies_bytes, settings.copy_limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()
        copies.close()

    # FastAPI's interactive documentation loads files from another server.
    app = FastAPI(
        title="vatt",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_error_answers(app)
    _add_page(app, service)
    _add_search(app, service, settings)
    _add_media(app, service.library)
    _add_copies(app, service.library, copies)
    _add_places(app, service.library, settings)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return Guard(app, settings)  # around everything, error answers too


def _getter(app: FastAPI) -> Any:
    return partial(app.api_route, methods=["GET", "HEAD"])


def _refuse(library: Library, path: str) -> NoReturn:
    if library.is_gone(path):
        name = path.rpartition("/")[2]
        raise HTTPException(404, f"{name} is gone: moved or deleted since it was indexed.")
    raise HTTPException(404, "No such file in the index.")


def _located(library: Library, path: str) -> Path:
    file = library.locate(path)
    if file is None:
        _refuse(library, path)
    return file


def _add_page(app: FastAPI, service: SearchService) -> None:
    """The page itself, and what it shows first."""
    get, library = _getter(app), service.library
    home = (STATIC / "index.html").read_bytes()
    home_version = hashlib.sha256(home).hexdigest()[:16]

    @get("/")
    def page(request: Request) -> Response:
        return tagged(request.headers, home, "text/html; charset=utf-8", home_version, "no-cache")

    @get("/api/info")
    async def info() -> dict[str, Any]:
        return await service.info()

    @get("/api/state")
    async def state() -> dict[str, Any]:
        return {"generation": await asyncio.to_thread(library.generation)}

    @get("/api/sample")
    async def sample() -> dict[str, Any]:
        return await service.sample(12)

    @get("/api/map")
    async def embedding_map(space: Space = "vt", layout: Layout = "tsne") -> dict[str, Any]:
        return await service.map(space, layout)


def _add_search(app: FastAPI, service: SearchService, settings: WebSettings) -> None:
    """Queries by words, moments of the index and uploaded files."""
    get, library, uploads = _getter(app), service.library, Uploads(settings)

    async def options(wanted: Annotated[_Options, Query()]) -> dict[str, Any]:
        if wanted.top_k > settings.max_results:
            raise HTTPException(400, f"At most {settings.max_results} results, not {wanted.top_k}.")
        if wanted.folder and not await asyncio.to_thread(library.has_folder, wanted.folder):
            raise HTTPException(400, "The index has no such folder.")
        return wanted.model_dump() | {"folder": wanted.folder or None, "distinct": True}

    Options = Annotated[dict[str, Any], Depends(options)]

    async def asked(
        q: str | None = None,
        like: FilePath | None = None,
        t: Seconds | None = None,
        avoid: Annotated[list[str] | None, Query(alias="not", max_length=_MOST_AVOIDED)] = None,
        weight: Annotated[list[str] | None, Query(max_length=_MOST_AVOIDED)] = None,
    ) -> dict[str, Any]:
        parts: dict[str, Any] = {"avoid": tuple(words(text) for text in avoid or ())}
        if q is not None:
            parts["text"] = words(q)
        if like is not None:
            parts["like"] = (like, t)
        try:
            parts["weights"] = dict(map(parse_weight, weight or []))
        except ValueError as error:
            raise HTTPException(400, f"weight: {error}") from None
        return parts

    Asked = Annotated[dict[str, Any], Depends(asked)]

    def words(text: str) -> str:
        query = " ".join(text.split())
        if not query:
            raise HTTPException(400, "The query is empty. Type what you look for.")
        if len(query) > settings.max_query_characters:
            raise HTTPException(
                400,
                f"The query has {len(query)} characters; at most {settings.max_query_characters} are allowed."
                " Say it in fewer words.",
            )
        return query

    @contextmanager
    def refusing(name: str = "") -> Iterator[None]:
        try:
            yield
        except (IndexDamaged, IndexMismatch):
            raise
        except MediaError as error:
            # Without the temporary file, and a remedy for the owner of the server.
            raise HTTPException(
                422, f"{shown_name(name)}: {error.reason or 'cannot be read'}. Try another file."
            ) from None
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    async def find(
        parts: dict[str, Any], moment: IndexedMoment | None, chosen: dict[str, Any], name: str
    ) -> dict[str, Any]:
        began = time.perf_counter()
        with refusing(name):
            answer = await service.find(SearchQuery(**parts), moment, chosen)
        return answer | {"seconds": time.perf_counter() - began}

    async def indexed(parts: dict[str, Any]) -> IndexedMoment | None:
        """The moment of `like` in the index; None without, or if its file is to be read, which `parts` then
        names."""
        if "like" not in parts:
            return None
        path, seconds = parts["like"]
        with refusing():
            found = await service.moment(path, seconds)
        if found is None:
            raise HTTPException(404, "No such file in the index.")
        if isinstance(found, Path):
            parts["like"] = (found, seconds)
            return None
        return found

    @get("/api/search")
    async def search_index(chosen: Options, parts: Asked) -> dict[str, Any]:
        moment = await indexed(parts)
        return await find(parts, moment, chosen, str(parts.get("like", ("",))[0]))

    @app.post("/api/search")
    async def search_file(
        request: Request,
        chosen: Options,
        parts: Asked,
        by: Annotated[list[File], Query(min_length=1, max_length=3)],
        size: Annotated[list[Count] | None, Query(max_length=2)] = None,
        name: Annotated[str, Query(max_length=_MAX_PATH)] = "",
        t: Seconds | None = None,
    ) -> dict[str, Any]:
        if len(set(by)) != len(by) or len(size or []) != len(by) - 1 or ("like" in by and "like" in parts):
            raise HTTPException(400, "Name each part once, and the `size` of each file but the last.")
        moment = await indexed(parts)
        async with uploads.receive(request, size or []) as paths:
            files: dict[str, Any] = dict(zip(by, paths, strict=True))
            if "like" in files:
                files["like"] = (files["like"], t)
            return await find(parts | files, moment, chosen, name)


def _add_media(app: FastAPI, library: Library) -> None:
    """Files as they are, and pictures of them."""
    get = _getter(app)
    # A page of results requests dozens of pictures at once, and playing files must not wait.
    decoders = anyio.CapacityLimiter(_DECODERS)

    @get("/media/{path:path}")
    def play(path: str) -> Response:
        file = _located(library, path)
        media_type = MEDIA_TYPES.get(Path(path).suffix.lower(), "application/octet-stream")
        # With ranges, by which browsers jump to a moment.
        return MediaFile(file, media_type)

    @get("/thumbnail/{path:path}")
    async def picture(request: Request, path: str, t: Seconds = 0.0, v: str = "") -> Response:
        try:
            found = await anyio.to_thread.run_sync(library.thumbnail, path, t, limiter=decoders)
        except MediaError:
            raise HTTPException(404, "No picture there.") from None
        if found is None:
            _refuse(library, path)
        content, version = found
        # Without a version the address may show another file later.
        cache = f"private, max-age={_PICTURES_KEPT}" if v == version else "private, no-cache"
        return tagged(request.headers, content, "image/jpeg", f"{version}-{t:g}", cache)


def _add_copies(app: FastAPI, library: Library, copies: Copies) -> None:
    """Copies of videos that a browser cannot show."""
    get, copying = _getter(app), anyio.CapacityLimiter(1)

    @app.post("/api/copy")
    async def make_copy(path: FilePath, t: Seconds) -> dict[str, Any]:
        file, version = _located(library, path), library.version(path)
        if version is None:
            _refuse(library, path)
        if copying.statistics().tasks_waiting >= _WAITING_COPIES:
            raise HTTPException(503, "Too many copies are being made. Try again.", {"Retry-After": "30"})
        try:
            name, start = await anyio.to_thread.run_sync(copies.make, file, version, t, limiter=copying)
        except MediaError as error:
            reason = error.reason or "it cannot be read"
            raise HTTPException(422, f"No copy of {file.name} can be made: {reason}.") from None
        return {"url": f"/copy/{name}", "start": start}

    @get("/copy/{name}")
    def play_copy(name: str) -> Response:
        file = copies.locate(name)
        if file is None:
            raise HTTPException(404, "No such copy, or no longer. Make it again.")
        return MediaFile(file, COPY_TYPE)


def _add_places(app: FastAPI, library: Library, settings: WebSettings) -> None:
    """Places of files, for people at this machine."""
    get = _getter(app)

    @get("/api/place")
    def place(path: FilePath) -> dict[str, str]:
        file = _located(library, path)
        # Not for others.
        return {"place": str(file) if settings.local else path}

    @app.post("/api/open")
    def open_folder(path: FilePath) -> dict[str, bool]:
        if not settings.local:
            raise HTTPException(403, "Folders are opened for people at this machine only.")
        if not show_in_folder(_located(library, path)):
            raise HTTPException(404, "This machine has no file manager.")
        return {"opened": True}


def _add_error_answers(app: FastAPI) -> None:
    """Errors are sentences in JSON; details stay in the log of the server."""

    @app.exception_handler(StarletteHTTPException)
    def refused(_: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def misused(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        names = [place for place in first["loc"] if isinstance(place, str)]  # the others count in lists
        return JSONResponse({"error": f"{names[-1]}: {first['msg']}."}, 400)

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed at this; its log says why."}, 500)
