# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Making shards from raw folders: which clips there are, how they are stored, what could not be used.

A plan, made from the sizes of the files and kept, says which clips go into which shard, and how old the files
are. So shards can be made in any order, by any number of workers, and again after an interruption or a change
of files. A shard gets its name when it is complete; a list of what could not be used lies beside it.
"""

import csv
import functools
import hashlib
import io
import itertools
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from transformers.utils import logging

from ..files import is_untouched, one_writer, write_whole
from ..processors.media import (
    DEFAULT_LIMITS,
    MediaError,
    MediaLimits,
    MediaSource,
    read_clip,
    read_clips,
    read_duration,
)
from ..processors.media.writing import encode_frames
from .captions import usable_captions, usable_sentences, usable_text
from .folders import read_csv, read_text
from .reading import part_of, source_of, with_pictures
from .shards import MANIFEST, ShardDataset, ShardError, read_shard_index, write_index, write_shard
from .tables import VIDEO_SUFFIXES, load_clips


logger = logging.get_logger(__name__)

Result = TypeVar("Result")

FAILURES = "failures.json"
_PLAN = "plan.json"
_RESERVED = frozenset(
    {"caption", "captions", "end", "more", "sentences", "source", "source_start", "start", "text"}
)
_NEIGHBOURS = 5
_LONGEST = 300.0  # seconds that are decoded at once: frames are held in memory
_REENCODED_RATE = 64_000  # bytes a second, roughly, at the default settings


@dataclass(frozen=True)
class RawClip:
    """A file, or a part of one, with its texts.

    Args:
        path: of the file; None if it could not be found.
        name: for reports.
        start, end: seconds; None for the beginning and the end of the file.
        captions: of the whole clip.
        sentences: `{"start", "end", "text"}`, seconds of the file.
        more: further fields of `KEY.json`, such as labels; fields with names used there go under `more`.
        left_out: `name` and `reason` of texts that cannot be used.
    """

    path: str | None
    name: str
    start: float | None = None
    end: float | None = None
    captions: list[str] = field(default_factory=list)
    sentences: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)

    def cleaned(self) -> "RawClip":
        """The clip without blank captions, and without sentences that lack time or text (these are listed);
        ValueError for captions that are not texts."""
        try:
            captions = usable_captions(self.captions)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}. Correct its captions.") from error
        sentences, bad = usable_sentences(self.sentences)
        left_out = [
            {"name": f"{self.name}, sentence {', '.join(str(n + 1) for n in numbers)}", "reason": reason}
            for reason, numbers in bad.items()
        ]
        return replace(self, captions=captions, sentences=sentences, left_out=[*self.left_out, *left_out])


@dataclass(frozen=True)
class ShardSettings:
    """How clips are stored.

    Args:
        reencode: store small re-encoded parts instead of the files as they are.
        segment_seconds: re-encoded parts are cut into equal segments of about this length; None: of at most
            five minutes.
        size: pixels of the shorter side of re-encoded frames.
        fps, sampling_rate: of re-encoded parts.

    Raises:
        ValueError: `segment_seconds` without `reencode`, or not positive.
    """

    reencode: bool = False
    segment_seconds: float | None = None
    size: int = 256
    fps: float = 10.0
    sampling_rate: int = 48_000

    def __post_init__(self) -> None:
        seconds = self.segment_seconds
        if seconds is not None and not (self.reencode and 0 < seconds < math.inf):
            raise ValueError(
                f"`segment_seconds` ({seconds}) must be positive, and needs `reencode`: files stored as they "
                "are stay whole."
            )


@dataclass(frozen=True)
class ShardTask:
    """One shard to make. Everything in it can be sent to another process or machine."""

    path: str  # of the shard
    first: int  # number of its first clip in the whole
    clips: list[RawClip]
    missing: frozenset[int]  # places in `clips` whose files were not there when the shards were planned
    settings: ShardSettings
    limits: MediaLimits = DEFAULT_LIMITS


@dataclass(frozen=True)
class ShardReport:
    """Result of a [`ShardTask`]: rows for the index, and `name` and `reason` of each failure."""

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
        clip = RawClip(
            path,
            os.path.relpath(path, folder),
            row.get("start"),
            row.get("end"),
            row.get("captions") or [],
            row.get("sentences") or [],
            {name: row[name] for name in others},
        )
        clips.append(clip.cleaned())
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
            rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
            sentences = [{"start": start, "end": end, "text": text} for start, end, text in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{annotations}: {video!r} needs lists `start`, `end` and `text` of one length ({error!r})."
            ) from error
        clip = RawClip(files.get(video), video, sentences=sentences).cleaned()
        joined = [{**sentence, "text": " ".join(sentence["text"].split())} for sentence in clip.sentences]
        clips.append(replace(clip, sentences=joined))
    return clips


def _narrations(annotations: Path) -> Iterator[tuple[str, Any]]:
    names = ("start", "end", "text")
    if annotations.is_dir():
        for path in sorted(annotations.glob("*.csv")):
            rows = read_csv(path)
            if not all(set(names) <= row.keys() for row in rows[:1]):
                raise ValueError(f"{path}: no columns {', '.join(names)}. Mend or remove it.")
            yield path.stem, {name: [row[name] for row in rows] for name in names}
        return
    try:
        videos = json.loads(annotations.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{annotations}: cannot be read as JSON ({error}).") from error
    if not isinstance(videos, dict):
        raise ValueError(f"{annotations}: must be an object with the videos' names as keys.")
    yield from videos.items()


def audioset_clips(folder: str | os.PathLike, annotations: str | os.PathLike) -> list[RawClip]:
    """Parts of videos in the style of AudioSet's segment lists; without text, labels are kept as `labels`.

    Args:
        folder: holds the whole videos `YTID.mp4` (or another container), with all subfolders.
        annotations: CSV file with lines `YTID, start_seconds, end_seconds, positive_labels`; `#` begins a
            comment.

    Raises:
        ValueError: annotations that are not as described.
    """
    files = _files(folder)
    clips = []
    try:
        text = io.StringIO(read_text(annotations), newline="")
        lines = (line for line in text if line.strip() and not line.startswith("#"))
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
    except (csv.Error, OSError) as error:
        raise ValueError(f"{annotations}: cannot be read ({error}).") from error
    return clips


def _files(folder: str | os.PathLike) -> dict[str, str]:
    """Video files by their names without suffix."""

    def unreadable(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror}). Mend it, then try again.")

    paths = sorted(
        Path(place, name)
        for place, _, names in os.walk(Path(folder).absolute(), onerror=unreadable)
        for name in names
        if Path(name).suffix.lower() in VIDEO_SUFFIXES
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
    """Make shards. The same call continues after an interruption, repairs missing or damaged parts, and makes
    shards again whose files have another size or time. Shards of files that are gone stay.

    Args:
        clips: in the order for the shards.
        output_dir: the folder of shards; `failures.json` in it lists what could not be used.
        shard_bytes: approximate size of a shard.
        run: calls a function for each of a list of tasks and gives the results in order, such as
            `map` or [`run_tasks`].
        limits: what a file may cost, and whether it is decoded in another process.

    Returns:
        The shards, and `name` and `reason` of what could not be used: clips, and sentences of others.

    Raises:
        ValueError: no clips, or a folder that holds something else.
        FolderBusy: another process makes them.
        ShardError: storage fails.
    """
    folder = Path(output_dir).absolute()  # workers of a cluster have other working folders
    clips = [clip.cleaned() for clip in clips]
    if not clips:
        raise ValueError(f"{folder}: there are no clips to put into shards.")
    plan = _hash_of(clips, settings, shard_bytes)
    if (done := _finished(folder, plan, clips)) is not None:
        return done
    left_out = [entry for clip in clips for entry in clip.left_out]
    if left_out:
        named = "; ".join(f"{entry['name']!r}: {entry['reason']}" for entry in left_out[:5])
        logger.warning(f"{folder}: sentences are left out ({named}{'; ...' if left_out[5:] else ''}).")
    if not is_untouched(folder):
        _kept_plan(folder, plan)
    with one_writer(folder):
        if (done := _finished(folder, plan, clips)) is not None:  # by an earlier writer
            return done
        if fresh := is_untouched(folder):
            state = functools.cache(_state_in_plan)  # clips are mostly parts of few files
            files = [state(clip.path) for clip in clips]
            made = {"plan": plan, "counts": _plan(clips, files, settings, shard_bytes), "files": files}
            write_whole(folder / _PLAN, json.dumps(made).encode())
        kept = _kept_plan(folder, plan)
        if not fresh and (changed := _changed(clips, kept["files"])):
            _forget(folder, kept, changed)
        tasks = _tasks(clips, folder, settings, limits, kept)
        failures = left_out

        def index() -> Iterator[tuple[str, list[dict[str, Any]]]]:
            for task, report in zip(tasks, run(make_shard, tasks), strict=True):
                failures.extend(report.failures)
                yield Path(task.path).name, report.rows
            write_whole(folder / FAILURES, json.dumps(failures, indent=1).encode())

        return write_index(folder, index(), {"plan": plan}), failures


def _finished(
    folder: Path, plan: str, clips: Sequence[RawClip]
) -> tuple[ShardDataset, list[dict[str, str]]] | None:
    """The shards in a folder, if they are complete, as planned and of files that have not changed."""
    with suppress(OSError, ValueError, AttributeError):  # damaged: made again from the shards
        if _read(folder / MANIFEST).get("plan") == plan and not _changed(
            clips, _kept_plan(folder, plan)["files"]
        ):
            return ShardDataset(folder), _read(folder / FAILURES)
    return None


def _kept_plan(folder: Path, plan: str) -> dict[str, Any]:
    """The plan in a folder: `counts` of clips, and `files`, their states."""
    try:
        kept = _read(folder / _PLAN)
        if kept["plan"] == plan and len(kept["files"]) == sum(kept["counts"]):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{folder}: holds something else than the beginning of these shards. Choose another folder, "
        "or remove this one."
    )


def _state(path: str) -> list[int]:
    """What changes when a file is replaced: its size in bytes, and its time in nanoseconds."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _changed(clips: Sequence[RawClip], files: Sequence[list[int] | None]) -> dict[int, list[int]]:
    """Index -> state of the files that are others than when the shards were planned, and not gone."""
    changed = {}
    state = functools.cache(_state)
    for number, (clip, before) in enumerate(zip(clips, files, strict=True)):
        with suppress(OSError, ValueError):
            if clip.path is not None and (now := state(clip.path)) != before:
                changed[number] = now
    return changed


def _forget(folder: Path, kept: dict[str, Any], changed: dict[int, list[int]]) -> None:
    """Remove the shards of changed files, and note how the files are now."""
    logger.warning(f"{folder}: {len(changed)} files have changed; their shards are made again.")
    (folder / MANIFEST).unlink(missing_ok=True)
    for number in {int(n) for n in np.searchsorted(np.cumsum(kept["counts"]), list(changed), side="right")}:
        _shard(folder, number).unlink(missing_ok=True)
    for number, state in changed.items():
        kept["files"][number] = state
    write_whole(folder / _PLAN, json.dumps(kept).encode())


def _hash_of(clips: Sequence[RawClip], settings: ShardSettings, shard_bytes: int) -> str:
    """Hash of what the shards depend on, except the content of the files."""
    digest = hashlib.sha256(json.dumps([asdict(settings), shard_bytes]).encode())
    for clip in clips:
        digest.update(json.dumps(asdict(clip), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _plan(
    clips: Sequence[RawClip],
    files: Sequence[list[int] | None],
    settings: ShardSettings,
    shard_bytes: int,
) -> list[int]:
    """Number of consecutive clips in each shard, by their (estimated) sizes."""
    counts: list[int] = []
    filled = 0.0
    for clip, state in zip(clips, files, strict=True):
        size = float(state[0]) if state else 0.0
        seconds = math.inf if clip.end is None else clip.end - (clip.start or 0.0)
        if settings.reencode and math.isfinite(seconds):
            size = _REENCODED_RATE * max(0.0, seconds)
        if not counts or filled + size > shard_bytes:
            counts.append(0)
            filled = 0.0
        counts[-1] += 1
        filled += size
    return counts


def _state_in_plan(path: str | None) -> list[int] | None:
    """[`_state`] of a file, None for a missing one; ShardError if storage fails."""
    if path is None:
        return None
    try:
        return _state(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if isinstance(error, OSError) and _is_away(path):
            raise _storage_fails(path, error) from error
        return None
    except OSError as error:
        raise _storage_fails(path, error) from error


def _is_away(path: str) -> bool:
    """Whether the folder of a file is missing or empty, as when nothing is mounted."""
    try:
        return not any(os.scandir(os.path.dirname(os.path.realpath(path))))
    except OSError:
        return True


def _storage_fails(path: str, error: OSError) -> ShardError:
    return ShardError(
        f"{path}: cannot be read ({error.strerror or error}). Check that its storage works, then run the "
        "same command again to continue."
    )


def _tasks(
    clips: Sequence[RawClip],
    folder: Path,
    settings: ShardSettings,
    limits: MediaLimits,
    kept: dict[str, Any],
) -> list[ShardTask]:
    edges = np.cumsum([0, *kept["counts"]]).tolist()
    tasks = []
    for number, (first, last) in enumerate(itertools.pairwise(edges)):
        away = frozenset(place for place, state in enumerate(kept["files"][first:last]) if state is None)
        path = str(_shard(folder, number))
        tasks.append(ShardTask(path, first, list(clips[first:last]), away, settings, limits))
    return tasks


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.tar"


def make_shard(task: ShardTask) -> ShardReport:
    """Make one shard unless it exists and is complete; ShardError if storage fails."""
    path = Path(task.path)
    rows = None
    with suppress(ShardError):  # missing or damaged
        rows, _ = read_shard_index(path)
    if rows is None:
        write_shard(path, _all_members(task))
        rows, _ = read_shard_index(path)
    failures = _failures_of(task)
    return ShardReport(rows, _read(failures) if failures.exists() else [])


def _all_members(task: ShardTask) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    failures: list[dict[str, str]] = []
    for place, clip in enumerate(task.clips):
        yield from _members(f"{task.first + place:09d}", clip, place in task.missing, task, failures)
    # Before the shard gets its name, so that a shard always has its list.
    if failures:
        write_whole(_failures_of(task), json.dumps(failures).encode())
    else:
        _failures_of(task).unlink(missing_ok=True)


def _failures_of(task: ShardTask) -> Path:
    return Path(task.path).with_suffix(".failures.json")


def _members(
    key: str, clip: RawClip, missing: bool, task: ShardTask, failures: list[dict[str, str]]
) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Members of a shard for one clip, none if it cannot be decoded; `missing`: at the time of the plan."""
    reserved = {name: value for name, value in clip.more.items() if name in _RESERVED}
    more = {name: value for name, value in clip.more.items() if name not in _RESERVED}
    if reserved:
        more["more"] = reserved
    text = {**more, "source": usable_text(clip.name), "captions": clip.captions}
    try:
        if clip.path is None or (missing and not os.path.exists(clip.path)):
            raise MediaError(clip.name, "no such file", "Add it to the folder.")
        part_of({"name": clip.name, "start": clip.start, "end": clip.end})
        if task.settings.reencode:
            parts = _decided(clip.path, task.limits, lambda source: _segments(source, clip, task))
        else:
            _decided(clip.path, task.limits, lambda source: _check_decodable(source, clip, task.limits))
            content = _read_whole(clip.path, task.limits)
            yield key, {**text, "sentences": clip.sentences, "start": clip.start, "end": clip.end}, content
            return
    except MediaError as error:
        failures.append({"name": clip.name, "reason": error.reason})
        return
    for number, (start, end) in enumerate(parts):
        sentences = sentences_around(clip.sentences, start, end)
        try:
            content = _decided(
                clip.path, task.limits, functools.partial(_cut, start=start, end=end, task=task)
            )
        except MediaError as error:
            failures.append({"name": f"{clip.name} at {start:g} s", "reason": error.reason})
            continue
        part = {**text, "sentences": sentences, "source_start": start, "start": None, "end": None}
        yield f"{key}-{number:05d}", part, content


def _decided(path: str, limits: MediaLimits, decode: Callable[[MediaSource], Result]) -> Result:
    """The result of `decode` for a file. An error is the file's fault (MediaError) if decoding its bytes in
    memory fails too, else the storage's (ShardError)."""
    try:
        return decode(path)
    except (MediaError, OSError):
        return decode(source_of({"path": path, "bytes": _read_whole(path, limits)}))


def _read_whole(path: str, limits: MediaLimits) -> bytes:
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            raise MediaError(path, "no file but a folder, device or pipe", "Leave it out.")
        if state.st_size > limits.max_bytes:
            raise MediaError(path, f"more than {limits.max_bytes} bytes", "Raise MediaLimits.max_bytes.")
        try:
            file = open(path, "rb")  # noqa: SIM115 - closed below
        except PermissionError as error:  # of this file only
            raise MediaError(path, f"cannot be read ({error.strerror})", "Allow it.") from error
        with file:
            return file.read()
    except OSError as error:
        raise _storage_fails(path, error) from error


def _check_decodable(source: MediaSource, clip: RawClip, limits: MediaLimits) -> None:
    """Decode a second at the beginning and one in the middle of what is to be used."""

    def places(length: float) -> list[float]:
        first, last = clip.start or 0.0, min(length, clip.end or length)
        return [first, (first + max(first, last)) / 2]

    rates = {"fps": 2.0, "sampling_rate": 8000}
    for part in read_clips(source, places, duration=1.0, size=32, limits=limits, **rates):
        with_pictures(part)


def _segments(source: MediaSource, clip: RawClip, task: ShardTask) -> list[tuple[float, float]]:
    """Parts of equal length, (start, end) in seconds."""
    length = read_duration(source, task.limits)
    first, last = clip.start or 0.0, min(length, clip.end or length)
    if first >= last:
        raise MediaError(clip.name, "the file ends before the part begins", "Check the file.")
    wanted = task.settings.segment_seconds
    count = max(1, round((last - first) / wanted) if wanted else math.ceil((last - first) / _LONGEST))
    edges = np.linspace(first, last, count + 1).tolist()
    return list(itertools.pairwise(edges))


def _cut(source: MediaSource, start: float, end: float, task: ShardTask) -> bytes:
    settings = task.settings
    fps, rate = settings.fps, settings.sampling_rate
    window: dict[str, Any] = {"start": start, "duration": end - start, "size": settings.size}
    clip = with_pictures(read_clip(source, limits=task.limits, fps=fps, sampling_rate=rate, **window))
    assert clip.frames is not None
    return encode_frames(clip.frames, fps, clip.waveform, rate)


def sentences_around(sentences: Sequence[dict[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    """Sentences (seconds of the file) of its part from `start` to `end`, in seconds of the part, with five
    before and after it for [`nearest_sentences`]."""
    before = sorted((s for s in sentences if s["end"] < start), key=lambda s: s["end"])[-_NEIGHBOURS:]
    after = sorted((s for s in sentences if s["start"] > end), key=lambda s: s["start"])[:_NEIGHBOURS]
    within = [s for s in sentences if s["end"] >= start and s["start"] <= end]
    return [{**s, "start": s["start"] - start, "end": s["end"] - start} for s in (*before, *within, *after)]
