# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt search`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..repositories import require_repository
from .common import (
    IndexDir,
    Trust,
    check_folder,
    explained,
    finite,
    nothing_found,
    quiet,
    require_index,
    say,
    say_json,
    say_moment,
    say_unknown,
)


if TYPE_CHECKING:
    from ..retrieval import Moment, Query, VattIndex


# Those of `modeling_vatt.retrieval.STRENGTHS`, which would have to be loaded for `--help`.
Strength = StrEnum("Strength", ["strong", "likely", "weak"])


@explained("Nothing was changed.")
def search(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Look for what sounds like this file.", exists=True, dir_okay=False)
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            help="Look for what looks like this file, a clip or a picture.", exists=True, dir_okay=False
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="FILE@SECONDS",
            help="Look for what looks like this moment, of the index or not. A result can be given as it is "
            "shown, FILE@0:03.2-0:06.4.",
        ),
    ] = None,
    avoid: Annotated[
        list[str] | None, typer.Option("--not", help="Words for what is not looked for. Repeatable.")
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART=NUMBER", help="Weight of text, audio, video, like or avoid (--not). Repeatable."
        ),
    ] = None,
    index_dir: IndexDir = Path("."),
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Number of results.", min=1)] = 10,
    folder: Annotated[str | None, typer.Option(help="Only below this subfolder of the videos.")] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out what fits less (-1 to 1).", min=-1, max=1, callback=finite)
    ] = None,
    at_least: Annotated[
        Strength, typer.Option(help="Leave out what fits less than this.", show_default=False)
    ] = Strength.weak,
    per_file: Annotated[int, typer.Option(help="At most so many moments of a file.", min=1)] = 3,
    everything: Annotated[bool, typer.Option("--all", help="All moments of each file.")] = False,
    merge: Annotated[bool, typer.Option(help="Join neighbouring windows that fit about equally.")] = True,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--fast", help="Compare all windows; default up to 100,000.", show_default=False
        ),
    ] = None,
    thumbnails: Annotated[Path | None, typer.Option(help="Folder for pictures of the results.")] = None,
    export: Annotated[
        list[Path] | None, typer.Option(help="Write the results to .csv, .json or .html. Repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The index's model, if it has moved.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust_remote_code: Trust = False,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ask the `vatt serve` at this address, such as http://127.0.0.1:8000, instead of an index.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find moments of videos by words, by a sound, by a clip or picture, or by all of these together.

    Words are compared with videos in one space, sounds and clips in another. Of a sound or clip that is
    longer than the model's window, the middle is used. The second column is the score. The third says how
    many random pairs of moments fit as well: strong, at most 1 in 100; likely, at most 1 in 20; weak, more.
    Files of the same content are one result. Exit code 3: nothing found in the folder, or above the wanted
    score.

    Examples:

    vatt search "a dog barks" --index my_videos

    vatt search --audio bark.wav --index my_videos --top-k 3 --min-score 0.2

    vatt search --video clip.mp4 --folder holidays/2024 --export found.html --json

    vatt search "a dog" --audio bark.wav --weight audio=0.5 --not "a cat" --index my_videos

    vatt search --like holidays/beach.mp4@1:23 --index my_videos

    vatt search "a dog barks" --server http://127.0.0.1:8000
    """
    for file in export or []:
        if file.suffix not in (".csv", ".json", ".html"):
            raise typer.BadParameter(
                f"{file}: choose the ending .csv, .json or .html.", param_hint="--export"
            )
    from ..retrieval.query import Query, parse_place, parse_weight

    try:
        weights = dict(map(parse_weight, weight or []))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--weight") from None
    try:
        query = Query(
            text, audio, video, None if like is None else parse_place(like), tuple(avoid or ()), weights
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    options: dict[str, Any] = {
        "top_k": top_k,
        "folder": folder,
        "min_score": min_score,
        "per_file": None if everything else per_file,
        "merge": merge,
        "exact": exact,
        "at_least": at_least.value,
    }
    if server is not None:
        options_here = ("index_dir", "thumbnails", "model", "device", "trust_remote_code")
        sources = map(context.get_parameter_source, options_here)
        if any(source is not None and source.name == "COMMANDLINE" for source in sources):
            raise typer.BadParameter(
                "takes neither --index, --thumbnails, --model, --device nor --trust-remote-code.",
                param_hint="--server",
            )
        from ..retrieval.remote import ask_server

        root = None
        found, unknown = ask_server(server, query, **options)
    else:
        options["distinct"] = True
        found, unknown, index = _search_here(query, index_dir, model, device, trust_remote_code, options)
        root, found = index.root, index.marked(found)
    if export:
        from ..retrieval import export_moments

        for file in export:
            export_moments(found, file, query.name, root)
    pictures = _save_thumbnails(found, root, thumbnails) if thumbnails is not None else {}
    if at_least is not Strength.weak and found and found[0].share is None:
        say("note: the index is too small to say what scores mean; --at-least leaves out nothing", err=True)
    _tell(found, unknown, query.name, pictures, as_json)


def _search_here(
    query: "Query",
    index_dir: Path,
    model: str | None,
    device: str,
    trust_remote_code: bool,
    options: dict[str, Any],
) -> tuple[list["Moment"], list[str], "VattIndex"]:
    """Moments, words that the model ignores, and the index."""
    require_index(index_dir)
    from ..retrieval import Calibration, VattIndex, combined

    index = VattIndex.from_pretrained(index_dir)
    check_folder(index, options["folder"])
    moment = None
    if query.like is not None:
        moment = index.moment_of(*query.like)
        if moment is None and not index.file_of(query.like[0]).is_file():
            raise FileNotFoundError(f"{query.like[0]}: neither in the index nor a file here. Check the path.")
        if moment is not None and query.parts == ["like"]:
            queries = combined([("va", moment[1]["va"], 1.0)])
            found = Calibration(index).near(queries, other_than=moment[0], **options)
            return found, [], index
    require_repository(index.identity.name if model is None else model)
    quiet()
    from ..retrieval import VideoSearch

    opened = VideoSearch.load(index, model, device, trust_remote_code)
    unknown = opened.unknown_words(*query.texts)
    return opened.find(opened.read(query, moment=moment), **options), unknown, index


def _tell(
    found: list["Moment"],
    unknown: list[str],
    name: str,
    pictures: dict[int, str],
    as_json: bool,
) -> None:
    """Print the results."""
    if as_json:
        from ..retrieval.moments import moment_records

        records = moment_records(found)
        for record in records:
            if record["rank"] in pictures:
                record["thumbnail"] = pictures[record["rank"]]
        say_json({"query": name, "unknown_words": unknown, "moments": records})
    else:
        for rank, moment in enumerate(found, start=1):
            count = len(moment.copies)
            say_moment(rank, moment, f"and {count} {'copy' if count == 1 else 'copies'}" if count else "")
    say_unknown(unknown)
    if not found:
        raise nothing_found()


def _save_thumbnails(moments: "Sequence[Moment]", root: Path | None, folder: Path) -> dict[int, str]:
    """Rank -> file, for the moments whose video can still be read."""
    from ..files import whole_file
    from ..processors import MediaError
    from ..retrieval import thumbnail

    if root is None:
        raise ValueError(
            "The index knows no folder of videos, so there are no pictures. Leave --thumbnails out."
        )
    files = {}
    failed: dict[str, None] = {}  # of several moments of a file, in order
    for rank, moment in enumerate(moments, start=1):
        file = folder / f"{rank:03d}.jpg"
        try:
            picture = thumbnail(root / moment.path, (moment.start + moment.end) / 2)
        except MediaError as error:
            failed[str(error)] = None
            file.unlink(missing_ok=True)  # of an earlier search, that had another result of this rank
            continue
        with whole_file(file) as partial:
            picture.save(partial, "JPEG")
        files[rank] = str(file)
    for message in failed:
        say(f"no picture: {message}", err=True)
    return files
