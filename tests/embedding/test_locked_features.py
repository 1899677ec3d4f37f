# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Features of locked towers are computed once: training on them gives the losses of training on files."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clip_folders import make_folder
from tower_folders import tower_sources

from modeling_vatt.data import ClipDataset, collate_clips, decode_clips, load_clips
from modeling_vatt.embedding import locked_features
from modeling_vatt.embedding.building import build_from_towers
from modeling_vatt.embedding.identity import ModelIdentity
from modeling_vatt.embedding.locked_features import FeatureDataset, compute_locked_features, locked_towers
from modeling_vatt.hub.remote_code import save_remote_code
from modeling_vatt.processors import MediaError, MediaLimits, VattAugmentation, VattProcessor
from modeling_vatt.training import Pretrainer, PretrainingArguments


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Any, Any]:
    sources = tower_sources(tmp_path_factory.mktemp("towers"))
    sizes = {"va_projection_size": 12, "vt_projection_size": 6}
    return build_from_towers(**sources, processing={"seconds": 0.4, "num_captions": 2}, **sizes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("clips") / "clips", 6, silent=[3], speechless=[4])
    (root / "train" / "clip05.mp4").write_bytes(b"no video")
    return root


def _features(model: Any, processor: Any, clips: Any, cache: Path, windows: int = 3, **options: Any) -> Any:
    names = locked_towers(model)
    return compute_locked_features(model, processor, clips, names, cache, windows, batch_size=4, **options)


def _losses(model: Any, dataset: Any, tmp_path: Path, **options: Any) -> tuple[list[float], Any]:
    torch.manual_seed(0)
    losses: list[float] = []
    arguments = PretrainingArguments(
        str(tmp_path), num_steps=4, batch_size=4, learning_rate=1e-3, warmup_steps=0, log_every=1, **options
    )
    Pretrainer(model, dataset, arguments, on_log=lambda step, found: losses.append(found["loss"])).train()
    return losses, model


@pytest.mark.parametrize("locked", [("video", "text"), ("video", "audio", "text"), ("audio",), ("text",)])
@pytest.mark.parametrize("micro_batch_size", [0, 2])
def test_cached_and_uncached_training_are_one(built, folder, tmp_path, locked, micro_batch_size):
    """Same losses and weights, false negatives among parts left out; locked towers stay bit for bit."""
    model, processor = built
    clips = load_clips(folder, "train")
    model = copy.deepcopy(model)
    model.config.mask_false_negatives = bool(micro_batch_size)
    model.lock(*locked)
    before = {name: copy.deepcopy(getattr(model.vatt, f"{name}_model").state_dict()) for name in locked}
    common: dict[str, Any] = {"random_window": True, "window_choices": 3, "seed": 5}
    common |= {"with_ids": bool(micro_batch_size), "clips_per_video": 2, "mask_captions": True}
    found = _features(model, processor, clips, tmp_path / "cache")
    datasets = {
        "files": ClipDataset(clips, processor, **common),
        "vectors": FeatureDataset(clips, processor, found, keep_read=bool(micro_batch_size), **common),
    }
    results = {
        name: _losses(copy.deepcopy(model), dataset, tmp_path / name, micro_batch_size=micro_batch_size)
        for name, dataset in datasets.items()
    }
    np.testing.assert_allclose(results["vectors"][0], results["files"][0], rtol=1e-4)
    assert len(set(results["files"][0])) == 4
    for name, (_, trained) in results.items():
        for tower in locked:
            for key, values in getattr(trained.vatt, f"{tower}_model").state_dict().items():
                assert torch.equal(values, before[tower][key]), (name, key)
    assert "video_pooler_output" in collate_clips([datasets["vectors"][0]]).inputs or "video" not in locked


def test_a_fault_that_passes_stays_in_no_cache(built, folder, tmp_path, monkeypatch):
    """Beside a clip that stays broken; features are those of a run without faults."""
    model, processor = copy.deepcopy(built[0]), built[1]
    model.lock("video", "text")
    clips = load_clips(folder, "train")
    whole = _features(model, processor, clips, tmp_path / "whole")
    read_row = locked_features.read_row

    def failing(row: Any, *rest: Any) -> Any:
        if "clip01" in row["video"]["path"]:
            raise MediaError("clip01", "cannot be opened (Stale file handle)")
        return read_row(row, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(locked_features, "read_row", failing)
        for _ in range(2):
            assert set(_features(model, processor, clips, tmp_path / "cache").skipped) == {1, 5}
    for _ in range(2):
        found = _features(model, processor, clips, tmp_path / "cache")
        assert set(found.skipped) == set(whole.skipped) == {5}
        torch.testing.assert_close(found.media["video"], whole.media["video"])


def test_features_are_found_again(built, folder, tmp_path, monkeypatch):
    """By content, wherever the file is and beside whatever clips; not for other towers, parts or windows."""
    model, processor = copy.deepcopy(built[0]), copy.deepcopy(built[1])
    model.lock("video", "text")
    clips = load_clips(folder, "train")
    read: list[Any] = []
    read_row = locked_features.read_row
    monkeypatch.setattr(
        locked_features, "read_row", lambda row, *rest: read.append(row) or read_row(row, *rest)
    )

    def rows_read(table: Any = clips, cache: Path = tmp_path / "cache", **options: Any) -> int:
        read.clear()
        _features(model, processor, table, cache, **options)
        return len(read)

    assert rows_read() == 6
    assert rows_read() == 1  # the broken one is tried again, as its fault might pass
    made = sorted((tmp_path / "cache").iterdir())
    processor(text=["a"], padding="longest")  # which the tokenizer remembers
    assert rows_read() == 1 and sorted((tmp_path / "cache").iterdir()) == made
    moved = folder.rename(folder.with_name("moved"))
    try:
        assert rows_read(load_clips(moved, "train").select([5, 2, 0])) == 1
        again = load_clips(moved, "train")
        found = _features(model, processor, again, tmp_path / "cache")
        assert "moved/train/clip05.mp4" in found.skipped[5].reason
    finally:
        moved.rename(folder)
    next((tmp_path / "cache").glob("*.npz")).unlink()  # as if stopped
    assert 0 <= rows_read() <= 4
    assert rows_read(windows=2) == 6
    limits = MediaLimits(max_pixels=1)  # what was refused under others is not skipped for good
    assert rows_read(cache=tmp_path / "small", limits=limits) == rows_read(cache=tmp_path / "small") == 6
    monkeypatch.setattr(processor.feature_extractor.extractor, "return_attention_mask", None)  # of sound
    model.config.set_use("video", projection="mlp")
    processor.save_pretrained(tmp_path / "saved")
    save_remote_code(tmp_path / "saved")
    own, processor = processor, VattProcessor.from_pretrained(tmp_path / "saved")
    assert rows_read() == 1
    assert not ModelIdentity.of(model, processor).differences(ModelIdentity.of(model, own))
    assert rows_read(locked={"video": "another", "text": "another"}) == 6  # whoever asks has the hashes
    monkeypatch.setattr(processor.video_processor, "image_mean", [0.1, 0.2, 0.3])
    assert rows_read() == 6
    monkeypatch.setattr(processor.video_processor, "image_mean", [0.5, 0.5, 0.5])
    model.vatt.head.text_vt.weight.data.add_(1)  # other heads
    assert rows_read() == 6
    with torch.no_grad():
        next(model.vatt.video_model.parameters()).add_(0.1)
    assert rows_read() == 6


def test_two_processes_share_the_work(built, folder, tmp_path):
    model, processor = copy.deepcopy(built[0]), built[1]
    model.lock("video", "audio", "text")
    clips = load_clips(folder, "train")
    whole = _features(model, processor, clips, tmp_path / "one")
    meeting, saved = threading.Barrier(2, timeout=60), threading.Event()

    def wait() -> None:
        saved.set()
        meeting.wait()

    def part(number: int) -> Any:
        if number == 1:  # it finds what the first one has saved
            assert saved.wait(60)
        own = copy.deepcopy(model), processor, clips, tmp_path / "two"
        return _features(*own, share=(number, 2), wait=wait)

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(part, range(2)))
    for found in parts:
        torch.testing.assert_close(found.media, whole.media, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.text, whole.text, atol=1e-5, rtol=1e-5)
        assert torch.equal(found.spans, whole.spans) and found.skipped == whole.skipped


def test_bfloat16(built, folder, tmp_path):
    model, processor = copy.deepcopy(built[0]), built[1]
    model.lock("video", "text")
    clips = load_clips(folder, "train")
    exact = _features(model, processor, clips, tmp_path)
    half = _features(model, processor, clips, tmp_path, dtype="bfloat16")
    again = _features(model, processor, clips, tmp_path, dtype="bfloat16")
    assert half.media["video"].dtype == half.text.dtype == torch.bfloat16
    assert torch.equal(half.media["video"], again.media["video"])
    torch.testing.assert_close(half.media["video"].float(), exact.media["video"], atol=0.05, rtol=0.05)


def test_what_cannot_be_cached(built, folder, tmp_path):
    model, processor = copy.deepcopy(built[0]), built[1]
    clips = load_clips(folder, "train").select(range(2))
    model.lock("video", "text")
    found = _features(model, processor, clips, tmp_path)
    options: dict[str, Any] = {"random_window": True, "window_choices": 3}
    with pytest.raises(ValueError, match="flip_probability, color_probability, crop_resize_style of"):
        FeatureDataset(clips, processor, found, augmentation=VattAugmentation(), **options)
    with pytest.raises(ValueError, match=r"features are of {'video': 3} windows, but 2 are used"):
        FeatureDataset(clips, processor, found, random_window=True, window_choices=2)
    decoded, _ = decode_clips(clips, processor)
    with pytest.raises(ValueError, match="leaves no files"):
        _features(model, processor, decoded, tmp_path)
