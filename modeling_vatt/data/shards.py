# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shards: tar files in WebDataset format with an index beside them, so that every clip can be read directly.

A folder of shards holds

- `shard-000000.tar`, ...: for each clip `KEY.json` (captions and source), then `KEY.mp4` (the file, in any
  container);
- `index.arrow`: for each clip its shard, place, length and checksum, and the texts of `KEY.json`;
- `shards.json`: the shards with their sizes, and the checksum of the index.

Training reads single clips by their places in any order, so the sampler alone decides the order, and a run is
resumed at the exact clip.
"""

import io
import json
import math
import os
import posixpath
import re
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pyarrow as pa
from transformers.utils import logging

from ..files import hash_file, whole_file, write_whole
from ..processors.media import MediaError
from .captions import usable_captions, usable_sentences, usable_text
from .tables import VIDEO_SUFFIXES, load_clips


logger = logging.get_logger(__name__)

MANIFEST, INDEX = "shards.json", "index.arrow"
_VERSION = 1
_NAME = re.compile(r"[\w-][\w.-]*\.tar")  # a plain name, inside the folder
_HASH = re.compile(r"[0-9a-f]{64}")
_COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_TEXT_SUFFIXES = frozenset({".json", ".txt"})
_MOST_LINKS = 40  # in a chain, as in Linux
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

    A clip with other bytes than indexed raises `MediaError`, so [`ClipDataset`] skips it. Failing storage
    raises [`ShardError`] and ends the run, as skipping would lose good clips.

    Args:
        folder: folder of shards, or its URL for fsspec (`https://`, `hf://datasets/...`, `s3://`).
        remote: whether URLs are allowed. The index is then fetched into the cache folder of `datasets`, clips
            whenever they are read.

    Attributes:
        table: the index, as `datasets.Dataset` with a row for each clip.
        shards: names of the tar files.
        shard_sizes: clips in each of them.
        fingerprint: checksum of the index, which holds those of all clips.

    Raises:
        ShardError: no shards; missing, truncated or changed ones; an index of something else.
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
        text = {
            "captions": usable_captions(row["captions"]),
            "sentences": usable_sentences(row["sentences"])[0],
        }
        return {**row, **text, "video": {"path": name, "bytes": content}}

    def _read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes of a file of the folder; nothing is kept open, for calls from any process."""
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
        """The index as a checked local file, as Arrow trusts what it maps into memory."""
        path = Path(self.folder, INDEX)
        if is_remote(self.folder):
            path = Path(datasets.config.HF_DATASETS_CACHE, "shards", f"{self.fingerprint}.arrow")
            if not path.is_file() or hash_file(path) != self.fingerprint:
                try:
                    content = self._read(INDEX)
                except OSError as error:
                    raise self._damaged(INDEX) from error
                write_whole(path, content)
        if not path.is_file() or hash_file(path) != self.fingerprint:
            raise self._damaged(INDEX)
        return path

    def _open_index(self, path: Path, sizes: list[int]) -> datasets.Dataset:
        """The index as table with the known columns only: others of an untrusted index could open local
        files."""
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
    """Videos with their captions, undecoded; arguments and errors as of [`load_clips`] and [`ShardDataset`].

    Args:
        data: a folder with a folder of shards for each split, or its URL; or data for [`load_clips`].
        remote: whether a URL is allowed.
    """
    if is_remote(data) or (Path(data).is_dir() and any(Path(data).glob(f"*/{MANIFEST}"))):
        return ShardDataset(f"{os.fspath(data).rstrip('/')}/{split}", remote)
    return load_clips(data, split, video_column, caption_column)


def write_shard(path: str | os.PathLike, clips: Iterable[tuple[str, dict[str, Any], bytes]]) -> None:
    """Write a tar file, which gets its name when it is complete, of `clips`: key (without dots), content of
    `KEY.json`, content of `KEY.mp4`."""
    with whole_file(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, text, media in clips:
            for suffix, content in (("json", json.dumps(text, default=str).encode()), ("mp4", media)):
                member = tarfile.TarInfo(f"{key}.{suffix}")  # its other fields are the same on every machine
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@dataclass(frozen=True)
class _Member:
    """A video or a text in a tar file."""

    name: str  # with folders
    turn: int  # how many members of that name come before it
    content: tarfile.TarInfo  # the file itself, also of a link

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1].lower()

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]


def read_shard_index(path: str | os.PathLike) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows of the index for the clips of a shard, from its content.

    Takes any tar file in WebDataset format: a video, and under the same key a `.json` with `captions` (or
    `caption`, `text`), `sentences`, `start`, `end`, `source`, and a `.txt` with a caption. A key is a name
    without its ending; keys that agree up to the first dot of one of them belong together too. Several videos
    of a key are several clips. Links are followed. Members of the same name belong together in their order.

    Returns:
        Rows; and the numbers of unused members by reason.

    Raises:
        ShardError: no tar file, a damaged or truncated one, invalid text, or members of the same name that
            cannot be assigned.
    """
    name = ""
    try:
        with tarfile.open(path, "r:") as tar:
            members, left_out = _members(tar)
            counts = Counter(member.name for member in members)
            videos = [member for member in members if member.suffix not in _TEXT_SUFFIXES]
            texts = _Texts(tar, members, {video.stem for video in videos})
            several = Counter((video.stem, video.turn) for video in videos)
            rows = []
            for video in videos:
                name = video.name
                columns: list[dict[str, Any]] = []
                for text in texts.of(video):
                    name = text.name
                    if counts[name] != counts[video.name]:
                        raise ValueError(
                            f"it is there {counts[name]} times, {video.name!r} {counts[video.name]} times"
                        )
                    if text.turn == video.turn:
                        columns.append(texts.read(text))
                name = video.name
                crc32 = 0
                for part in _content(tar, video.content):
                    crc32 = zlib.crc32(part, crc32)
                key = video.name if several[video.stem, video.turn] > 1 else video.stem
                key = f"{key}#{video.turn + 1}" if video.turn else key
                place = {"offset": video.content.offset_data, "size": video.content.size, "crc32": crc32}
                rows.append({"key": usable_text(key), **place, **_joined(columns)})
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{path}: no tar file, or a damaged one ({error}). Copy it again.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{path}: cannot understand {name!r} ({error}). Write the shard again.") from error
    return rows, left_out + texts.left_out()


def _members(tar: tarfile.TarFile) -> tuple[list[_Member], Counter[str]]:
    """The videos and texts of a tar file, and the numbers of other members by reason."""
    listed = tar.getmembers()
    _check_end(tar)
    names = [posixpath.normpath(member.name).lstrip("/") for member in listed]
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(name, []).append(number)

    def followed(number: int) -> tarfile.TarInfo | None:
        for _ in range(_MOST_LINKS):
            member = listed[number]
            if not (member.islnk() or member.issym()):
                return member if member.isreg() else None
            target, last = member.linkname, number  # a hard link leads back
            if member.issym():
                target, last = posixpath.join(posixpath.dirname(names[number]), target), len(listed)
            found = [n for n in places.get(posixpath.normpath(target).lstrip("/"), []) if n < last]
            if not found:
                return None
            number = found[-1]
        return None

    members: list[_Member] = []
    left_out: Counter[str] = Counter()
    turns: Counter[str] = Counter()
    for number, (name, member) in enumerate(zip(names, listed, strict=True)):
        suffix = posixpath.splitext(name)[1].lower()
        if member.isdir():
            continue
        if posixpath.basename(name).startswith("."):
            left_out["hidden files"] += 1
        elif suffix not in VIDEO_SUFFIXES | _TEXT_SUFFIXES:
            left_out[f"{suffix} files" if suffix else "files without an ending"] += 1
        elif (content := followed(number)) is None:
            left_out["links to nothing in the shard, devices and pipes"] += 1
        elif content.issparse():
            raise tarfile.ReadError(f"{name!r} is stored as sparse file: write the shard without --sparse")
        else:
            members.append(_Member(name, turns[name], content))
            turns[name] += 1
    return members, left_out


def _check_end(tar: tarfile.TarFile) -> None:
    """Check the blocks of zeros at the end, as `tarfile` stops at anything that is not a header."""
    file: Any = tar.fileobj
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut off after {tar.offset} bytes: the end mark is missing")
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"no header of a member at byte {tar.offset}")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError(f"more after the end mark at byte {tar.offset}; were tar files joined?")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    file: Any = tar.fileobj
    file.seek(member.offset_data)
    left = member.size
    while left:
        part = file.read(min(left, 1 << 20))
        if not part:
            raise tarfile.ReadError(f"unexpected end of data in {member.name!r}")
        left -= len(part)
        yield part


class _Texts:
    """The texts of a tar file by video."""

    def __init__(self, tar: tarfile.TarFile, members: list[_Member], stems: set[str]) -> None:
        self.tar = tar
        self.by_stem: dict[str, list[_Member]] = {}
        self.by_plain: dict[str, list[_Member]] = {}  # those without a video of the same name
        # JSON first, as its captions come first.
        texts = [member for member in members if member.suffix in _TEXT_SUFFIXES]
        for text in sorted(texts, key=lambda text: text.suffix):
            self.by_stem.setdefault(text.stem, []).append(text)
            if text.stem not in stems:
                self.by_plain.setdefault(_plain(text.stem), []).append(text)
        self.columns: dict[tuple[str, int], dict[str, Any]] = {}
        self.dropped: Counter[str] = Counter()

    def of(self, video: _Member) -> list[_Member]:
        plain = _plain(video.stem)
        others = [text for text in self.by_plain.get(plain, []) if plain in (video.stem, text.stem)]
        return [*self.by_stem.get(video.stem, []), *(text for text in others if text.stem != video.stem)]

    def read(self, text: _Member) -> dict[str, Any]:
        """What it says; each is read once."""
        place = text.name, text.turn
        if place not in self.columns:
            content = b"".join(_content(self.tar, text.content)).decode("utf-8-sig")
            fields = json.loads(content) if text.suffix == ".json" else {"captions": content}
            self.columns[place] = _text_of(fields, self.dropped)
        return self.columns[place]

    def left_out(self) -> Counter[str]:
        total = sum(map(len, self.by_stem.values()))
        return self.dropped + Counter({"texts without a video": total - len(self.columns)})


def _plain(stem: str) -> str:
    """A key in WebDataset's sense, up to the first dot."""
    folder, name = posixpath.split(stem)
    return posixpath.join(folder, name.partition(".")[0])


def _text_of(text: Any, dropped: Counter[str]) -> dict[str, Any]:
    """Columns of the index from a text; sentences without time or text are counted in `dropped`."""
    if not isinstance(text, dict):
        raise ValueError("no JSON object")
    captions = (usable_captions(text.get(name)) for name in ("captions", "caption", "text"))
    sentences, bad = usable_sentences(text.get("sentences"))
    dropped.update({f"sentences: {reason}": len(numbers) for reason, numbers in bad.items()})
    times = {name: _time(text.get(name)) for name in ("start", "end")}
    source = None if text.get("source") is None else usable_text(str(text["source"]))
    return {"captions": next(filter(None, captions), []), "sentences": sentences, "source": source, **times}


def _time(value: Any) -> float | None:
    """Seconds; NaN for invalid values, so that the clip is skipped and named."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _joined(texts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several texts of a clip joined: all captions, other fields of the first text."""
    row: dict[str, Any] = {"captions": list(dict.fromkeys(c for text in texts for c in text["captions"]))}
    for name, nothing in (("sentences", []), ("source", None), ("start", None), ("end", None)):
        row[name] = next((text[name] for text in texts if text[name] not in ([], None)), nothing)
    return row


def write_index(
    folder: str | os.PathLike,
    shards: Iterable[tuple[str, list[dict[str, Any]]]] | None = None,
    description: dict[str, Any] | None = None,
) -> ShardDataset:
    """Make the index of a folder of shards, and open it. Unused members are counted in a warning and in
    `shards.json`.

    Args:
        folder: holds the tar files.
        shards: name and [`read_shard_index`] of each, in order; of all `*.tar` of the folder by default.
        description: more for `shards.json`.

    Raises:
        ShardError: no tar files there, one that cannot be read, or no video in any.
    """
    folder = Path(folder)
    left_out: Counter[str] = Counter()
    foreign = shards is None
    if shards is None:
        paths = sorted(folder.glob("*.tar"))
        if not paths:
            raise ShardError(f"{folder}: no tar files in it. Check the path.")
        shards = _read_all(paths, left_out)
        left_out["compressed tar files"] += sum(
            _COMPRESSED.search(path.name) is not None for path in folder.iterdir()
        )
    listed = []
    with (
        whole_file(folder / INDEX) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_stream(file, _SCHEMA) as stream,
    ):
        for number, (name, rows) in enumerate(shards):
            if not _NAME.fullmatch(name):
                raise ShardError(f"{folder / name}: use letters, digits, '_' and '-' only, and no spaces.")
            listed.append({"name": name, "clips": len(rows), "bytes": (folder / name).stat().st_size})
            table = pa.Table.from_pylist([{**row, "shard": number} for row in rows], schema=_SCHEMA)
            stream.write_table(table)
    left_out += Counter()  # without what did not occur
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    if foreign and not any(shard["clips"] for shard in listed):
        raise ShardError(
            f"{folder}: no videos in the tar files ({reasons or 'they are empty'}). Name the files of "
            "a clip alike: KEY.mp4, KEY.txt or KEY.json."
        )
    if reasons:
        logger.warning(f"{folder}: not used of these shards: {reasons}.")
    manifest = {
        "version": _VERSION,
        "index_sha256": hash_file(folder / INDEX),
        "shards": listed,
        **({"left_out": dict(left_out)} if left_out else {}),
        **(description or {}),
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
    return ShardDataset(folder)


def _read_all(paths: Iterable[Path], left_out: Counter[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for path in paths:
        rows, others = read_shard_index(path)
        left_out.update(others)
        yield path.name, rows
