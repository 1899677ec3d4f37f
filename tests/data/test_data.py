# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip tables, datasets and samplers: what is found, what is skipped, what is random and what is not."""

import itertools
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from clip_folders import make_folder, small_processor, write_clip
from media_factory import tone, truncate, write_media
from small_models import seeded, small_config

from modeling_vatt import VattModel
from modeling_vatt.data import (
    ClipBatch,
    ClipDataset,
    SkippedClip,
    StepSampler,
    collate_clips,
    decode_clips,
    group_alike,
    load_clips,
)
from modeling_vatt.data.reading import DECODED
from modeling_vatt.processors import VattAugmentation


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path / "clips", 5, silent=[1], speechless=[2])


def test_plain_folder_and_csv_with_one_caption(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    write_clip(plain / "b.mp4", 1)
    assert load_clips(plain, "train")["captions"] == [[]]
    (plain / "metadata.csv").write_text("file_name,caption\nb.mp4,one sentence\n")
    assert load_clips(plain, "train")["captions"] == [["one sentence"]]


def test_what_is_missing_is_named(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no video files in this folder"):
        load_clips(empty, "train")
    with pytest.raises(ValueError, match="no such folder"):
        load_clips(tmp_path / "missing", "train")
    with pytest.raises(ValueError, match="no column 'subtitle'"):
        load_clips(folder, "train", caption_column="subtitle")


def test_items_are_model_inputs(folder):
    items = ClipDataset(load_clips(folder, "train"), small_processor())
    batch = collate_clips([items[index] for index in range(5)])
    shapes = {name: tuple(value.shape) for name, value in batch.inputs.items()}
    assert shapes == {
        "pixel_values_videos": (5, 8, 3, 8, 8),
        "input_values": (5, 96),
        "audio_mask": (5,),
        "input_ids": (5, 2, 5),
        "attention_mask": (5, 2, 5),
        "text_mask": (5,),
    }
    assert batch.inputs["audio_mask"].tolist() == [1, 0, 1, 1, 1]
    assert batch.inputs["text_mask"].tolist() == [1, 1, 0, 1, 1]
    assert not batch.skipped


def test_items_depend_on_seed_epoch_and_index_only(folder):
    def items(seed: int) -> ClipDataset:
        augmentation = VattAugmentation(noise=0.1)
        return ClipDataset(load_clips(folder, "train"), small_processor(), True, augmentation, seed)

    first, again, other = items(0), items(0), items(1)
    torch.manual_seed(99)  # the global generator has no say
    same = again[(3, 4)]
    for name, value in first[(3, 4)].items():
        torch.testing.assert_close(value, same[name], rtol=0, atol=0)
    for different in (first[(4, 4)], other[(3, 4)]):
        assert not torch.equal(first[(3, 4)]["input_values"], different["input_values"])


def test_colors_changed_later_are_the_same(folder):
    """Also with several windows of a video, and for draws that leave the colours alone."""

    def batch(late: bool) -> ClipBatch:
        items = ClipDataset(
            load_clips(folder, "train"),
            small_processor(),
            True,
            VattAugmentation(color_probability=0.7),
            clips_per_video=2,
            late_colors=late,
        )
        return collate_clips([items[index] for index in range(5)])

    early, late = batch(False).to("cpu"), batch(True)
    assert late.inputs["pixel_values_videos"].dtype == torch.uint8
    unchanged = late.inputs["video_colors"].isnan().any(1)
    assert unchanged.any() and not unchanged.all()
    finished = late.to("cpu")
    assert finished.keys() == early.keys()
    assert all(torch.equal(finished[name], value) for name, value in early.items())
    with pytest.raises(ValueError, match=r"must be floating-point numbers, got torch\.uint8"):
        seeded(VattModel, small_config("specific"))(late.inputs["pixel_values_videos"])


def test_training_draws_different_captions_and_evaluation_takes_the_first(folder):
    clips = load_clips(folder, "train")
    processor = small_processor()
    drawn = {
        tuple(ClipDataset(clips, processor, random_window=True)[(epoch, 0)]["input_ids"].flatten().tolist())
        for epoch in range(8)
    }
    assert len(drawn) > 1
    expected = processor(text=[["clip 0", "grey number 0"]])["input_ids"]
    assert torch.equal(ClipDataset(clips, processor)[0]["input_ids"], expected)


def test_unreadable_clips_are_skipped_with_their_reason(folder):
    train = folder / "train"
    (train / "clip00.mp4").write_bytes(b"")
    truncate(train / "clip03.mp4", train / "clip03.mp4", 0.2)
    write_media(train / "clip04.mp4", waveform=tone(1.0, 8000), sampling_rate=8000)
    clips = load_clips(folder, "train")
    items = ClipDataset(clips, small_processor())
    batch = collate_clips([items[index] for index in range(5)])
    assert len(batch.inputs["pixel_values_videos"]) == 2
    assert [Path(clip.name).name for clip in batch.skipped] == ["clip00.mp4", "clip03.mp4", "clip04.mp4"]
    assert all(Path(clip.name).name in clip.reason for clip in batch.skipped)
    assert "no picture" in batch.skipped[2].reason
    assert collate_clips([SkippedClip("a", "b")]).inputs == {}


def test_items_of_a_batch_are_those_asked_for_one_by_one(folder):
    """Captions, tokenized together, stay with their clips and windows, beside one that is skipped."""
    (folder / "train" / "clip01.mp4").write_bytes(b"")
    clips = load_clips(folder, "train")
    settings = {"clips_per_video": 2, "with_ids": True, "mask_captions": True}
    items = ClipDataset(clips, small_processor(), True, VattAugmentation(), **settings)
    wanted = [(3, 4), (3, 1), (3, 0), (3, 2)]
    together = items.__getitems__(wanted)
    assert [isinstance(item, SkippedClip) for item in together] == [False, True, False, False]
    for item, one in zip(wanted, together, strict=True):
        alone = items[item]
        if isinstance(one, SkippedClip):
            assert one == alone
            continue
        assert one.keys() == alone.keys() and {len(value) for value in one.values()} == {2}
        assert all(torch.equal(value, alone[name]) for name, value in one.items())
    assert all(isinstance(item, SkippedClip) for item in items.__getitems__([1]))


def test_embedded_files_of_one_name_are_told_apart(tmp_path):
    """As the Hub has them, which keeps no folders: they must not be left out as negatives of each other."""
    contents = [write_clip(tmp_path / "a.mp4", number).read_bytes() for number in (1, 2)]
    videos = [{"path": "a.mp4", "bytes": contents[place]} for place in (0, 1, 0)]
    rows = {"video": videos, "captions": [["a"], ["b"], ["c"]], "start": [0.0, 0.0, 0.5]}
    table = datasets.Dataset.from_dict(rows).cast_column("video", datasets.Video(decode=False))
    items = ClipDataset(table, small_processor(), with_ids=True)
    first, other, later = (int(items[number]["video_ids"][0]) for number in range(3))
    assert first == later != other


def test_short_clips_and_foreign_captions(tmp_path):
    folder = tmp_path / "odd" / "train"
    folder.mkdir(parents=True)
    write_clip(folder / "short.mp4", 3, seconds=0.1)
    row = {"file_name": "short.mp4", "captions": ["고양이가 뛴다", "  "]}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    clips = load_clips(tmp_path / "odd", "train")
    assert clips["captions"] == [["고양이가 뛴다"]]
    item = ClipDataset(clips, small_processor(), random_window=True)[0]
    frames = item["pixel_values_videos"][0]
    assert torch.equal(frames[0], frames[7])  # one frame, repeated
    assert item["text_mask"].tolist() == [1]


def test_decoded_clips_give_the_same_items(folder):
    (folder / "train" / "clip01.mp4").write_bytes(b"no video")
    clips = load_clips(folder, "train")
    processor = small_processor()
    decoded, skipped = decode_clips(clips, processor)
    assert len(decoded) == 4 and [Path(clip.name).name for clip in skipped] == ["clip01.mp4"]
    fresh, cached = ClipDataset(clips, processor), ClipDataset(decoded, processor)
    plain, view = decoded[0], cached._row(0)
    assert view.keys() == plain.keys()
    for name, value in plain.pop(DECODED).items():
        found = view[DECODED][name]
        assert (found.to_pybytes() if isinstance(value, bytes) else found) == value
    assert all(view[name] == value for name, value in plain.items())
    for here, there in ((0, 0), (2, 1), (4, 3)):
        one, other = fresh[here], cached[there]
        # The window begins at a frame instead of between two, so the sound may be shifted by up to a frame.
        torch.testing.assert_close(
            one["pixel_values_videos"], other["pixel_values_videos"], rtol=0, atol=0.02
        )
        assert torch.equal(one["input_ids"], other["input_ids"])
        assert one["audio_mask"].tolist() == other["audio_mask"].tolist()


def test_sampler_covers_every_clip_once_an_epoch_and_never_twice_in_a_batch():
    steps = list(StepSampler(num_clips=10, batch_size=3, num_steps=7, seed=5))
    assert [len(step) for step in steps] == [3] * 7
    for epoch, first in ((0, 0), (1, 3), (2, 6)):
        seen = [index for step in steps[first : first + 3] for e, index in step if e == epoch]
        assert len(set(seen)) == len(seen) >= 3
    assert steps[0] != steps[3]


def test_sampler_resumes_and_divides_among_processes():
    def steps(**options: int) -> list:
        return list(StepSampler(num_clips=10, batch_size=4, num_steps=6, seed=1, **options))

    assert steps(start_step=4) == steps()[4:]
    parts = [steps(rank=rank, world_size=2) for rank in range(2)]
    for whole, one, other in zip(steps(), *parts, strict=True):
        assert sorted(whole) == sorted(one + other)
    with pytest.raises(ValueError, match="3 clips for batches of 4"):
        StepSampler(num_clips=3, batch_size=4, num_steps=1)


def test_clips_that_agree_come_in_groups_from_a_step_on():
    keys = [(place % 3, "ab"[place % 2]) for place in range(40)]  # six keys, of 6 or 7 clips
    order = group_alike(keys, 3)
    steps = list(StepSampler(40, 20, 8, seed=2, order=order, order_from=3))
    epochs = [[index for step in steps[first : first + 2] for _, index in step] for first in (0, 2, 4, 6)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    for epoch, seen in enumerate(epochs):
        grouped = seen == order(np.random.default_rng((2, epoch))).tolist()
        assert grouped == (epoch >= 2)  # the first epoch that begins at step 3 or later
        borders = sum(keys[one] != keys[other] for one, other in itertools.pairwise(seen))
        assert borders < 18 if grouped else borders > 25  # 2 or 3 groups a key
    with pytest.raises(ValueError, match="at least one clip"):
        group_alike(keys, 0)


def test_sampler_order_is_fixed_forever():
    """Resuming an old run needs the same order from a newer version of this package."""
    order = [index for step in StepSampler(6, 2, 3, seed=7) for _, index in step]
    assert order == np.random.default_rng((7, 0)).permutation(6).tolist()


def test_a_file_that_can_be_read_again_is_decoded_after_all(folder, caplog):
    """`datasets` caches what a call gave. The order stays; what is cut off is told."""
    clips, file = load_clips(folder, "train"), folder / "train" / "clip01.mp4"
    content = file.read_bytes()
    file.write_bytes(b"storage is away")
    decoded, skipped = decode_clips(clips, small_processor(), max_seconds=1.0)
    assert len(decoded) == 4 and "clip01.mp4" in skipped[0].name
    file.write_bytes(content)
    continued, _ = decode_clips(clips, small_processor(), max_seconds=1.0, retry=False)
    assert continued["video"] == decoded["video"]
    for retry in (True, True, False):
        decoded, skipped = decode_clips(clips, small_processor(), max_seconds=1.0, retry=retry)
        names = [Path(row["path"]).name for row in decoded["video"]]
        assert names == [f"clip0{number}.mp4" for number in range(5)] and not skipped
    assert "5 clips are longer than 1 s: only their beginning is used" in caplog.text
    item = ClipDataset(decoded, small_processor())[1]
    torch.testing.assert_close(item, ClipDataset(decoded.select([1]), small_processor())[0])
    caplog.clear()
    decode_clips(clips, small_processor(), max_seconds=1.3)
    assert not caplog.messages
