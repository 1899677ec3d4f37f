# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Found moments as CSV, JSON, or an HTML page."""

import base64
import csv
import io
import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..files import csv_cell, write_whole
from ..processors import MediaError, MediaLimits
from .moments import STALE_NOTES, Moment, moment_records, timecode
from .thumbnails import PICTURE_LIMITS, thumbnail


_COLUMNS = (
    *("rank", "score", "path", "from", "to", "start", "end", "duration"),
    *("share", "strength", "copies", "stale"),
)
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 72rem; padding: 0 1rem }}
ol {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); padding: 0 }}
li {{ list-style: none; overflow-wrap: anywhere }}
img, .none {{ width: 100%; aspect-ratio: 16 / 9; object-fit: contain; background: #ddd; display: block }}
</style>
<h1>{title}</h1>
<p>{count} moments</p>
<ol>
{items}
</ol>
</html>
"""
_ITEM = """<li><a href="{link}">{picture}{path}</a><br>{begin}&ndash;{end}, score {score:.3f}{note}</li>"""


def export_moments(
    moments: Sequence[Moment],
    file: str | os.PathLike,
    query: str,
    root: str | os.PathLike | None = None,
    size: int = 320,
    limits: MediaLimits = PICTURE_LIMITS,
) -> None:
    """Write found moments to a file, in the format of its ending.

    Args:
        moments: found.
        file: `.csv`, `.json`, or `.html` (with pictures inside, and links to the videos).
        query: for the title.
        root: folder of the videos, for pictures and links.
        size: longest side of the pictures, pixels.
        limits: see [`thumbnail`].

    Raises:
        ValueError: another ending.
    """
    file = Path(file)
    records = moment_records(moments)
    if file.suffix == ".json":
        text = json.dumps({"query": query, "moments": records}, indent=2, ensure_ascii=False) + "\n"
    elif file.suffix == ".csv":
        table = io.StringIO()
        writer = csv.DictWriter(table, _COLUMNS)
        writer.writeheader()
        writer.writerows(
            {**record, "path": csv_cell(record["path"]), "copies": csv_cell("; ".join(record["copies"]))}
            for record in records
        )
        text = table.getvalue()
    elif file.suffix == ".html":
        text = _page(
            moments, query, None if root is None else Path(root), file.absolute().parent, size, limits
        )
    else:
        raise ValueError(f"{file}: moments are written as .csv, .json or .html. Choose one of these endings.")
    write_whole(file, text.encode("utf-8", "surrogateescape"))


def _page(
    moments: Sequence[Moment], query: str, root: Path | None, folder: Path, size: int, limits: MediaLimits
) -> str:
    items = []
    for moment in moments:
        link, picture = "#", '<span class="none"></span>'
        if root is not None:
            video = root.absolute() / moment.path
            # Browsers begin to play at #t=.
            link = (
                f"{quote(Path(os.path.relpath(video, folder)).as_posix())}#t={moment.start:g},{moment.end:g}"
            )
            try:
                content = io.BytesIO()
                image = thumbnail(video, (moment.start + moment.end) / 2, size, limits)
                image.save(content, "JPEG", quality=80)
                data = base64.b64encode(content.getvalue()).decode()
                picture = f'<img alt="" src="data:image/jpeg;base64,{data}">'
            except MediaError:  # gone since it was indexed, or it crashes the decoder
                pass
        items.append(
            _ITEM.format(
                link=escape(link),
                picture=picture,
                path=escape(moment.path),
                begin=timecode(moment.start),
                end=timecode(moment.end),
                score=moment.score,
                note="" if moment.stale is None else f", {STALE_NOTES[moment.stale]}",
            )
        )
    return _PAGE.format(title=escape(query), count=len(moments), items="\n".join(items))
