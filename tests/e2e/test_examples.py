# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The scripts, run as a user runs them."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_folders import losses, make_folder, write_clip, write_rows
from media_factory import damage
from scripts import EXAMPLES, PRETRAINING, call, run

from modeling_vatt import VattForPreTraining
from modeling_vatt.processors import VattProcessor
from modeling_vatt.retrieval import Query, VideoSearch


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """20 training clips, 10 % of them broken, and 6 validation clips."""
    root = make_folder(tmp_path_factory.mktemp("videos") / "videos", 20, silent=[3], speechless=[4])
    for number in (7, 11):
        clip = root / "train" / f"clip{number:02d}.mp4"
        damage(clip, clip, first=0.0, last=1.0)
    return make_folder(root, 6, split="validation", first=20)


@pytest.fixture(scope="module")
def pretrained(videos, tmp_path_factory) -> tuple[Path, str]:
    """A pretrained model, and what the run printed."""
    folder = tmp_path_factory.mktemp("pretrained")
    output = run("run_pretraining.py", folder, dataset=videos, output_dir="model", **PRETRAINING)
    return folder / "model", output


def test_pretraining_skips_and_counts_broken_files(pretrained):
    folder, output = pretrained
    assert "Skipped 2 of 20 clips" in output and "clip07.mp4" in output and "clip11.mp4" in output
    assert [step for step, _ in losses(folder)] == list(range(1, 7))
    saved = ("model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "README.md")
    for name in (*saved, "vatt_model.py", "vatt_processing.py"):
        assert (folder / name).is_file(), name


def test_another_loss_than_that_of_the_checkpoint(pretrained, videos, tmp_path):
    """Its temperature and bias begin anew, are trained and saved; of a new model the config has the name."""
    folder, _ = pretrained
    options = {**PRETRAINING, "dataset": videos, "loss": "sigmoid", "num_steps": 2, "validation_split": ""}
    further = {name: value for name, value in options.items() if name not in ("preset", "config_overrides")}
    further["decode_size"] = 40
    output = run("run_pretraining.py", tmp_path, output_dir="further", model=folder, **further)
    assert "new: loss_scales" in output
    for place, chosen in ((folder, False), (tmp_path / "further", True)):
        assert (VattProcessor.from_pretrained(place).video_processor.decode_size == 40) is chosen
    settings = {**json.loads(options["config_overrides"]), "mask_false_negatives": True}
    options |= {"config_overrides": json.dumps(settings), "clips_per_video": 2, "ema_decay": 0.5}
    run("run_pretraining.py", tmp_path, output_dir="new", **options)
    for name in ("further", "new"):
        model = VattForPreTraining.from_pretrained(tmp_path / name)
        assert model.config.loss_type == "sigmoid"
        for scale in model.loss_scales.values():
            temperature, bias = scale()
            assert 0 < abs(temperature.item() - 0.07) < 0.01 and 0 < abs(bias.item() + 10) < 0.1


def test_two_processes_train_like_one(tmp_path):
    """The same global batch on one process, on two, and on two that hold it in parts: the same losses."""
    videos = make_folder(tmp_path / "videos", 12, silent=[3], speechless=[4])
    settings = json.loads(PRETRAINING["config_overrides"])
    for name in ("video_config", "audio_config"):  # DropToken draws per process and part
        settings[name] = {**settings[name], "drop_token_rate": 0.0}
    options = {
        "dataset": videos,
        **PRETRAINING,
        "config_overrides": json.dumps(settings),
        "validation_split": "",
        "save_every": 0,
        "num_steps": 4,
        # Batch norm over six clips amplifies differences by rounding; small updates keep them small.
        "learning_rate": 1e-4,
        "adam_epsilon": 1e-3,
    }
    options.pop("batch_size")
    found = {}
    for name, count, more in (("one", 1, {}), ("two", 2, {}), ("parts", 2, {"micro_batch_size": 1})):
        output = tmp_path / name
        run(
            "run_pretraining.py",
            tmp_path,
            count=count,
            output_dir=output,
            global_batch_size=6,
            **more,
            **options,
        )
        found[name] = losses(output)
    for name in ("two", "parts"):
        assert [step for step, _ in found[name]] == [step for step, _ in found["one"]]
        expected = pytest.approx([loss for _, loss in found["one"]], rel=2e-4)
        assert [loss for _, loss in found[name]] == expected


def test_processes_that_do_not_know_of_each_other_stop(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "0")
    options = {"dataset": videos, "output_dir": "model", **PRETRAINING}
    output = run("run_pretraining.py", tmp_path, expect=1, count=2, **options)
    assert "`accelerate launch --cpu`" in output and not (tmp_path / "model" / "config.json").exists()


def check_combined(search: VideoSearch, rows: list[dict], figures: dict) -> None:
    """Precision and calibration of words with a sound, window by window."""
    half = {row["file_name"]: row["half"] for row in rows}
    _, va = search.index.vectors("va")
    moments, vt = search.index.vectors("vt")
    shares, best, right, chances = [], [], [], []
    for row in rows:
        own = row["file_name"]
        try:
            read = search.read(Query(text=(row["captions"] or [""])[0], audio=search.index.root / own))
            queries = search.embed(read)
        except ValueError:  # no caption, or silent
            continue
        found = [m for m in search.near(queries, top_k=100) if m.path != own][:3]
        best.append(np.mean([half[m.path] == row["half"] for m in found]))
        others = [half[moment.path] == row["half"] for moment in moments if moment.path != own]
        chances.append(np.mean(others))
        scale = search.calibration.scale(queries)
        for moment, score in zip(moments, va @ queries["va"] + vt @ queries["vt"], strict=True):
            if moment.path != own:
                shares.append(scale.share(score))
                right.append(half[moment.path] == row["half"])
    combined = figures["text+audio"]
    assert combined["queries"] == len(best) > 1 and combined["P@3"] == pytest.approx(np.mean(best), abs=1e-4)
    assert figures["video"]["queries"] == len(rows)
    assert combined["chance"] == pytest.approx(np.mean(chances), abs=1e-4)
    for declared, found in combined["calibration"].items():
        fits = np.array(shares) <= float(declared)
        assert found["measured"] == pytest.approx(fits.mean(), abs=1e-5)
        assert found["right"] == (
            pytest.approx(np.array(right)[fits].mean(), abs=1e-4) if fits.any() else None
        )


def test_precision_of_a_search(pretrained, videos, tmp_path, monkeypatch):
    """Clips are right in the columns that agree; the figures are those of a count by hand."""
    folder, _ = pretrained
    rows = [json.loads(line) for line in (videos / "train" / "metadata.jsonl").read_text().splitlines()]
    clips = tmp_path / "clips"
    clips.mkdir()
    kept = [row for row in rows if (videos / "train" / row["file_name"]).stat().st_size > 500][:6]
    for number, row in enumerate(kept):
        (clips / row["file_name"]).write_bytes((videos / "train" / row["file_name"]).read_bytes())
        row.update(same="yes", half="ab"[number % 2], own=number)
    write_clip(clips / kept[1]["file_name"], 1, seconds=5.0)  # more windows than the others
    write_rows(clips, kept)
    search = VideoSearch.create(clips, folder)
    search.update()

    def measure(column: str, **more: bool) -> dict:
        output = tmp_path / f"{column}.json"
        call("search_precision", index=clips, match=column, top_k=3, output=output, **more)
        return json.loads(output.read_text())

    for column, texts in (("same", 1.0), ("half", None)):
        figures = measure(column)
        shares = []
        for row in kept:
            if row["captions"]:
                found = search.text(row["captions"][0], top_k=3)
                label = {other["file_name"]: other[column] for other in kept}
                shares.append(np.mean([label[moment.path] == row[column] for moment in found]))
        assert figures["text"]["queries"] == len(shares)
        counts = {file["path"]: file["windows"] for file in search.index.files()}
        chances = [
            sum(counts[other["file_name"]] for other in kept if other[column] == row[column])
            for row in kept
            if row["captions"]
        ]
        assert figures["text"]["chance"] == pytest.approx(np.mean(chances) / sum(counts.values()), abs=1e-4)
        assert figures["text"]["P@3"] == pytest.approx(texts or np.mean(shares), abs=1e-4)
        with_sound = figures["audio"]
        if column == "same":
            assert with_sound["P@1"] == with_sound["chance"] == figures["text"]["chance"] == 1.0
        else:  # the video that asked is none of the others of its half
            assert 0 < with_sound["chance"] < figures["text"]["chance"]
    check_combined(search, kept, measure("half", combine=True, calibrate=True))
    near, read, asked = VideoSearch.near, VideoSearch.read, []

    def noted(self: VideoSearch, query: Query) -> Any:
        asked.append(query)
        return read(self, query)

    def own_first(self: VideoSearch, queries: dict, top_k: int) -> list:
        found = near(self, queries, top_k=top_k)
        own = asked[-1].audio
        return found if own is None else ([replace(found[0], path=own.name)] * 20 + found)[:top_k]

    # The windows of the video that asked may come before all others.
    monkeypatch.setattr(VideoSearch, "near", own_first)
    monkeypatch.setattr(VideoSearch, "read", noted)
    assert measure("same")["audio"]["P@3"] == 1.0
    for column, message in (("own", "No two videos agree"), ("size", "no column size")):
        with pytest.raises(SystemExit, match=message):
            measure(column)


def test_wrong_captions_are_given_to_every_clip(videos):
    import datasets

    from modeling_vatt.data import load_clips

    sys.path.insert(0, str(EXAMPLES))
    from run_pretraining import shuffle_captions

    clips = load_clips(videos, "validation", cache_dir=str(videos.parent / "cache"))
    assert isinstance(clips, datasets.Dataset)
    shuffled = shuffle_captions(clips, seed=0)
    assert sorted(map(str, shuffled["captions"])) == sorted(map(str, clips["captions"]))
    assert not any(one == other for one, other in zip(shuffled["captions"], clips["captions"], strict=True))


def test_demo_from_nothing_to_report(tmp_path):
    output = run(
        "run_demo.py", tmp_path, output_dir="demo", train_clips=16, test_clips=6, num_steps=2, batch_size=8
    )
    demo = tmp_path / "demo"
    for part in ("text -> video", "sound -> video", "chance", "Report:"):
        assert part in output
    metrics = json.loads((demo / "test_metrics.json").read_text())
    assert metrics["gallery_size"] == 6
    page = (demo / "report.html").read_text()
    assert page.count("data:image/png;base64") == 3 and page.count("data:image/jpeg;base64") == 3 * 2 * 5
    assert page.count("<audio controls") == 3
    assert len(re.findall(r'class="(?:right|wrong)"', page)) == 3 * 2 * 5 * 4
    assert "http" not in page.replace("http-equiv", "")
    assert np.isfinite(metrics["mean_recall"])
