# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt search`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..hub.repositories import require_repository
from .common import NOTHING_FOUND, Trust, explained, finite, quiet, require_index, say, say_json


if TYPE_CHECKING:
    from ..retrieval import Moment, VattIndex


@explained("Nothing was changed.")
def search(
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Look for what sounds like this file.", exists=True, dir_okay=False)
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Look for what looks like this file.", exists=True, dir_okay=False)
    ] = None,
    index_dir: Annotated[
        Path,
        typer.Option("--index", "-i", help="Folder of the index or of the videos.", envvar="VATT_INDEX"),
    ] = Path("."),
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Number of results.", min=1)] = 10,
    folder: Annotated[str | None, typer.Option(help="Only below this subfolder of the videos.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Leave out what fits less (-1 to 1).", min=-1, max=1, callback=finite),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find moments of videos by words, by a sound, or by a clip.

    Words are compared with pictures in one space, sounds and clips with pictures in another. Of a sound or
    clip that is longer than the model's window, the middle is used. Exit code 3: nothing found, that is,
    nothing in the folder or above the score that was asked for.

    Examples:

    vatt search "a dog barks" --index my_videos

    vatt search --audio bark.wav --index my_videos --top-k 3 --min-score 0.2

    vatt search --video clip.mp4 --folder holidays/2024 --export found.html --json
    """
    if sum(query is not None for query in (text, audio, video)) != 1:
        raise typer.BadParameter("Give exactly one of: words, --audio FILE, --video FILE.")
    for file in export or []:
        if file.suffix not in (".csv", ".json", ".html"):
            raise typer.BadParameter(
                f"{file}: choose the ending .csv, .json or .html.", param_hint="--export"
            )
    require_index(index_dir)
    if model is not None:
        require_repository(model)
    quiet()
    from ..retrieval import VattIndex, VideoSearch, export_moments, moment_records, timecode

    index = VattIndex.from_pretrained(index_dir)
    _check_folder(index, folder)
    opened = VideoSearch.load(index, model, device, trust_remote_code)
    options = {"top_k": top_k, "folder": folder, "min_score": min_score, "merge": merge, "exact": exact}
    unknown = [] if text is None else opened.unknown_words(text)
    if text is not None:
        name, found = text, opened.text(text, **options)
    elif audio is not None:
        name, found = str(audio), opened.audio(audio, **options)
    else:
        assert video is not None
        name, found = str(video), opened.video(video, **options)
    for file in export or []:
        export_moments(found, file, name, index.root)
    pictures = _save_thumbnails(found, index.root, thumbnails) if thumbnails is not None else {}
    if as_json:
        records = [
            {**record, **({"thumbnail": pictures[record["rank"]]} if record["rank"] in pictures else {})}
            for record in moment_records(found)
        ]
        say_json({"query": name, "unknown_words": unknown, "moments": records})
    else:
        for rank, moment in enumerate(found, start=1):
            span = f"{timecode(moment.start)}-{timecode(moment.end)}"
            say(f"{rank:3d}  {moment.score:6.3f}  {span:>17}  {moment.path}")
    if unknown:
        say(f"note: the model does not know {', '.join(map(repr, unknown))}", err=True)
    if not found:
        say("nothing found", err=True)
        raise typer.Exit(NOTHING_FOUND)


def _check_folder(index: "VattIndex", folder: str | None) -> None:
    """Wrong usage, if there is no such folder: one without moments finds nothing."""
    try:
        known = index.folders(folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--folder") from None
    if known == [] and not (index.root is not None and (index.root / str(folder)).is_dir()):
        raise typer.BadParameter(
            f"{folder}: the index holds no such folder. Give one below that of the videos.",
            param_hint="--folder",
        )


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
            continue
        with whole_file(file) as partial:
            picture.save(partial, "JPEG")
        files[rank] = str(file)
    for message in failed:
        say(f"no picture: {message}", err=True)
    return files
