# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`examples/embed_corpus.py` in a folder that holds embeddings already: none of them is of something else."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clip_folders import make_folder, save_model
from media_factory import truncate
from scripts import EXAMPLES, call

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import clip_dataset
from modeling_vatt.processors import MediaError


@pytest.fixture
def embed(tmp_path, monkeypatch):
    """Embeds four clips, two a file, and returns what the folder holds by number of clip."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import embed_corpus

    monkeypatch.setattr(embed_corpus, "run_tasks", lambda function, tasks, *_: map(function, tasks))
    save_model(tmp_path / "model")
    make_folder(tmp_path / "videos", 4)
    make_folder(tmp_path / "videos", 4, split="test", first=4)

    def run(**options: object) -> dict[int, list[float]]:
        options = {"model": "model", "dataset": "videos", "output_dir": "out", "clips_per_file": 2, **options}
        call("embed_corpus", **options)
        rows = pq.read_table(tmp_path / str(options["output_dir"])).to_pylist()
        return {row["clip"]: row["video_va_embeds"] for row in rows}

    monkeypatch.chdir(tmp_path)
    return run


def change(file: str, name: str, value: object) -> None:
    settings = json.loads(Path(file).read_text())
    part = settings.get("video_processor", settings)
    part[name] = value
    Path(file).write_text(json.dumps(settings))


def test_what_is_there_is_kept_and_replaced_files_are_embedded_anew(embed):
    before = embed()
    parts = sorted(Path("out").glob("part-*"))
    times = [path.stat().st_mtime_ns for path in parts]
    assert embed() == before and [path.stat().st_mtime_ns for path in parts] == times
    old, new = Path("videos/train/clip03.mp4"), Path("videos/test/clip05.mp4").read_bytes()
    stat, padding = old.stat(), b"\0" * 8
    old.write_bytes(new + padding)  # with the time of the old one
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = embed()
    assert parts[0].stat().st_mtime_ns == times[0] and parts[1].stat().st_mtime_ns > times[1]
    assert again[2] == before[2] and again[3] != before[3]
    assert again == embed(output_dir="fresh")
    truncate(parts[0], parts[0], 0.5)
    assert embed() == again


def test_clips_that_could_not_be_read_are_tried_again(embed, monkeypatch):
    """And only these; their rows hold nothing but the error."""
    Path("videos/train/clip00.mp4").write_bytes(b"broken")
    honest = clip_dataset.read_row

    def failing(row, *rest):
        if "clip01" in row["video"]["path"]:
            raise MediaError("clip01.mp4", "cannot be opened (Stale file handle)")
        return honest(row, *rest)

    monkeypatch.setattr(clip_dataset, "read_row", failing)
    before = embed()
    rows = pq.read_table("out").to_pylist()
    assert [name for name, value in rows[1].items() if value is not None] == ["clip", "name", "error"]
    monkeypatch.setattr(clip_dataset, "read_row", honest)
    read: list[str] = []
    monkeypatch.setattr(
        clip_dataset, "read_row", lambda row, *rest: read.append(row["video"]["path"]) or honest(row, *rest)
    )
    after = embed()
    assert [Path(path).name for path in read] == ["clip00.mp4", "clip01.mp4"]
    assert before[1] is None and after == {**before, 1: after[1]} == embed(output_dir="fresh")
    assert list(after) == [0, 1, 2, 3] and len(after[1]) == len(after[2])


@pytest.mark.parametrize(
    ("options", "spoil", "message"),
    [
        ({"split": "test"}, None, r"split train \(now test\)"),
        ({"clips_per_video": 2}, None, r"clips_per_video 1 \(now 2\)"),
        ({"media_limits": '{"max_pixels": 9}'}, None, "media_limits"),
        ({}, lambda: change("model/processor_config.json", "fps", 5.0), "video setting `fps`"),
        ({}, lambda: change("model/config.json", "temperature", 0.5), "model setting `temperature`"),
        ({}, lambda: Path("out/other.parquet").touch(), "other files too, such as other.parquet"),
        ({}, lambda: Path("out/_run.json").unlink(), "holds embeddings of something else"),
        ({}, lambda: Path("videos/train/metadata.jsonl").unlink(), "data "),
    ],
)
def test_other_embeddings_are_not_mixed_with_those_that_are_there(embed, options, spoil, message):
    embed()
    if spoil is not None:
        spoil()
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    with pytest.raises(SystemExit, match=message):
        embed(**options)
    assert before == {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}


def test_the_weights_count_not_the_name_of_their_folder(embed):
    before = embed()
    Path("model").rename("moved")
    assert embed(model="moved") == before
    model = VattForPreTraining.from_pretrained("moved")
    torch.nn.init.normal_(next(model.parameters()))
    model.save_pretrained("moved")
    with pytest.raises(SystemExit, match="the weights"):
        embed(model="moved")
    assert np.isfinite(list(before.values())).all()
