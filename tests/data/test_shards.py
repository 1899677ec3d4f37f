# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shards: what goes in comes out, in any order, exactly once; what is damaged is named."""

import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import re
import shutil
import signal
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from clip_folders import make_folder, small_processor, write_clip
from media_factory import click_times, clicks, frame_numbers, numbered_frames, tone, truncate, write_media
from processes import FORKS
from small_models import small_config
from torch.utils.data import DataLoader

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import (
    ClipBatch,
    ClipDataset,
    RawClip,
    ShardDataset,
    ShardError,
    ShardSettings,
    SkippedClip,
    StepSampler,
    all_captions,
    audioset_clips,
    collate_clips,
    decode_clips,
    folder_clips,
    howto100m_clips,
    load_clips,
    nearest_sentences,
    open_clips,
    prepare_shards,
    run_tasks,
    shuffle_shards,
    write_index,
    write_shard,
)
from modeling_vatt.data.preparation import sentences_around
from modeling_vatt.data.reading import DECODED
from modeling_vatt.processors import VattAugmentation, read_clip, read_clips
from modeling_vatt.training import Pretrainer, PretrainingArguments


COUNT = 12
SHARD_BYTES = 20_000  # a few clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Raw videos; the sixth is cut off."""
    root = make_folder(tmp_path_factory.mktemp("raw") / "videos", COUNT + 1, silent=[1], speechless=[2])
    broken = root / "train" / "clip05.mp4"
    truncate(broken, broken, 0.2)
    return root


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory) -> Path:
    """The same in shards. Tests that change them work on a copy."""
    root = tmp_path_factory.mktemp("shards") / "shards"
    prepare_shards(folder_clips(folder, "train"), root / "train", shard_bytes=SHARD_BYTES)
    return root


def copy_of(shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards / "train", tmp_path / "train"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- making them ---


def test_shards_hold_the_original_bytes_and_what_was_said(folder, shards):
    dataset = open_clips(shards, "train")
    assert isinstance(dataset, ShardDataset) and len(dataset) == COUNT
    assert len(dataset.shards) >= 3 and sum(dataset.shard_sizes) == COUNT
    kept = [number for number in range(COUNT + 1) if number != 5]
    for index, number in enumerate(kept):
        row = dataset[index]
        assert row["video"]["bytes"] == (folder / "train" / f"clip{number:02d}.mp4").read_bytes()
        assert row["source"] == f"train/clip{number:02d}.mp4"
    table = load_clips(folder, "train")
    assert list(all_captions(dataset)) == [captions for i, captions in enumerate(table["captions"]) if i != 5]
    failures = json.loads((shards / "train" / "failures.json").read_text())
    assert [failure["name"] for failure in failures] == ["train/clip05.mp4"]
    assert failures[0]["reason"].startswith("not a readable media file")


def test_other_readers_of_webdataset_read_them(shards):
    found = datasets.load_dataset(
        "webdataset", data_files=str(shards / "train" / "*.tar"), split="train", streaming=True
    ).cast_column("mp4", datasets.Video(decode=False))
    dataset = ShardDataset(shards / "train")
    rows = list(found)
    assert [row["mp4"]["bytes"] for row in rows] == [dataset[i]["video"]["bytes"] for i in range(COUNT)]
    assert [row["json"]["captions"] for row in rows] == list(all_captions(dataset))


@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_the_result_does_not_depend_on_the_workers(folder, shards, tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    run = functools.partial(run_tasks, num_workers=2, engine=engine)
    prepare_shards(folder_clips(folder, "train"), tmp_path / "two", shard_bytes=SHARD_BYTES, run=run)
    assert files(tmp_path / "two") == files(shards / "train")


def test_an_interrupted_preparation_is_taken_up(folder, shards, tmp_path):
    clips = folder_clips(folder, "train")
    made: list[str] = []

    class Killed(Exception):
        pass

    def run(function: Any, tasks: Any, stop: int) -> Any:
        for number, task in enumerate(tasks):
            if number == stop:
                Path(f"{task.path}.0123456789ab.partial").write_bytes(b"half a shard")
                raise Killed
            if not Path(task.path).exists():
                made.append(task.path)
            yield function(task)

    target = tmp_path / "train"
    with pytest.raises(Killed):
        prepare_shards(clips, target, shard_bytes=SHARD_BYTES, run=functools.partial(run, stop=2))
    with pytest.raises(ShardError, match=r"no shards\.json"):
        ShardDataset(target)
    _, failures = prepare_shards(clips, target, shard_bytes=SHARD_BYTES, run=functools.partial(run, stop=-1))
    assert len(made) == len(set(made)) == len(ShardDataset(target).shards)
    assert [failure["name"] for failure in failures] == ["train/clip05.mp4"]
    assert files(target) == files(shards / "train")
    # Complete: nothing is done again, and other shards do not get into the same folder.
    assert prepare_shards(clips, target, shard_bytes=SHARD_BYTES, run=None)[1] == failures  # type: ignore
    with pytest.raises(ValueError, match="holds something else"):
        prepare_shards(clips[1:], target, shard_bytes=SHARD_BYTES)


def narrated(folder: Path) -> dict[str, dict[str, list]]:
    """A video of 6 s that counts its frames (10 a second), and a sentence about each second."""
    folder.mkdir()
    sound = clicks(6.0, 16_000, every=1.0, first=0.5)
    write_media(folder / "abc.mp4", frames=numbered_frames(60), fps=10, waveform=sound, sampling_rate=16_000)
    starts = list(range(6))
    return {
        "abc": {"start": starts, "end": [s + 1 for s in starts], "text": [f"second {s}" for s in starts]},
        "gone": {"start": [0], "end": [1], "text": ["a video that is not there"]},
    }


def test_howto100m_whole_files(tmp_path):
    narration = narrated(tmp_path / "videos")
    annotations = tmp_path / "caption.json"
    annotations.write_text(json.dumps(narration))
    clips = howto100m_clips(tmp_path / "videos", annotations)
    separate = tmp_path / "csv"
    separate.mkdir()
    for video, columns in narration.items():
        rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
        lines = "".join(f"{i},{start},{end},{text}\n" for i, (start, end, text) in enumerate(rows))
        (separate / f"{video}.csv").write_text(",start,end,text\n" + lines)
    assert howto100m_clips(tmp_path / "videos", separate) == clips
    dataset, failures = prepare_shards(clips, tmp_path / "out")
    assert failures == [{"name": "gone", "reason": "no such file"}]
    assert [s["text"] for s in dataset[0]["sentences"]] == [f"second {s}" for s in range(6)]
    annotations.write_text(json.dumps({"abc": {"start": [0, 1], "end": [1], "text": ["a", "b"]}}))
    with pytest.raises(ValueError, match=r"caption\.json: 'abc' needs lists"):
        howto100m_clips(tmp_path / "videos", annotations)


def test_segments_are_cut_where_they_should_be(tmp_path):
    annotations = tmp_path / "caption.json"
    annotations.write_text(json.dumps(narrated(tmp_path / "videos")))
    settings = ShardSettings(True, segment_seconds=2.2, size=48, fps=5, sampling_rate=16_000)
    dataset, _ = prepare_shards(howto100m_clips(tmp_path / "videos", annotations), tmp_path / "out", settings)
    assert len(dataset) == 3  # 6 s in parts of about 2.2 s
    for part in range(3):
        row = dataset[part]
        clip = read_clip(row["video"]["bytes"], fps=5, sampling_rate=16_000)
        assert frame_numbers(clip.frames) == list(range(20 * part, 20 * part + 20, 2))
        np.testing.assert_allclose(click_times(clip.waveform, 16_000), [0.5, 1.5], atol=2e-3)
        times = {s["text"]: s["start"] for s in row["sentences"]}
        assert times[f"second {2 * part}"] == 0 and times[f"second {2 * part + 1}"] == 1


def test_audioset_segments(tmp_path):
    narrated(tmp_path / "videos")
    annotations = tmp_path / "segments.csv"
    annotations.write_text(
        "# Segments csv\n# YTID, start_seconds, end_seconds, positive_labels\n"
        'abc, 2.000, 4.000, "/m/068hy,/m/07q6cd_"\nabc, 7.000, 9.000, "/m/068hy"\n'
    )
    clips = audioset_clips(tmp_path / "videos", annotations)
    settings = ShardSettings(True, size=48, sampling_rate=16_000)
    dataset, failures = prepare_shards(clips, tmp_path / "cut", settings)
    clip = read_clip(dataset[0]["video"]["bytes"])
    assert len(dataset) == 1 and frame_numbers(clip.frames) == list(range(20, 40))
    assert failures == [{"name": "abc at 7 s", "reason": "the file ends before the part begins"}]
    with tarfile.open(tmp_path / "cut" / "shard-000000.tar") as tar:
        (text,) = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore
    assert text["labels"] == ["/m/068hy", "/m/07q6cd_"] and text["captions"] == []
    # Kept whole, the times limit the windows.
    whole, _ = prepare_shards(clips[:1], tmp_path / "whole")
    items = ClipDataset(whole, small_processor(), random_window=True)
    drawn = [items._read(whole[0], np.random.default_rng(epoch)) for epoch in range(20)]
    starts = [clip.start for (clip,) in drawn]
    assert 2.0 <= min(starts) < 2.4 and 2.8 < max(starts) <= 3.2
    annotations.write_text("abc, 2.0, 4.0\n")
    with pytest.raises(ValueError, match=r"segments\.csv: .* is not `YTID"):
        audioset_clips(tmp_path / "videos", annotations)
    annotations.write_text('abc, -1, 4, "x"\nabc, nan, 4, "x"\nabc, 3, 2, "x"\n')
    empty, failures = prepare_shards(audioset_clips(tmp_path / "videos", annotations), tmp_path / "odd")
    assert len(empty) == 0
    assert [failure["reason"] for failure in failures] == [
        "no part from -1.0 to 4.0 s",
        "no part from nan to 4.0 s",
        "no part from 3.0 to 2.0 s",
    ]
    (tmp_path / "videos" / "more").mkdir()
    shutil.copy(tmp_path / "videos" / "abc.mp4", tmp_path / "videos" / "more" / "abc.mp4")
    with pytest.raises(ValueError, match="both are the video 'abc'"):
        audioset_clips(tmp_path / "videos", annotations)


def test_windows_stay_within_their_part(long_video):
    """A part shorter than a window; decoded beforehand, too, with the sentences on the part's clock."""
    sentences = [{"start": 4.5, "end": 4.7, "text": "clip 3"}]
    part = {"start": 4.0, "end": 4.5, "sentences": sentences}
    rows = datasets.Dataset.from_list([{"video": {"path": str(long_video), "bytes": None}, **part}])
    processor = small_processor()
    alone = ClipDataset(rows, processor)._read(rows[0], np.random.default_rng(0))  # type: ignore[arg-type]
    assert frame_numbers(alone[0].frames) == [40, 41, 42, 43, 44] and alone[0].start == 4.0
    decoded, skipped = decode_clips(rows, processor)
    assert not skipped and decoded[0]["start"] is None and decoded[0][DECODED]["seconds"] == 0.5
    assert decoded[0]["sentences"][0]["start"] == pytest.approx(0.5)
    items = ClipDataset(decoded, processor)  # type: ignore[arg-type]
    (clip,) = items._read(decoded[0], np.random.default_rng(0))
    assert np.array_equal(clip.frames, alone[0].frames)  # type: ignore[arg-type]
    assert torch.equal(items[0]["input_ids"], ClipDataset(rows, processor)[0]["input_ids"])  # type: ignore


# --- reading them ---


def test_items_are_those_of_the_folder(folder, shards):
    options: dict[str, Any] = {"random_window": True, "augmentation": VattAugmentation(), "seed": 1}
    from_folder = ClipDataset(load_clips(folder, "train").select(range(5)), small_processor(), **options)
    from_shards = ClipDataset(open_clips(shards, "train"), small_processor(), **options)
    for index in range(5):
        one, other = from_folder[(2, index)], from_shards[(2, index)]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_truncated_or_missing_shard_is_named(shards, tmp_path):
    folder = copy_of(shards, tmp_path)
    shard = folder / "shard-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(ShardError, match=r"shard-000001\.tar: truncated or changed, it has \d+ bytes"):
        ShardDataset(folder)
    shard.unlink()
    with pytest.raises(ShardError, match=r"a shard is missing.*shard-000001\.tar"):
        ShardDataset(folder)


@pytest.mark.parametrize("name", ["shards.json", "index.arrow"])
def test_a_damaged_index_is_named(shards, tmp_path, name):
    folder = copy_of(shards, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 255
    (folder / name).write_bytes(content)
    with pytest.raises(ShardError, match=f"{name}: missing or damaged|version"):
        ShardDataset(folder)


def with_index(shards: Path, folder: Path, change: Any) -> Path:
    """A copy of shards with another index, whose checksum is right."""
    target = Path(shutil.copytree(shards / "train", folder))
    table = change(datasets.Dataset.from_file(str(shards / "train" / "index.arrow")).data.table)
    with (
        pa.OSFile(str(target / "index.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as stream,
    ):
        stream.write_table(table)
    manifest = json.loads((target / "shards.json").read_text())
    manifest["index_sha256"] = hashlib.sha256((target / "index.arrow").read_bytes()).hexdigest()
    (target / "shards.json").write_text(json.dumps(manifest))
    return target


def column(name: str, change: Any) -> Any:
    """Changes the values of a column of the index."""

    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(place, table.schema.field(name), values)

    return changed


def test_an_index_with_other_columns_opens_no_files(shards, tmp_path):
    """Columns of images or sounds would be decoded, whatever path they name."""
    picture = pa.array([{"bytes": None, "path": "/etc/passwd"}] * COUNT)

    def add_pictures(table: pa.Table) -> pa.Table:
        features = datasets.Features(
            {**datasets.Features.from_arrow_schema(table.schema), "x": datasets.Image()}
        )
        return table.append_column("x", picture).cast(features.arrow_schema)

    with pytest.raises(ShardError, match=r"index\.arrow: no index of these shards .other columns"):
        ShardDataset(with_index(shards, tmp_path / "train", add_pictures))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (column("shard", lambda values: values[::-1]), "shards out of order"),
        (column("shard", lambda values: [*values[:-1], 99]), "shards out of order"),
        (column("shard", lambda values: [*values[:-1], None]), "missing values"),
        (column("shard", lambda values: [0] * len(values)), "other numbers of clips"),
        (column("offset", lambda values: [-1, *values[1:]]), "clips outside"),
        (column("offset", lambda values: [None, *values[1:]]), "missing values"),
        (column("size", lambda values: [2**62, *values[1:]]), "clips outside"),
        (lambda table: table.slice(1), "other numbers of clips"),
    ],
)
def test_an_index_that_lies_is_refused(shards, tmp_path, change, reason):
    with pytest.raises(ShardError, match=f"no index of these shards .{reason}"):
        ShardDataset(with_index(shards, tmp_path / "train", change))


def test_a_damaged_clip_is_skipped_and_named(shards, tmp_path):
    folder = copy_of(shards, tmp_path)
    dataset = ShardDataset(folder)
    row = dataset.table[1]
    with (folder / dataset.shards[row["shard"]]).open("r+b") as file:
        file.seek(row["offset"] + 100)
        file.write(b"x" * 50)
    items = ClipDataset(ShardDataset(folder), small_processor())
    batch = collate_clips([items[0], items[1]])
    assert len(batch.inputs["audio_mask"]) == 1
    assert batch.skipped[0].name.endswith("shard-000000.tar/000000001")
    assert "not the bytes that were indexed" in batch.skipped[0].reason
    (folder / dataset.shards[-1]).unlink()  # while it is in use
    with pytest.raises(ShardError, match=r"cannot be read.*run the same command again"):
        items[COUNT - 1]


def test_an_undecodable_clip_is_named_by_its_place(tmp_path):
    write_shard(tmp_path / "a.tar", [("k", {"captions": ["x"]}, b"no video")])
    item = ClipDataset(write_index(tmp_path), small_processor())[0]
    assert isinstance(item, SkippedClip) and "a.tar/k: not a readable media file" in item.reason


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """A web server that answers requests for parts of files, and drops every fifth."""

    asked: Counter = Counter()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.asked["all"] += 1
        if not path.is_file():
            self.send_error(404)
        elif self.asked["all"] % 5 == 0:
            self.send_error(503)
        elif part is None:
            super().do_GET()
        else:
            content = path.read_bytes()
            first, last = int(part[1]), min(int(part[2]), len(content) - 1)
            self.asked[path.name] += last + 1 - first
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            self.wfile.write(content[first : last + 1])

    def log_message(self, *args: Any) -> None:
        pass


def test_remote_shards_are_read_part_by_part_if_allowed(shards, monkeypatch):
    monkeypatch.setattr("modeling_vatt.data.shards.time.sleep", lambda seconds: None)
    handler = functools.partial(RangeHandler, directory=str(shards))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ShardError, match="only if you allow it"):
            open_clips(url, "train")
        remote, local = open_clips(url, "train", remote=True), open_clips(shards, "train")
        assert isinstance(remote, ShardDataset)
        order = [[(0, index)] for index in (7, 0, 3)]
        loader = DataLoader(
            ClipDataset(remote, small_processor()),
            batch_sampler=order,  # type: ignore[arg-type]
            collate_fn=collate_clips,
            num_workers=1,  # in a forked process, too
        )
        items = ClipDataset(local, small_processor())
        for batch, [(_, index)] in zip(loader, order, strict=True):
            assert torch.equal(batch.inputs["input_values"], items[index]["input_values"])
        assert sum(RangeHandler.asked[name] for name in remote.shards) == sum(
            local.table[index]["size"] for index in (7, 0, 3)
        )
    finally:
        server.shutdown()


# --- order ---


def test_shard_order_reads_few_shards_at_a_time_and_every_clip_once():
    sizes = [5, 3, 0, 6, 4, 2]
    ends = np.cumsum(sizes)
    order = shuffle_shards(sizes, 2)
    one = order(np.random.default_rng(0))
    assert sorted(one) == list(range(20))
    shard_of = np.searchsorted(ends, one, side="right")
    runs = [len(set(shard_of[a : a + 7])) for a in range(14)]
    assert max(runs) <= 4 and len({tuple(order(np.random.default_rng(s))) for s in range(5)}) == 5
    assert not np.array_equal(one, np.sort(one))
    steps = [index for step in StepSampler(20, 4, 5, seed=7, order=order) for _, index in step]
    assert steps == list(order(np.random.default_rng((7, 0))))
    with pytest.raises(ValueError, match="At least one shard"):
        shuffle_shards(sizes, 0)


def test_two_processes_with_two_workers_share_every_batch(shards):
    """The clips that the loaders of two ranks deliver: disjoint, and together all of the epoch."""
    dataset = ClipDataset(open_clips(shards, "train"), small_processor(), clips_per_video=2)

    def delivered(rank: int) -> tuple[list, list]:
        sampler = StepSampler(
            COUNT, 8, 3, seed=4, rank=rank, world_size=2, clips_per_video=2, order=dataset.order(2)
        )
        loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2, collate_fn=collate_clips)
        return [batch.inputs["audio_mask"].tolist() for batch in loader], list(sampler)

    (masks, ids), (other_masks, other_ids) = delivered(0), delivered(1)
    assert all(len(mask) == 4 for mask in (*masks, *other_masks))  # half of 8 clips
    found = [index for step in (*ids, *other_ids) for _, index in step]
    assert sorted(found) == list(range(COUNT))
    with pytest.raises(ValueError, match="8 clips cannot be made of videos with 3 clips"):
        StepSampler(COUNT, 8, 3, clips_per_video=3)
    with pytest.raises(ValueError, match="cannot be divided among 3 processes"):
        StepSampler(COUNT, 2, 3, world_size=3)


# --- several windows of a video ---


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    sound = clicks(12.0, 16_000, every=1.0, first=0.5)
    return write_media(
        path,
        frames=numbered_frames(120),
        fps=10,
        waveform=sound,
        sampling_rate=16_000,
        video_options={"g": "25", "bf": "2"},
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi"])
def test_windows_read_together_are_those_read_alone(tmp_path, suffix):
    audio_codec = "mp2" if suffix in (".avi", ".ts") else "aac"
    path = write_media(
        tmp_path / f"long{suffix}",
        frames=numbered_frames(80),
        fps=10,
        waveform=tone(8.0, 16_000),
        sampling_rate=16_000,
        audio_codec=audio_codec,
        video_options={"g": "25"},
    )
    options: dict[str, Any] = {"duration": 1.5, "fps": 10, "sampling_rate": 16_000}
    lengths: list[float] = []

    def starts(length: float) -> list[float]:
        lengths.append(length)
        return [4.0, 0.0, 6.3, 0.2]

    for clip, start in zip(read_clips(path, starts, **options), [4.0, 0.0, 6.3, 0.2], strict=True):
        alone = read_clip(path, start=start, **options)
        assert frame_numbers(clip.frames) == frame_numbers(alone.frames)
        np.testing.assert_allclose(clip.waveform, alone.waveform, atol=1e-4)  # MP2 is dithered
        assert replace(clip.info, duration=alone.info.duration) == alone.info
    assert lengths == [pytest.approx(8.0, abs=0.3)]


def test_several_clips_of_a_video_are_rows_of_the_batch(long_video):
    rows: Any = [{"video": {"path": str(long_video), "bytes": None}, "captions": ["clip 3"]}]
    items = ClipDataset(rows, small_processor(), random_window=True, clips_per_video=3, with_ids=True)
    batch = collate_clips([items[(0, 0)], items[(1, 0)]])
    assert len(batch.inputs["pixel_values_videos"]) == len(batch.inputs["text_mask"]) == 6
    assert len(batch.inputs["video_ids"]) == 6 and len(batch.inputs["video_ids"].unique()) == 1
    for epoch in range(5):
        clips = items._read(rows[0], np.random.default_rng(epoch))
        places = [clip.start / (12.0 - 0.8) for clip in clips]
        assert [int(3 * place) for place in places] == [0, 1, 2]  # one in each third
    evenly = ClipDataset(rows, small_processor(), clips_per_video=3)._read(rows[0], np.random.default_rng(0))
    assert [clip.start for clip in evenly] == pytest.approx([0.0, 5.6, 11.2], abs=0.05)
    with pytest.raises(ValueError, match="clips_per_video"):
        ClipDataset(rows, small_processor(), clips_per_video=0)


def test_a_video_is_opened_once(long_video, monkeypatch):
    import av

    opened = []
    original = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(1) or original(*args, **kwargs))
    rows: Any = [{"video": {"path": str(long_video), "bytes": None}, "captions": []}]
    ClipDataset(rows, small_processor(), random_window=True)[(0, 0)]
    assert len(opened) == 1


# --- sentences with times ---

SENTENCES = [{"start": float(s), "end": s + 1.0, "text": str(s)} for s in range(10)]


def test_the_nearest_sentences_come_first():
    # 4 and 5 overlap the window, 5 more in the middle; then by the time in between, the earlier one first.
    assert nearest_sentences(SENTENCES, 4.8, 6.0, 4) == ["5", "4", "6", "3"]
    assert nearest_sentences(SENTENCES, 20.0, 21.0, 2) == ["9", "8"]
    assert nearest_sentences(SENTENCES[:2], 0.0, 1.0, 5) == ["0", "1"]
    assert nearest_sentences([], 0.0, 1.0, 5) == []


def test_a_part_keeps_the_sentences_that_its_windows_may_need():
    random = np.random.default_rng(0)
    starts = np.cumsum(random.exponential(2.0, 40))
    sentences = [{"start": s, "end": s + random.exponential(3.0), "text": str(s)} for s in starts.tolist()]
    kept = sentences_around(sentences, 30.0, 40.0)
    assert len(kept) < 30
    for start in (0.0, 2.5, 6.8):
        expected = nearest_sentences(sentences, 30.0 + start, 33.2 + start, 5)
        assert nearest_sentences(kept, start, start + 3.2, 5) == expected


def test_windows_get_their_own_sentences(long_video):
    sentences = [{"start": 4.0 * s, "end": 4.0 * s + 1, "text": f"clip {s}"} for s in range(3)]
    rows: Any = [{"video": {"path": str(long_video), "bytes": None}, "sentences": sentences}]
    processor = small_processor()
    item = ClipDataset(rows, processor, clips_per_video=3)[0]
    first = processor(text=[[f"clip {s}"] for s in range(3)])["input_ids"][:, 0]
    assert torch.equal(item["input_ids"][:, 0], first)


def test_sentences_in_metadata_reach_the_shards(tmp_path):
    folder = tmp_path / "videos" / "train"
    folder.mkdir(parents=True)
    write_clip(folder / "a.mp4", 1)
    row = {"file_name": "a.mp4", "sentences": [{"start": 0.0, "end": 0.5, "text": "a tone"}], "label": "x"}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    table = load_clips(tmp_path / "videos", "train")
    assert list(all_captions(table)) == [["a tone"]]
    dataset, _ = prepare_shards(folder_clips(tmp_path / "videos", "train"), tmp_path / "out")
    assert dataset[0]["sentences"] == row["sentences"] and list(all_captions(dataset)) == [["a tone"]]


# --- resuming ---


def test_a_changed_dataset_has_another_fingerprint(folder, shards, tmp_path):
    processor = small_processor()
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    before = ClipDataset(load_clips(folder, "train"), processor).fingerprint
    assert ClipDataset(load_clips(moved, "train"), processor).fingerprint == before
    assert ClipDataset(load_clips(moved, "train").select([1, 0, 2]), processor).fingerprint != before
    fingerprint = ClipDataset(open_clips(shards, "train"), processor).fingerprint
    assert fingerprint == open_clips(shards, "train").fingerprint != before
    one = prepare_shards([RawClip(str(folder / "train" / "clip00.mp4"), "a", captions=["x"])], tmp_path / "x")
    two = prepare_shards([RawClip(str(folder / "train" / "clip00.mp4"), "a", captions=["y"])], tmp_path / "y")
    assert one[0].fingerprint != two[0].fingerprint


class Counting(Pretrainer):
    """Writes down which clips each step has trained on, as their captions say."""

    def _step(self, parts: list[ClipBatch], step: int) -> dict[str, float]:
        words = self.dataset.processor.tokenizer.convert_ids_to_tokens
        rows = []
        (batch,) = parts
        for captions in batch.inputs["input_ids"]:
            numbers = [word for word in words(captions.flatten().tolist()) if word.isdigit()]
            rows.append(int(numbers[0]) if numbers else None)
        assert rows[::2] == rows[1::2]  # both clips of a video
        losses = super()._step(parts, step)
        with (self.output_dir / "trained.jsonl").open("a") as file:
            file.write(json.dumps([step, rows[::2]]) + "\n")
        return losses


def train(shards: Path, output_dir: Path) -> None:
    multiprocessing.set_start_method(None, force=True)  # workers are children of this process, as for users
    torch.manual_seed(0)
    config = small_config("agnostic", every={"hidden_dropout_prob": 0.1})
    clips = ClipDataset(
        open_clips(shards, "train"), small_processor(config), True, VattAugmentation(), 3, clips_per_video=2
    )
    steps = {"num_steps": 9, "batch_size": 8, "warmup_steps": 2, "log_every": 1, "save_every": 2}
    loading = {"num_workers": 2, "prefetch_factor": 2, "shuffle_shards": 2}
    arguments = PretrainingArguments(str(output_dir), learning_rate=1e-2, **steps, **loading)
    Counting(VattForPreTraining(config), clips, arguments).train()


@pytest.fixture
def running() -> Iterator[list[Any]]:
    """Processes, which end with the test whatever happens."""
    processes: list[Any] = []
    yield processes
    for process in processes:
        process.kill()


@pytest.mark.slow
def test_after_kill_9_no_clip_is_lost_or_repeated(shards, tmp_path, running):
    def trained(name: str) -> list:
        path = tmp_path / name / "trained.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def losses(name: str) -> list:
        return [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").open()]

    def begin(name: str) -> Any:
        # Not forked from here: threads that hold locks do not come along, and what waits for them hangs.
        process = FORKS.Process(target=train, args=(shards, tmp_path / name))
        process.start()
        running.append(process)
        return process

    def finish(process: Any) -> None:
        process.join(200)
        assert process.exitcode == 0

    finish(begin("whole"))
    process = begin("parts")
    deadline = time.monotonic() + 200
    while len(trained("parts")) < 5:
        assert process.is_alive() and time.monotonic() < deadline, "ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = trained("parts")
    finish(begin("parts"))
    after = trained("parts")[len(before) :]
    resumed_at = after[0][0]
    assert 0 < resumed_at <= len(before) < 9  # not from the start
    kept = [line for line in before if line[0] < resumed_at] + after
    assert kept == trained("whole")
    # Three epochs of three steps with four videos each: every video once in each epoch.
    everything = Counter(None if number == 2 else number for number in range(COUNT + 1) if number != 5)
    for epoch in range(3):
        steps = kept[3 * epoch : 3 * epoch + 3]
        assert Counter(number for _, rows in steps for number in rows) == everything
    assert losses("parts") == losses("whole")
