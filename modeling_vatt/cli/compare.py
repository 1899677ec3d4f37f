# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt compare`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..repositories import require_repository
from .common import (
    Trust,
    check_folder,
    explained,
    nothing_found,
    quiet,
    require_index,
    say,
    say_json,
    say_moment,
    say_unknown,
)


if TYPE_CHECKING:
    from ..retrieval import VideoSearch


@explained("Nothing was changed.")
def compare(
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    indexes: Annotated[list[Path], typer.Argument(help="Folders of two or more indexes of the same videos.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Number of results of each.", min=1)] = 5,
    folder: Annotated[str | None, typer.Option(help="Only below this subfolder of the videos.")] = None,
    per_file: Annotated[int, typer.Option(help="At most so many moments of a file.", min=1)] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    trust_remote_code: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search the same videos with several models, each with an index of its own.

    The last column says how many of the others find the moment, too. Scores of different models cannot be
    compared; strong, likely and weak can, see `vatt search --help`.

    Examples:

    vatt index my_videos --model one_model

    vatt index my_videos --model another_model --index my_videos/.vatt-another

    vatt compare "a dog barks" my_videos my_videos/.vatt-another
    """
    if len(indexes) < 2:
        raise typer.BadParameter(f"Give two indexes or more, not {len(indexes)}.", param_hint="indexes")
    for place in indexes:
        require_index(place)
    from ..retrieval import Query, VattIndex
    from ..retrieval.moments import moment_records
    from ..retrieval.store import find_index

    query = Query(text)
    for place in filter(find_index, indexes):  # before a model is loaded
        with VattIndex.open(place) as index:
            check_folder(index, folder)
            require_repository(index.identity.name)
    quiet()
    from ..retrieval import VideoSearch, compare_searches

    def opened() -> Iterator["VideoSearch"]:
        for place in indexes:
            with VattIndex.from_pretrained(place) as index:
                check_folder(index, folder)  # of a saved one, too
                yield VideoSearch.load(index, None, device, trust_remote_code)

    options: dict[str, Any] = {"top_k": top_k, "folder": folder, "per_file": per_file, "distinct": True}
    answers = compare_searches(opened(), query, **options)
    if as_json:
        models = []
        for place, answer in zip(indexes, answers, strict=True):
            records = zip(moment_records(answer.moments), answer.shared, strict=True)
            moments = [{**record, "shared": shared} for record, shared in records]
            facts = {"index": str(place), "model": answer.model, "unknown_words": answer.unknown}
            models.append({**facts, "moments": moments})
        say_json({"query": text, "answers": models})
    else:
        for place, answer in zip(indexes, answers, strict=True):
            say(f"{place}: {answer.model}")
            for rank, (moment, shared) in enumerate(zip(answer.moments, answer.shared, strict=True), start=1):
                say_moment(rank, moment, f"{shared} of {len(indexes) - 1}")
    for answer in answers:
        say_unknown(answer.unknown, answer.model)
    if not any(answer.moments for answer in answers):
        raise nothing_found()
