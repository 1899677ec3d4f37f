# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Making shards from raw folders: which clips there are, how they are stored, what could not be used.

What goes into which shard is planned beforehand, from the sizes of the files. So shards are independent of
each other and can be made in any order, by any number of workers, and again after an interruption.
"""

import csv
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..processors.media import DEFAULT_LIMITS, MediaError, MediaLimits, read_clip, read_clips, read_duration
from ..processors.media.writing import encode_clip
from .reading import part_of, with_pictures
from .shards import MANIFEST, ShardDataset, read_shard_index, write_index, write_shard
from .tables import VIDEO_SUFFIXES, load_clips


FAILURES = "failures.json"
_PLAN = "plan.json"
_NEIGHBOURS = 5
_LONGEST = 300.0  # seconds that are decoded at once: frames are held in memory
_REENCODED_RATE = 64_000  # bytes a second, roughly, at the default settings


@dataclass(frozen=True)
class RawClip:
    """A file, or a part of one, with what is said in it.

    Args:
        path: of the file; None if it could not be found.
        name: for reports.
        start, end: seconds; None for the beginning and the end of the file.
        captions: sentences about the whole of it.
        sentences: `{"start", "end", "text"}`, seconds of the file.
        more: further fields of `KEY.json`, such as labels.
    """

    path: str | None
    name: str
    start: float | None = None
    end: float | None = None
    captions: list[str] = field(default_factory=list)
    sentences: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardSettings:
    """How clips are stored.

    Args:
        reencode: store small re-encoded parts instead of the files as they are.
        segment_seconds: re-encoded parts are cut into equal segments of about this length; None keeps each in
            one piece, unless it is longer than five minutes.
        size: pixels of the shorter side of re-encoded frames.
        fps, sampling_rate: of re-encoded parts.
    """

    reencode: bool = False
    segment_seconds: float | None = None
    size: int = 256
    fps: float = 10.0
    sampling_rate: int = 48_000


@dataclass(frozen=True)
class ShardTask:
    """One shard to make. Everything in it can be sent to another process or machine."""

    path: str
    first: int
    clips: list[RawClip]
    settings: ShardSettings
    limits: MediaLimits = DEFAULT_LIMITS


@dataclass(frozen=True)
class ShardReport:
    """What became of a [`ShardTask`]: rows for the index, and `name` and `reason` of each failure."""

    rows: list[dict[str, Any]]
    failures: list[dict[str, str]]


def folder_clips(folder: str | os.PathLike, split: str) -> list[RawClip]:
    """Clips of a folder in the layout of `datasets`' videofolder, see [`load_clips`]."""
    table = load_clips(folder, split)
    used = {"video", "captions", "sentences", "start", "end"}
    others = [name for name in table.column_names if name not in used]
    clips = []
    for row in table:
        path = row["video"]["path"]
        clips.append(
            RawClip(
                path,
                os.path.relpath(path, folder),
                row.get("start"),
                row.get("end"),
                row.get("captions") or [],
                row.get("sentences") or [],
                {name: row[name] for name in others},
            )
        )
    return clips


def howto100m_clips(folder: str | os.PathLike, annotations: str | os.PathLike) -> list[RawClip]:
    """Videos with narration in the style of HowTo100M.

    Args:
        folder: holds `VIDEO_ID.mp4` (or another container), with all subfolders.
        annotations: `caption.json` or `raw_caption.json`, `{VIDEO_ID: {"start": [...], "end": [...],
            "text": [...]}}`; or a folder with `VIDEO_ID.csv` of the columns start, end and text.

    Raises:
        ValueError: annotations that are not as described.
    """
    files = _files(folder)
    clips = []
    for video, columns in _narrations(Path(annotations)):
        try:
            sentences = [
                {"start": _seconds(start), "end": _seconds(end), "text": " ".join(str(text).split())}
                for start, end, text in zip(columns["start"], columns["end"], columns["text"], strict=True)
            ]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{annotations}: {video!r} needs lists `start`, `end` and `text` of one length ({error!r})."
            ) from error
        spoken = [sentence for sentence in sentences if sentence["text"]]
        clips.append(RawClip(files.get(video), video, sentences=spoken))
    return clips


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is no time")
    return seconds


def _narrations(annotations: Path) -> Iterator[tuple[str, Any]]:
    if annotations.is_dir():
        for path in sorted(annotations.glob("*.csv")):
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise ValueError(f"{path}: cannot be read as CSV ({error}). Mend or remove it.") from error
            names = ("start", "end", "text")
            yield path.stem, {name: [row.get(name) for row in rows] for name in names}
        return
    try:
        videos = json.loads(annotations.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{annotations}: cannot be read as JSON ({error}).") from error
    if not isinstance(videos, dict):
        raise ValueError(f"{annotations}: must be an object with the videos' names as keys.")
    yield from videos.items()


def audioset_clips(folder: str | os.PathLike, annotations: str | os.PathLike) -> list[RawClip]:
    """Parts of videos in the style of AudioSet's segment lists; without text, labels are kept as `labels`.

    Args:
        folder: holds `YTID.mp4` (or another container), with all subfolders: the whole videos, on whose clock
            the times are.
        annotations: CSV file with lines `YTID, start_seconds, end_seconds, positive_labels`; `#` begins a
            comment.

    Raises:
        ValueError: annotations that are not as described.
    """
    files = _files(folder)
    clips = []
    try:
        with open(annotations, newline="", encoding="utf-8") as file:
            lines = (line for line in file if line.strip() and not line.startswith("#"))
            for row in csv.reader(lines, skipinitialspace=True):
                try:
                    video, start, end, labels = row
                    part = float(start), float(end)
                except ValueError as error:
                    raise ValueError(
                        f"{annotations}: {row!r} is not `YTID, start_seconds, end_seconds, positive_labels`."
                    ) from error
                more = {"labels": labels.split(",")}
                clips.append(RawClip(files.get(video), f"{video} at {part[0]:g} s", *part, more=more))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{annotations}: cannot be read ({error}).") from error
    return clips


def _files(folder: str | os.PathLike) -> dict[str, str]:
    """Video files by their names without suffix."""
    paths = sorted(
        path for path in Path(folder).absolute().rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES
    )
    if not paths:
        raise ValueError(f"{folder}: no video files in this folder. Check the path.")
    found: dict[str, str] = {}
    for path in paths:
        if path.stem in found:
            raise ValueError(
                f"{path} and {found[path.stem]} both are the video {path.stem!r}: rename or remove one."
            )
        found[path.stem] = str(path)
    return found


def prepare_shards(
    clips: Sequence[RawClip],
    output_dir: str | os.PathLike,
    settings: ShardSettings = ShardSettings(),
    shard_bytes: int = 1 << 30,
    run: Callable[[Callable[[ShardTask], ShardReport], list[ShardTask]], Iterable[ShardReport]] = map,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> tuple[ShardDataset, list[dict[str, str]]]:
    """Make shards, or go on making them after an interruption.

    Args:
        clips: in the order in which they are to stand in the shards.
        output_dir: becomes the folder of shards; `failures.json` in it lists what could not be used.
        settings: how clips are stored.
        shard_bytes: about so much goes into a shard, by the sizes of the files.
        run: calls a function for each of a list of tasks and gives the results in order, such as
            `map` or [`run_tasks`].
        limits: what a file may cost, and whether it is decoded in a process of its own.

    Returns:
        The shards, and the failures: `name` and `reason`.

    Raises:
        ValueError: no clips, or a folder that holds something else.
    """
    folder = Path(output_dir).absolute()  # workers of a cluster begin elsewhere
    tasks = [replace(task, limits=limits) for task in _plan(clips, folder, settings, shard_bytes)]
    plan = _hash_of(_contents(task) for task in tasks)
    if not tasks:
        raise ValueError(f"{folder}: there are no clips to put into shards.")
    if (folder / MANIFEST).is_file() and _read(folder / MANIFEST).get("plan") == plan:
        return ShardDataset(folder), _read(folder / FAILURES)
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _PLAN).is_file() or _read(folder / _PLAN) != plan:
            raise ValueError(
                f"{folder}: holds something else than the beginning of these shards. Choose another folder, "
                "or remove this one."
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _PLAN).write_text(json.dumps(plan))
    failures: list[dict[str, str]] = []

    def index() -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for task, report in zip(tasks, run(make_shard, tasks), strict=True):
            failures.extend(report.failures)
            yield Path(task.path).name, report.rows
        (folder / FAILURES).write_text(json.dumps(failures, indent=1))

    dataset = write_index(folder, index(), {"plan": plan})
    for task in tasks:
        _failures_of(task).unlink(missing_ok=True)
    (folder / _PLAN).unlink()
    return dataset, failures


def _contents(task: ShardTask) -> dict[str, Any]:
    """What the shard depends on."""
    contents = {**asdict(task), "path": Path(task.path).name}
    del contents["limits"]
    return contents


def _hash_of(contents: Iterable[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for part in contents:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _plan(
    clips: Sequence[RawClip], folder: Path, settings: ShardSettings, shard_bytes: int
) -> list[ShardTask]:
    """Consecutive clips, by the sizes of their files, or of what re-encoding is likely to make of them."""
    groups: list[list[RawClip]] = []
    filled = 0.0
    for clip in clips:
        size = float(os.path.getsize(clip.path)) if clip.path and os.path.exists(clip.path) else 0.0
        seconds = math.inf if clip.end is None else clip.end - (clip.start or 0.0)
        if settings.reencode and math.isfinite(seconds):
            size = _REENCODED_RATE * max(0.0, seconds)
        if not groups or filled + size > shard_bytes:
            groups.append([])
            filled = 0.0
        groups[-1].append(clip)
        filled += size
    firsts = np.cumsum([0, *map(len, groups)])
    return [
        ShardTask(str(folder / f"shard-{number:06d}.tar"), int(firsts[number]), group, settings)
        for number, group in enumerate(groups)
    ]


def make_shard(task: ShardTask) -> ShardReport:
    """Make one shard, unless it is there."""
    path = Path(task.path)
    if not path.is_file():
        failures: list[dict[str, str]] = []

        def members() -> Iterator[tuple[str, dict[str, Any], bytes]]:
            for number, clip in enumerate(task.clips, start=task.first):
                yield from _members(f"{number:09d}", clip, task, failures)
            # Before the shard has its name: who finds the shard finds its failures.
            _failures_of(task).write_text(json.dumps(failures))

        write_shard(path, members())
    return ShardReport(read_shard_index(path), _read(_failures_of(task)))


def _failures_of(task: ShardTask) -> Path:
    return Path(task.path).with_suffix(".failures.json")


def _members(
    key: str, clip: RawClip, task: ShardTask, failures: list[dict[str, str]]
) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """What a shard gets of a clip; nothing of it if it cannot be decoded."""
    # Columns of the user's stay as they are; `__source__` is ours where `source` is one of them.
    text = {"source": clip.name, **clip.more, "captions": clip.captions}
    if "source" in clip.more:
        text["__source__"] = clip.name
    try:
        if clip.path is None:
            raise MediaError(clip.name, "no such file", "Add it to the folder.")
        part_of({"name": clip.name, "start": clip.start, "end": clip.end})
        if task.settings.reencode:
            parts = _segments(clip, task)
        else:
            _check_decodable(clip, task.limits)
            content = Path(clip.path).read_bytes()
            yield key, {**text, "sentences": clip.sentences, "start": clip.start, "end": clip.end}, content
            return
    except (MediaError, OSError) as error:
        failures.append(_failure(clip.name, error))
        return
    for number, (start, end) in enumerate(parts):
        sentences = sentences_around(clip.sentences, start, end)
        try:
            content = _cut(clip.path, start, end, task)
        except (MediaError, OSError) as error:
            failures.append(_failure(f"{clip.name} at {start:g} s", error))
            continue
        part = {"source_start": start, **text, "sentences": sentences, "start": None, "end": None}
        yield f"{key}-{number:05d}", part, content


def _failure(name: str, error: Exception) -> dict[str, str]:
    reason = error.reason if isinstance(error, MediaError) else f"cannot be read ({error})"
    return {"name": name, "reason": reason}


def _check_decodable(clip: RawClip, limits: MediaLimits) -> None:
    """Decode a second at the beginning and one in the middle of what is to be used."""
    assert clip.path is not None

    def places(length: float) -> list[float]:
        first, last = clip.start or 0.0, min(length, clip.end or length)
        return [first, (first + max(first, last)) / 2]

    rates = {"fps": 2.0, "sampling_rate": 8000}
    for part in read_clips(clip.path, places, duration=1.0, size=32, limits=limits, **rates):
        with_pictures(part)


def _segments(clip: RawClip, task: ShardTask) -> list[tuple[float, float]]:
    """Parts of equal length, (start, end) in seconds."""
    assert clip.path is not None
    length = read_duration(clip.path, task.limits)
    first, last = clip.start or 0.0, min(length, clip.end or length)
    if first >= last:
        raise MediaError(clip.name, "the file ends before the part begins", "Check the file.")
    wanted = task.settings.segment_seconds
    count = max(1, round((last - first) / wanted) if wanted else math.ceil((last - first) / _LONGEST))
    edges = np.linspace(first, last, count + 1).tolist()
    return list(itertools.pairwise(edges))


def _cut(path: str, start: float, end: float, task: ShardTask) -> bytes:
    settings = task.settings
    rates = {"fps": settings.fps, "sampling_rate": settings.sampling_rate}
    window = {"start": start, "duration": end - start, "size": settings.size}
    clip = read_clip(path, limits=task.limits, **window, **rates)
    return encode_clip(with_pictures(clip), **rates)


def sentences_around(sentences: Sequence[dict[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    """Sentences of a part of a file, on the part's own clock.

    With five before it and five after it, which may be the nearest ones of a window in it (see
    [`nearest_sentences`]).

    Args:
        sentences: `{"start", "end", "text"}`, seconds of the file.
        start, end: of the part.
    """
    before = sorted((s for s in sentences if s["end"] < start), key=lambda s: s["end"])[-_NEIGHBOURS:]
    after = sorted((s for s in sentences if s["start"] > end), key=lambda s: s["start"])[:_NEIGHBOURS]
    within = [s for s in sentences if s["end"] >= start and s["start"] <= end]
    return [{**s, "start": s["start"] - start, "end": s["end"] - start} for s in (*before, *within, *after)]
