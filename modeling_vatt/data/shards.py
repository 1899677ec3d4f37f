# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shards: tar files in WebDataset format with an index beside them, so that every clip can be read directly.

A folder of shards holds

- `shard-000000.tar`, ...: of each clip `KEY.json` (captions and where it comes from), then `KEY.mp4` (the
  file, whatever its container: readers look at the content);
- `index.arrow`: of each clip its shard, place, length and checksum, and what `KEY.json` says of its text;
- `shards.json`: the shards with their sizes, and the checksum of the index.

Training reads single clips at their places, in any order and as often as it likes. So which clip comes when
is decided by the sampler alone, and a run is resumed at the exact clip.
"""

import hashlib
import io
import json
import math
import os
import re
import tarfile
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa

from ..processors.media import MediaError
from .tables import VIDEO_SUFFIXES, load_clips


MANIFEST, INDEX = "shards.json", "index.arrow"
_VERSION = 1
_NAME = re.compile(r"[\w-][\w.-]*\.tar")  # a plain name: an index cannot point out of its folder
_HASH = re.compile(r"[0-9a-f]{64}")
_REMOTE_ATTEMPTS = 3
_SENTENCE = pa.struct({"start": pa.float64(), "end": pa.float64(), "text": pa.string()})
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "shard": pa.int32(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "crc32": pa.int64(),
        "captions": pa.list_(pa.string()),
        "sentences": pa.list_(_SENTENCE),
        "start": pa.float64(),
        "end": pa.float64(),
        "source": pa.string(),
    }
)


class ShardError(ValueError):
    """Shards that are not as their index says, or no shards at all."""


def is_remote(folder: str | os.PathLike) -> bool:
    """Whether this is a URL."""
    return "://" in os.fspath(folder)


class ShardDataset:
    """Clips in shards, as the table that [`ClipDataset`] takes.

    A clip whose bytes are not those that were indexed raises `MediaError`: [`ClipDataset`] skips it. Storage
    that fails raises [`ShardError`] and ends the run: skipping would lose good clips.

    Args:
        folder: folder of shards, or a URL of one that fsspec knows (`https://`, `hf://datasets/...`, `s3://`).
        remote: whether URLs are allowed. Of remote shards the index is fetched into the cache folder of
            `datasets`; clips are fetched whenever they are read.

    Attributes:
        table: the index, as `datasets.Dataset` with a row for each clip.
        shards: names of the tar files.
        shard_sizes: clips in each of them.
        fingerprint: checksum of the index, which holds those of all clips.

    Raises:
        ShardError: no shards there, shards that are missing, truncated or changed since they were indexed, or
            an index that is none of this package's.
    """

    def __init__(self, folder: str | os.PathLike, remote: bool = False) -> None:
        self.folder = os.fspath(folder).rstrip("/")
        if is_remote(self.folder) and not remote:
            raise ShardError(f"{self.folder}: remote shards are read only if you allow it (`remote=True`).")
        manifest = self._manifest()
        self.fingerprint: str = manifest["index_sha256"]
        self.shards: list[str] = [shard["name"] for shard in manifest["shards"]]
        self.shard_sizes: list[int] = [shard["clips"] for shard in manifest["shards"]]
        sizes: list[int] = [shard["bytes"] for shard in manifest["shards"]]
        self.table = self._open_index(self._index(), sizes)
        self._check_sizes(sizes)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table[index]
        shard = self.shards[row["shard"]]
        name = f"{self.folder}/{shard}/{row['key']}"
        try:
            content = self._read(shard, row["offset"], row["offset"] + row["size"])
        except OSError as error:
            raise ShardError(
                f"{name}: cannot be read ({error}). Check that the shard is there and its storage works, "
                "then run the same command again to continue."
            ) from error
        if zlib.crc32(content) != row["crc32"]:
            reason = "not the bytes that were indexed"
            raise MediaError(name, reason, "Copy the shard again, or index the folder anew.")
        return {**row, "video": {"path": name, "bytes": content}}

    def _read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes of a file of the folder. Nothing is kept open, so any process may call this."""
        attempts = _REMOTE_ATTEMPTS if is_remote(self.folder) else 1
        for attempt in range(1, attempts + 1):
            try:
                files, root = fsspec.url_to_fs(self.folder)
                return files.cat_file(f"{root}/{name}", start=start, end=end)
            except FileNotFoundError:
                raise
            except Exception as error:  # each kind of storage has errors of its own
                if attempt == attempts:
                    raise OSError(str(error)) from error
                time.sleep(attempt)
        raise AssertionError  # not reached: the last attempt returns or raises

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads(self._read(MANIFEST))
            version = manifest["version"]
            shards = [(shard["name"], shard["clips"], shard["bytes"]) for shard in manifest["shards"]]
            checksum = manifest["index_sha256"]
            if not all(_NAME.fullmatch(name) for name, _, _ in shards) or not _HASH.fullmatch(checksum):
                raise ValueError("odd names")
            if not all(type(count) is int and count >= 0 for _, *counts in shards for count in counts):
                raise ValueError("odd counts")
        except FileNotFoundError:
            raise ShardError(
                f"{self.folder}: no {MANIFEST} in it. Check the path, or make shards with "
                "examples/prepare_shards.py."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(MANIFEST) from error
        if version != _VERSION:
            raise ShardError(
                f"{self.folder}/{MANIFEST}: version {version}, but this release reads version {_VERSION}. "
                "Index the folder again."
            )
        return manifest

    def _index(self) -> Path:
        """The index as a local file, checked: Arrow trusts what it maps into memory."""
        if not is_remote(self.folder):
            path = Path(self.folder, INDEX)
            if not path.is_file() or _sha256(path) != self.fingerprint:
                raise self._damaged(INDEX)
            return path
        path = Path(datasets.config.HF_DATASETS_CACHE, "shards", f"{self.fingerprint}.arrow")
        if not path.is_file() or _sha256(path) != self.fingerprint:
            try:
                content = self._read(INDEX)
            except OSError as error:
                raise self._damaged(INDEX) from error
            if hashlib.sha256(content).hexdigest() != self.fingerprint:
                raise self._damaged(INDEX)
            _write_whole(path, content)
        return path

    def _open_index(self, path: Path, sizes: list[int]) -> datasets.Dataset:
        """The index as table. A stranger's may claim anything: other columns would be decoded, opening files
        of this machine."""
        try:
            table = datasets.Dataset.from_file(str(path))
            if table.features != datasets.Features.from_arrow_schema(_SCHEMA):
                raise ValueError(f"other columns than {_SCHEMA.names}")
            table.data.table.validate(full=True)
            columns = [table.data.table[name] for name in ("shard", "offset", "size")]
            if any(column.null_count for column in columns):
                raise ValueError("missing values")
            shard, offset, size = (column.to_numpy() for column in columns)
            if not (np.diff(shard) >= 0).all() or not ((shard >= 0) & (shard < len(sizes))).all():
                raise ValueError("shards out of order")
            if np.bincount(shard, minlength=len(sizes)).tolist() != self.shard_sizes:
                raise ValueError(f"other numbers of clips than in {MANIFEST}")
            ends = np.array(sizes, dtype=np.int64)[shard]
            if not ((offset >= 0) & (size >= 0) & (size <= ends) & (offset <= ends - size)).all():
                raise ValueError("clips outside of their shards")
        # Damage that Arrow meets while it reads is an OSError.
        except (
            OSError,
            ValueError,
            TypeError,
            pa.ArrowException,
            datasets.exceptions.DatasetsError,
        ) as error:
            raise ShardError(
                f"{self.folder}/{INDEX}: no index of these shards ({error}). Index the folder anew."
            ) from error
        return table

    def _check_sizes(self, expected: list[int]) -> None:
        files, root = fsspec.url_to_fs(self.folder)
        try:
            found = files.sizes([f"{root}/{name}" for name in self.shards])
        except FileNotFoundError as error:
            raise ShardError(f"{self.folder}: a shard is missing ({error}). Copy it again.") from error
        except Exception as error:  # each kind of storage has errors of its own
            raise ShardError(f"{self.folder}: cannot be read ({error}). Try again.") from error
        for name, size, wanted in zip(self.shards, found, expected, strict=True):
            if size is not None and size != wanted:  # some servers do not tell
                raise ShardError(
                    f"{self.folder}/{name}: truncated or changed, it has {size} bytes instead of {wanted}. "
                    "Copy it again, or index the folder anew."
                )

    def _damaged(self, name: str) -> ShardError:
        return ShardError(
            f"{self.folder}/{name}: missing or damaged. Copy it again, or index the folder anew."
        )


def open_clips(
    data: str | os.PathLike,
    split: str,
    video_column: str | None = None,
    caption_column: str | None = None,
    remote: bool = False,
) -> datasets.Dataset | ShardDataset:
    """Videos with their captions, undecoded, wherever they are.

    Args:
        data: a folder with a folder of shards for each split, or its URL; or what [`load_clips`] knows.
        split: split to open.
        video_column, caption_column: see [`load_clips`].
        remote: whether a URL is allowed.

    Raises:
        ValueError: see [`load_clips`] and [`ShardDataset`].
    """
    if is_remote(data) or (Path(data).is_dir() and any(Path(data).glob(f"*/{MANIFEST}"))):
        return ShardDataset(f"{os.fspath(data).rstrip('/')}/{split}", remote)
    return load_clips(data, split, video_column, caption_column)


def write_shard(path: str | os.PathLike, clips: Iterable[tuple[str, dict[str, Any], bytes]]) -> None:
    """Write a tar file; it gets its name when it is whole.

    Args:
        path: name of the shard.
        clips: key (without dots), what `KEY.json` is to say, content of `KEY.mp4`.
    """
    partial = Path(f"{os.fspath(path)}.partial")
    with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, text, media in clips:
            for suffix, content in (("json", json.dumps(text, default=str).encode()), ("mp4", media)):
                member = tarfile.TarInfo(f"{key}.{suffix}")  # its other fields are the same on every machine
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    os.replace(partial, path)


def read_shard_index(path: str | os.PathLike) -> list[dict[str, Any]]:
    """What the index says of the clips of a shard, from its content.

    Any tar file in WebDataset format will do: a video, and a `.json` with `captions` (or `caption`, `text`),
    `sentences`, `start`, `end`, `source`, or a `.txt` with a caption, under the same key.

    Raises:
        ShardError: no tar file, or text in it that cannot be understood.
    """
    rows: dict[str, dict[str, Any]] = {}
    place = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                place = member.name
                folder, _, name = place.rpartition("/")
                base, _, suffix = name.partition(".")
                suffix = suffix.lower()
                known = f".{suffix}" in VIDEO_SUFFIXES or suffix in ("json", "txt")
                if not member.isreg() or not base or not known:
                    continue
                key = f"{folder}/{base}".lstrip("/")
                stream = tar.extractfile(member)
                assert stream is not None  # regular files have one
                content = stream.read()
                if len(content) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                row = rows.setdefault(key, {})
                if suffix == "json":
                    row.update(_text_of(json.loads(content)))
                elif suffix == "txt":
                    row["captions"] = [content.decode()]
                else:
                    row.update(offset=member.offset_data, size=member.size, crc32=zlib.crc32(content))
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{path}: no tar file, or a truncated one ({error}). Copy it again.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{path}: cannot understand the text in {place!r} ({error}).") from error
    return [{"key": key, **row} for key, row in rows.items() if "offset" in row]


def _text_of(text: dict[str, Any]) -> dict[str, Any]:
    captions: Any = next((text[name] for name in ("captions", "caption", "text") if name in text), None)
    captions = [captions] if isinstance(captions, str) else list(captions or [])
    if not all(isinstance(caption, str) for caption in captions):
        raise TypeError("captions are strings")
    sentences = [
        {"start": float(s["start"]), "end": float(s["end"]), "text": str(s["text"])}
        for s in text.get("sentences") or []
    ]
    times = {name: None if text.get(name) is None else float(text[name]) for name in ("start", "end")}
    told: list[Any] = [
        *times.values(),
        *(sentence[name] for sentence in sentences for name in ("start", "end")),
    ]
    if not all(value is None or math.isfinite(value) for value in told):
        raise ValueError("times are finite numbers of seconds")
    source = text.get("__source__", text.get("source"))
    source = None if source is None else str(source)
    return {"captions": captions, "sentences": sentences, "source": source, **times}


def write_index(
    folder: str | os.PathLike,
    shards: Iterable[tuple[str, list[dict[str, Any]]]] | None = None,
    description: dict[str, Any] | None = None,
) -> ShardDataset:
    """Make the index of a folder of shards, and open it.

    Args:
        folder: holds the tar files.
        shards: name and [`read_shard_index`] of each, in order; of all `*.tar` of the folder by default.
        description: more for `shards.json`.

    Raises:
        ShardError: no tar files there, or one that cannot be read.
    """
    folder = Path(folder)
    if shards is None:
        paths = sorted(folder.glob("*.tar"))
        if not paths:
            raise ShardError(f"{folder}: no tar files in it. Check the path.")
        shards = ((path.name, read_shard_index(path)) for path in paths)
    listed = []
    partial = folder / f"{INDEX}.partial"
    with pa.OSFile(str(partial), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as stream:
        for number, (name, rows) in enumerate(shards):
            if not _NAME.fullmatch(name):
                raise ShardError(f"{folder / name}: use letters, digits, '_' and '-' only, and no spaces.")
            listed.append({"name": name, "clips": len(rows), "bytes": (folder / name).stat().st_size})
            table = pa.Table.from_pylist([{**row, "shard": number} for row in rows], schema=_SCHEMA)
            stream.write_table(table)
    os.replace(partial, folder / INDEX)
    manifest = {
        "version": _VERSION,
        "index_sha256": _sha256(folder / INDEX),
        "shards": listed,
        **(description or {}),
    }
    _write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    return ShardDataset(folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    """The file has its name only when it is complete, whoever else writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
