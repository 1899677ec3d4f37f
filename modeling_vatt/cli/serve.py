# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt serve`."""

from pathlib import Path
from typing import Annotated

import typer

from ..repositories import require_repository
from .common import Trust, explained, fail, finite, quiet, require_index, say


@explained("The page is no longer there; the index is as it was.")
def serve(
    index_dir: Annotated[
        Path, typer.Argument(help="Folder of the index or of the videos.", envvar="VATT_INDEX")
    ],
    host: Annotated[str, typer.Option(help="Name or address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let --host be more than this machine. No password!")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which others ask for the page, such as films.example. Repeatable."),
    ] = None,
    max_upload: Annotated[
        float, typer.Option(help="Largest sound or clip to search by, MB.", min=0.001, callback=finite)
    ] = 200,
    max_query: Annotated[int, typer.Option(help="Longest text query, characters.", min=1)] = 500,
    max_map: Annotated[int, typer.Option(help="Most moments on the map.", min=1)] = 2000,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    model: Annotated[str | None, typer.Option(help="The index's model, if it has moved.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust_remote_code: Trust = False,
) -> None:
    """Search an index in the browser: by words, by a sound, or by a clip.

    The page plays the moments it finds and shows a map of all of them. It is for this machine only, unless
    --allow-remote is given. Only files of the index are ever served. Ctrl+C ends it.

    Examples:

    vatt serve my_videos --open

    vatt serve my_videos --port 0 --max-upload 50

    vatt serve my_videos --host 0.0.0.0 --allow-remote     # everyone in the network may watch
    """
    require_index(index_dir)
    if model is not None:
        require_repository(model)
    quiet()
    try:
        from ..web import WebSettings, create_app
        from ..web.server import address_of, is_loopback, listen
        from ..web.server import serve as serve_page
    except ImportError as error:
        raise fail(f"{error}. The page needs more packages: pip install 'modeling_vatt[web]'.") from None
    from ..retrieval import VideoSearch

    try:
        remote = not is_loopback(host)
    except OSError as error:
        raise fail(f"{host}: {error.strerror}. Give a name or an address of this machine.") from None
    if remote and not allow_remote:
        raise fail(
            f"{host} can be reached from other machines, whose users could search and watch all videos of "
            "the index. If that is meant, add --allow-remote."
        )
    try:
        listening = listen(host, port)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise fail(f"{host}, port {port}: {reason}. Choose another --port or --host.") from None
    search = VideoSearch.open(index_dir, model, device, trust_remote_code)
    settings = WebSettings(
        allow_remote=remote,
        allowed_hosts=tuple(allow_host or []),
        max_upload_bytes=round(max_upload * 1024**2),
        max_query_characters=max_query,
        max_map_points=max_map,
    )
    address = address_of(listening)
    if remote:
        say(
            "warning: everyone who can reach this machine can search and watch these videos; there is no "
            "password and no encryption.",
            err=True,
        )
    say(f"{address} serves {len(search.index)} moments of {search.index.root or index_dir}. Ctrl+C ends it.")
    if open_browser:
        import webbrowser

        webbrowser.open(address)  # waits in the socket's queue until the server starts
    serve_page(create_app(search, settings), listening)
