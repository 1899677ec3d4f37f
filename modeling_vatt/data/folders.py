# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of media files as tables: splits, metadata, class folders.

`datasets` decides which files belong to a split; of several, the first one that a path names counts. Metadata
are read here to keep them as written: cells of CSV files are text, and blank ones are missing.
"""

import csv
import hashlib
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.data_files import (
    SPLIT_KEYWORDS,
    DataFilesDict,
    EmptyDatasetError,
    get_data_patterns,
    resolve_pattern,
)

from ..files import write_whole


logger = logging.getLogger(__name__)

_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def read_text(path: str | os.PathLike) -> str:
    """A text file in UTF-8, or the encoding of its byte order mark; ValueError for others."""
    content = Path(path).read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: not {encoding.upper()} text (byte 0x{content[error.start]:02x} in line {line}). Save "
            "it as UTF-8."
        ) from error


def read_csv(path: str | os.PathLike, delimiter: str = ",") -> list[dict[str, Any]]:
    """Rows of a CSV file with a header; cells are text, blank ones None. ValueError for another encoding, an
    open quote, rows longer than the header, equal names of columns."""
    lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{path}: two columns are called {repeated[0]!r}. Name them differently.")
        rows = []
        for cells in lines:
            if any(map(_cell, cells[len(names) :])):
                raise ValueError(
                    f"{path}: line {lines.line_num} has {len(cells)} cells for {len(names)} columns. Put "
                    "cells that hold the delimiter in quotes."
                )
            if cells:
                rows.append(dict.fromkeys(names) | dict(zip(names, map(_cell, cells), strict=False)))
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {lines.line_num} cannot be read as CSV ({error}). Mend it."
        ) from error
    return rows


def _cell(text: str) -> str | None:
    return text if text.strip() else None


def read_json_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Rows of a file with a JSON object in every line; NaN and infinite numbers are None. ValueError for
    another encoding, or no objects."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error}). Mend it.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is no JSON object, `{{...}}`. Mend it.")
        rows.append(row)
    return rows


def open_folder(
    folder: str | os.PathLike,
    split: str,
    media: str,
    endings: Collection[str],
    column: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset:
    """Files of a split of a folder, with the columns of `metadata.csv`, `.tsv`, `.jsonl` or `.parquet`.

    Args:
        folder: holds a folder for each split, or files of the split `train`.
        split: name of a split, also in the notation of `datasets` (`"train[:10%]"`).
        media: name for the column of the files, `file_name` in the metadata.
        endings: of the files that are taken without metadata.
        column: another column of the metadata with names of files, as are those called `*_file_name`.
        cache_dir: of the table; default: that of `datasets`.

    Returns:
        Dataset with a string column `media` and the columns of the metadata; empty if there are no files. Its
        fingerprint changes when a file does.

    Raises:
        ValueError: no such split, or metadata that cannot be understood.
    """
    files = split_files(folder)
    if not files:
        return datasets.Dataset.from_dict({media: []})
    _warn_of_others(folder, files, endings)
    tables = {}
    for name in {part.partition("[")[0].strip() for part in split.split("+")}:
        if name not in files:
            raise ValueError(f'{folder}: Unknown split "{name}". Should be one of {sorted(files)}.')
        listed = [path for path in files[name] if os.path.basename(path) in _METADATA]
        if listed:
            table = _metadata_table(listed, media, column)
            texts = (cells for cells in table.columns if pa.types.is_string(cells.type))
            named = {value for cells in texts for value in cells.to_pylist()}
            beside = [path for path in files[name] if _ending(path) in endings and path not in named]
            if beside:
                logger.warning(
                    "%s, %s: left out %d files that are in no row of the metadata, such as %s.",
                    folder,
                    name,
                    len(beside),
                    beside[0],
                )
        else:
            paths = [path for path in files[name] if _ending(path) in endings]
            others = Counter(_ending(path) for path in files[name] if _ending(path) not in endings)
            if others:
                counts = ", ".join(
                    f"{count} {ending or 'without'}" for ending, count in sorted(others.items())
                )
                logger.warning("%s, %s: not taken for %s by their endings: %s.", folder, name, media, counts)
            table = pa.table({media: pa.array(paths, pa.string())})
        path = _on_disk(table, files[name], cache_dir or datasets.config.HF_DATASETS_CACHE)
        tables[name] = datasets.Dataset.from_file(str(path), split=datasets.NamedSplit(name))
    if split in tables:
        return tables[split]
    chosen = datasets.ReadInstruction.from_spec(split).to_absolute(
        {name: len(table) for name, table in tables.items()}
    )
    parts = [tables[part.splitname].select(range(part.from_ or 0, part.to)) for part in chosen]
    return datasets.concatenate_datasets(parts, split=datasets.Split(split.split("[")[0]))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def split_files(folder: str | os.PathLike) -> dict[str, list[str]]:
    """All files of each split of a folder; a file is in one split, and once."""
    base = Path(folder).resolve().as_posix()
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(base), base_path=base)
    except (EmptyDatasetError, FileNotFoundError):
        return {}
    claims: dict[str, list[str]] = {}
    for name, paths in found.items():
        for path in dict.fromkeys(paths):  # several patterns of a split may find a file
            claims.setdefault(str(path), []).append(str(name))
    files: dict[str, list[str]] = {}
    for path, names in claims.items():
        name = names[0]
        if len(names) > 1:  # such as `train/test drive/a.mp4`
            inside = path[len(base) :]
            places = {name: _keyword(name).search(inside) for name in names}
            name = min(names, key=lambda name: place.start() if (place := places[name]) else len(inside))
        files.setdefault(name, []).append(path)
    return files


def _keyword(split: str) -> re.Pattern[str]:
    """A word for a split in a path, as `datasets` finds it."""
    words = "|".join(map(re.escape, SPLIT_KEYWORDS.get(datasets.Split(split), [split])))
    return re.compile(rf"(?:^|[-._ 0-9/])(?:{words})(?:[-._ 0-9/]|$)")


def _warn_of_others(folder: str | os.PathLike, files: dict[str, list[str]], endings: Collection[str]) -> None:
    """Warn of files in no split, where names of other files or folders were taken for splits."""
    base = Path(folder).resolve().as_posix()
    known = {path for paths in files.values() for path in paths}
    others = [
        path
        for path in resolve_pattern("**", base)
        if path not in known and (_ending(path) in endings or os.path.basename(path) in _METADATA)
    ]
    if others:
        logger.warning(
            "%s: left out %d files that are in no split, such as %s; the splits are %s, by the names of "
            "folders or files.",
            folder,
            len(others),
            others[0],
            ", ".join(files),
        )


def _metadata_table(files: Sequence[str], media: str, column: str | None) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            rows += _named_files(file, _metadata_rows(file), media, column)
        except pa.ArrowException as error:
            raise ValueError(f"{file}: cannot be read ({error}). Mend it.") from error
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        try:
            if b"\0" in name.encode():  # raises for halves of surrogate pairs
                raise ValueError("a name that no table takes")
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{files[0]}: column {name!r} cannot be read as values of one kind ({error}). Correct it."
            ) from error
    return pa.table(columns) if columns else pa.table({media: pa.array([], pa.string())})


def _metadata_rows(file: str) -> list[dict[str, Any]]:
    suffix = os.path.splitext(file)[1]
    if suffix == ".jsonl":
        return read_json_lines(file)
    if suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    return read_csv(file, "\t" if suffix == ".tsv" else ",")


def _named_files(
    file: str, rows: list[dict[str, Any]], media: str, column: str | None
) -> list[dict[str, Any]]:
    """The rows with paths in place of names of files."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    renamed = {name: name.removesuffix("_file_name") for name in names if name.endswith("_file_name")}
    if column in names:
        renamed[column] = column
    if "file_name" in names:
        renamed["file_name"] = media
    if rows and not renamed:
        raise ValueError(f"{file}: no column `file_name` among {names}. Name the files there.")
    folder = os.path.dirname(file)
    return [
        {renamed[name]: _inside(folder, row.get(name), file) for name in sorted(renamed, key=names.index)}
        | {name: value for name, value in row.items() if name not in renamed and name not in renamed.values()}
        for row in rows
    ]


def _inside(folder: str, name: Any, file: str) -> str | None:
    """Path of a file below a folder; untrusted metadata must not lead out of it."""
    if name is None:
        return None
    plain = os.path.normpath(name).replace("\\", "/") if isinstance(name, str) and name else ""
    if not plain or "://" in name or "\0" in name or os.path.isabs(plain) or plain.split("/")[0] == "..":
        raise ValueError(f"{file}: {name!r} is no name of a file in its folder. Correct it.")
    return os.path.join(folder, plain)


def _on_disk(table: pa.Table, files: Sequence[str], cache_dir: str | os.PathLike) -> Path:
    """The table as Arrow file, in another folder when a file has changed, as `datasets` caches beside it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content = sink.getvalue()
    digest = hashlib.sha256(content)
    for file in filter(os.path.isfile, files):
        status = os.stat(file)
        digest.update(repr((file, status.st_size, status.st_mtime_ns)).encode(errors="surrogateescape"))
    path = Path(cache_dir, "folders", digest.hexdigest()[:32], "table.arrow")
    if not path.is_file():
        write_whole(path, content)
    return path


def class_folders(folder: str | os.PathLike, paths: Sequence[str]) -> list[str | None] | None:
    """The class of each file of a folder without metadata: the first folder under the split, or None for
    files beside the folders. None for all if there are not several class folders."""
    base = Path(folder).resolve()
    classes: dict[str, str | None] = {}
    for name, files in split_files(folder).items():
        keyword = _keyword(name)
        for path in files:
            folders = Path(path).relative_to(base).parts[:-1]
            place = [bool(keyword.search(part)) for part in folders]
            inside = folders[place.index(True) + 1 :] if any(place) else folders
            classes[path] = inside[0] if inside else None
    several = len(set(classes.values()) - {None}) > 1
    return [classes[path] for path in paths] if several else None
