# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""An index as Parquet and JSON, on disk and on the Hub; what is read is not trusted.

- `vatt_index.json`: settings, numbers of files and windows;
- `data/windows-00000-of-00002.parquet`, ...: a row for each window, those of a file together;
- `files.parquet`: a row for each file, so that the index can be brought up to date where the videos are;
- `README.md`: a dataset card.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ..embedding.identity import ModelIdentity
from ..repositories import require_repository
from .errors import IndexDamaged, IndexMismatch
from .store import DATABASE, EXPORTED, SPACES, FileRecord, Space, Store, check_path


MANIFEST, FILES, DATA = EXPORTED, "files.parquet", "data"
_FORMAT = 1
_SHARD_WINDOWS = 100_000  # rows of a Parquet file, about 300 MB
_MAX_DIM, _MAX_PATH = 16_384, 4096
_SHARD = re.compile(r"windows-\d{5}-of-\d{5}\.parquet")
_FILE_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "hash": pa.string(),
        "duration": pa.float64(),
        "error": pa.string(),
    }
)


def _dims(store: Store) -> dict[Space, int]:
    """Numbers of a vector in each space."""
    dims = store.meta("settings")["model"]["dims"]
    return {space: int(dims[space]) for space in SPACES}


def _schema(dims: dict[Any, int]) -> pa.Schema:
    spans = {name: pa.float64() for name in ("start", "end", "duration")}
    vectors = {str(space): pa.list_(pa.float32(), dims[space]) for space in SPACES}
    fields: dict[str, pa.DataType] = {"path": pa.string(), **spans, **vectors}
    return pa.schema(fields)


def _batches(store: Store) -> Iterator[pa.RecordBatch]:
    """Windows in the order of their numbers: those of a file are together."""
    dims = _dims(store)
    schema = _schema(dims)
    with store.reading():
        blocks = (store.vectors(space, dim) for space, dim in dims.items())
        for (ids, va), (others, vt) in zip(*blocks, strict=True):
            known = store.describe(ids)
            if not np.array_equal(ids, others) or len(known) != len(ids):
                raise IndexDamaged(f"{store.file}: windows without vectors. Index again.")
            rows = [known[number] for number in ids.tolist()]
            # path, start, end, duration: the first columns
            columns = [
                pa.array(column, schema.field(place).type)
                for place, column in enumerate(zip(*rows, strict=True))
            ]
            columns += [
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
                for vectors in (va, vt)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def table(store: Store) -> pa.Table:
    """All windows in memory."""
    return pa.Table.from_batches(_batches(store), _schema(_dims(store)))


def save(store: Store, facts: dict[str, Any], folder: str | os.PathLike, shared: bool = False) -> None:
    """See [`VattIndex.save_pretrained`]; the card has `facts`, of [`VattIndex.info`]. What is `shared` holds
    no local paths."""
    folder = Path(folder)
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    with store.reading():  # one state of the index for all files
        files = store.files()
        windows, records = sum(count for _, count in files), [file for file, _ in files]
        names = _write_windows(store, folder / DATA, windows)
        columns = {name: [getattr(file, name) for file in records] for name in _FILE_SCHEMA.names}
        if shared and facts["root"] is not None:
            place = f"{facts['root']}{os.sep}"
            columns["error"] = [error and error.replace(place, "") for error in columns["error"]]
        pq.write_table(pa.table(columns, _FILE_SCHEMA), folder / FILES)
    settings = {key: value for key, value in store.meta("settings").items() if key != "root"}
    if shared:
        facts = {**facts, "model": _shared_name(facts["model"])}
        settings["model"] = {**settings["model"], "name": facts["model"]}
    manifest = {"format": _FORMAT, "files": len(records), "windows": windows, "shards": names}
    (folder / MANIFEST).write_text(json.dumps({**manifest, "settings": settings}, indent=2) + "\n")
    for other in (folder / DATA).glob("windows-*.parquet"):  # of a larger index that was saved here before
        if other.name not in names:
            other.unlink()
    _card(facts).save(folder / "README.md")


def _write_windows(store: Store, folder: Path, windows: int) -> list[str]:
    """Write so many windows as Parquet; returns the names of the files."""
    count = max(1, math.ceil(windows / _SHARD_WINDOWS))
    names = [f"windows-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    batches, schema = _batches(store), _schema(_dims(store))
    rest = nothing = pa.RecordBatch.from_pylist([], schema)
    for name in names:
        with pq.ParquetWriter(folder / name, schema, compression="zstd") as writer:
            left = _SHARD_WINDOWS
            while left and (len(rest) or len(rest := next(batches, nothing))):
                part = rest.slice(0, left)
                writer.write_batch(part)
                rest, left = rest.slice(len(part)), left - len(part)
    return names


def _shared_name(name: str) -> str:
    """The model's name on the Hub, or of its folder."""
    return Path(name).name if Path(name).is_absolute() else name


def _card(facts: dict[str, Any]) -> DatasetCard:
    data = DatasetCardData(
        configs=[{"config_name": "default", "data_files": f"{DATA}/windows-*.parquet"}],
        tags=["vatt", "video", "retrieval", "embeddings", "modeling_vatt"],
        pretty_name="Index of video moments",
    )
    text = f"""# Index of video moments

Embeddings of {facts["windows"]:,} windows of {facts["window"]:g} s, one every {facts["stride"]:g} s, of
{facts["files"]:,} videos ({facts["seconds"] / 3600:.2f} hours). The videos are not included.

| | |
| --- | --- |
| model | `{facts["model"]}` |
| weights | SHA-256 `{facts["weights"]}` |
| `va` | {facts["dims"]["va"]} values, compared with sound and video |
| `vt` | {facts["dims"]["vt"]} values, compared with text |
| made with | modeling_vatt {facts["version"]}, {facts["created"]} |

```python
from modeling_vatt.retrieval import VideoSearch

search = VideoSearch.open("THIS_DATASET", model="{facts["model"]}")
print(search.text("a dog barks"))
```
"""
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def download(name: str, revision: str | None, token: str | None) -> Path:
    """Folder with the files of a dataset of the Hub; errors: [`VattIndex.from_pretrained`]."""
    try:
        cached = require_repository(name, "dataset", MANIFEST, revision, token)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: no index here. Make one with `vatt index`. {error}") from None
    options: Any = {"repo_type": "dataset", "revision": revision, "token": token, "local_files_only": cached}
    try:
        place = Path(snapshot_download(name, allow_patterns=[MANIFEST], **options))
        if not (place / MANIFEST).is_file():
            raise IndexDamaged(f"{name}: a dataset without {MANIFEST}, so not an index.")
        # Only files named by a valid manifest are fetched.
        shards = _manifest(place)["shards"]
        wanted = [MANIFEST, FILES, *(f"{DATA}/{shard}" for shard in shards)]
        return Path(snapshot_download(name, allow_patterns=wanted, **options))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(f"{name}: the dataset cannot be fetched ({error}). Try again.") from error


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest, checked."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise IndexMismatch(
                f"{file}: format {manifest['format']}, this version of modeling_vatt reads {_FORMAT}. "
                "Install the version that wrote it."
            )
        settings, shards = manifest["settings"], manifest["shards"]
        dims = ModelIdentity(**settings["model"]).dims
        numbers = (manifest["files"], manifest["windows"], *(dims[space] for space in SPACES))
        good = (
            all(isinstance(number, int) and number >= 0 for number in numbers)
            and all(1 <= dims[space] <= _MAX_DIM for space in SPACES)
            and all(isinstance(shard, str) and _SHARD.fullmatch(shard) for shard in shards)
            and len(set(shards)) == len(shards)
            and all(0 < float(settings[key]) < math.inf for key in ("window", "stride"))
            and all(isinstance(settings[key], str) for key in ("version", "created"))
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, IndexMismatch):
            raise
        raise IndexDamaged(f"{file}: cannot be read ({error!r}). Do not use it.") from error
    if not good:
        raise IndexDamaged(f"{file}: values that make no sense. Do not use it.")
    return manifest


def read(source: Path, folder: Path, root: str | os.PathLike | None) -> Store:
    """Read untrusted files into a new store."""
    manifest = _manifest(source)
    settings = {**manifest["settings"], "root": None if root is None else str(Path(root).absolute())}
    schema = _schema(settings["model"]["dims"])
    try:
        files = _files(source / FILES, manifest["files"])
        parts = [pq.ParquetFile(source / DATA / shard) for shard in manifest["shards"]]
        rows = sum(part.metadata.num_rows for part in parts)
        if rows != manifest["windows"] or any(not part.schema_arrow.equals(schema) for part in parts):
            raise IndexDamaged(f"{source}: not the windows that {MANIFEST} names. Do not use it.")
        store = Store.create(folder, settings)
        try:
            for path, starts, ends, vectors in _by_file(parts, source):
                if path not in files:
                    raise IndexDamaged(f"{source}: windows of {path!r} twice, or of no file. Do not use it.")
                store.put([(files.pop(path), starts, ends, vectors)])
            none = {space: np.zeros((0, schema.field(space).type.list_size), np.float32) for space in SPACES}
            store.put((file, [], [], none) for file in files.values())
            return store
        except BaseException:
            store.close()
            for file in folder.glob(f"{DATABASE}*"):
                file.unlink()
            raise
    except FileExistsError:  # of the new index
        raise
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise IndexDamaged(f"{source}: cannot be read ({error}). Do not use it.") from error


def _files(file: Path, count: int) -> dict[str, FileRecord]:
    rows = pq.ParquetFile(file)
    if rows.metadata.num_rows != count or not rows.schema_arrow.equals(_FILE_SCHEMA):
        raise IndexDamaged(f"{file}: not the files that {MANIFEST} names. Do not use it.")
    found: dict[str, FileRecord] = {}
    for batch in rows.iter_batches():
        for row in batch.to_pylist():
            error = row.pop("error")
            if any(value is None for value in row.values()) or not 0 <= row["duration"] < math.inf:
                raise IndexDamaged(f"{file}: values that make no sense. Do not use it.")
            record = FileRecord(**row, error=error)
            if len(check_path(record.path, file)) > _MAX_PATH or record.path in found:
                raise IndexDamaged(f"{file}: a path that is too long or there twice. Do not use it.")
            found[record.path] = record
    return found


def _by_file(parts: list[pq.ParquetFile], source: Path) -> Iterator[tuple[str, Any, Any, dict[Any, Any]]]:
    """(path, starts, ends, vectors) of each file; its windows may be in two batches."""

    def pieces() -> Iterator[tuple[str, Any, Any, dict[Any, Any]]]:
        for part in parts:
            for batch in part.iter_batches(batch_size=4096):
                if any(batch.column(name).null_count for name in batch.schema.names):
                    raise IndexDamaged(f"{source}: windows with missing values. Do not use it.")
                starts, ends = (batch.column(name).to_numpy() for name in ("start", "end"))
                vectors = {
                    space: batch.column(space).flatten().to_numpy().reshape(len(starts), -1)
                    for space in SPACES
                }
                norms = [np.linalg.norm(rows, axis=1) for rows in vectors.values()]
                # A broken model gives zeros; they are kept.
                good = [np.isclose(norm, 1, atol=1e-3) | (norm == 0) for norm in norms]
                times = np.isfinite(ends) & (starts >= 0) & (starts <= ends)
                if not times.all() or not np.all(good):
                    raise IndexDamaged(f"{source}: windows that make no sense. Do not use it.")
                first = 0
                for path, group in groupby(batch.column("path").to_pylist()):
                    last = first + len(list(group))
                    part = {space: rows[first:last] for space, rows in vectors.items()}
                    yield check_path(path, source), starts[first:last], ends[first:last], part
                    first = last

    for path, group in groupby(pieces(), key=lambda piece: piece[0]):
        _, starts, ends, vectors = zip(*group, strict=True)
        joined = {space: np.concatenate([part[space] for part in vectors]) for space in SPACES}
        yield path, np.concatenate(starts), np.concatenate(ends), joined
