# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluation sets in their official layouts, made in miniature."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from modeling_vatt.data import (
    cross_validation,
    load_esc50,
    load_hmdb51,
    load_msrvtt,
    load_ucf101,
    load_youcook2,
)


def names(table: datasets.Dataset, indices: np.ndarray, column: str = "video") -> list[str]:
    return [Path(table[int(index)][column]["path"]).name for index in indices]


@pytest.fixture
def ucf101(tmp_path) -> Path:
    """Two classes of three clips; each split tests another one."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 YoYo\n2 Archery\n")  # not the order of the alphabet
    clips = [f"{name}/v_{name}_g0{number}.avi" for name in ("Archery", "YoYo") for number in (1, 2, 3)]
    for split in (1, 2, 3):
        train = [f"{clip} {1 + ('Archery' in clip)}" for clip in clips if f"g0{split}" not in clip]
        test = [clip for clip in clips if f"g0{split}" in clip]
        (lists / f"trainlist0{split}.txt").write_text("\r\n".join(train) + "\r\n")
        (lists / f"testlist0{split}.txt").write_text("\n".join(test) + "\n")
    for clip in clips:
        (tmp_path / "UCF-101" / clip).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "UCF-101" / clip).touch()
    return tmp_path


def test_ucf101(ucf101):
    table = load_ucf101(ucf101)
    assert len(table) == 6 and table.features["label"].names == ["YoYo", "Archery"]
    assert all(
        Path(row["video"]["path"]).is_file() and row["video"]["bytes"] is None for row in table.to_list()
    )
    splits = cross_validation(table)
    assert list(splits) == ["split1", "split2", "split3"]
    for number, (train, test) in enumerate(splits.values(), start=1):
        assert names(table, test) == [f"v_Archery_g0{number}.avi", f"v_YoYo_g0{number}.avi"]
        assert sorted([*train, *test]) == list(range(6))
        assert [table[int(index)]["label"] for index in test] == [1, 0]


def test_layout_errors_name_the_file_and_the_remedy(ucf101, tmp_path):
    for number, name in enumerate(("Archery", "YoYo")):
        (ucf101 / "UCF-101" / name).rename(ucf101 / "UCF-101" / str(number))
    with pytest.raises(ValueError, match="no class folder such as YoYo"):
        load_ucf101(ucf101)
    (ucf101 / "ucfTrainTestlist" / "testlist02.txt").unlink()
    with pytest.raises(ValueError, match=r"testlist02\.txt: no such file\. Unpack UCF101"):
        load_ucf101(ucf101)
    for load, message in ((load_hmdb51, "_test_split1"), (load_esc50, "esc50.csv")):
        with pytest.raises(ValueError, match=message):
            load(tmp_path)
    annotations = tmp_path / "MSRVTT_JSFUSION_test.csv"
    annotations.write_text("video_id,sentence\nvideo7,a\n")
    for name in ("videos", "compressed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "video7.mp4").touch()
    with pytest.raises(ValueError, match=r"videos/video7\.mp4 and .*compressed/video7\.mp4 are both"):
        load_msrvtt(tmp_path)
    annotations.write_text("video_id,sentence\nvideo8,a\n")
    (tmp_path / "videos" / "video8.mp4").touch()
    assert [Path(row["path"]).name for row in load_msrvtt(tmp_path)["video"]] == ["video8.mp4"]
    annotations.unlink()
    for load in (load_msrvtt, load_youcook2):
        with pytest.raises(ValueError, match="Pass `annotations`"):
            load(tmp_path)
        (tmp_path / "broken.json").write_text("{")
        with pytest.raises(ValueError, match=r"broken\.json: not a JSON file"):
            load(tmp_path, tmp_path / "broken.json")


def test_hmdb51(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for name in ("wave", "brush_hair"):
        (tmp_path / name).mkdir()
        for split in (1, 2, 3):
            flags = [f"{name}{clip}.avi {(clip + split) % 3} " for clip in range(3)]
            (lists / f"{name}_test_split{split}.txt").write_text("\n".join(flags))
    table = load_hmdb51(tmp_path)
    assert table.features["label"].names == ["brush_hair", "wave"] and len(table) == 6
    splits = cross_validation(table)
    assert names(table, splits["split1"][0]) == ["brush_hair0.avi", "wave0.avi"]  # flag 1
    assert names(table, splits["split1"][1]) == ["brush_hair1.avi", "wave1.avi"]  # flag 2
    assert names(table, splits["split2"][1]) == ["brush_hair0.avi", "wave0.avi"]
    assert all(len(train) == len(test) == 2 for train, test in splits.values())  # flag 0 is in neither


def test_esc50(tmp_path):
    (tmp_path / "meta").mkdir()
    rows = [
        f"{fold}-{target}.wav,{fold},{target},{name},True,1,A"
        for fold in range(1, 6)
        for target, name in ((0, "dog"), (36, "vacuum_cleaner"), (5, "cat"))
    ]
    header = "filename,fold,target,category,esc10,src_file,take"
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join([header, *rows]))
    table = load_esc50(tmp_path)
    assert table.features["label"].names == ["dog", "cat", "vacuum_cleaner"]
    splits = cross_validation(table)
    assert list(splits) == [f"fold{number}" for number in range(1, 6)]
    assert names(table, splits["fold4"][1], "audio") == ["4-0.wav", "4-36.wav", "4-5.wav"]
    assert len(splits["fold4"][0]) == 12


def test_folds_of_a_table_without_any():
    labels = [0] * 8 + [1] * 4
    table = datasets.Dataset.from_dict({"label": labels})
    splits = cross_validation(table, num_folds=4)
    tests = np.concatenate([test for _, test in splits.values()])
    assert sorted(tests) == list(range(12))  # every clip is tested once
    for train, test in splits.values():
        assert sorted(np.array(labels)[test]) == [0, 0, 1] and not set(train) & set(test)
    assert all(
        (one[1] == other[1]).all()
        for one, other in zip(
            splits.values(), cross_validation(table, num_folds=4, seed=0).values(), strict=True
        )
    )
    for wrong in (1, 5):
        with pytest.raises(ValueError, match="rarest class, 4"):
            cross_validation(table, num_folds=wrong)
    with pytest.raises(ValueError, match="split1 has 1 training and 0 test"):
        cross_validation(table.select([0]).add_column("split1", ["train"]))


@pytest.mark.parametrize("embedded", [False, True])
def test_parts_of_a_file_stay_in_one_fold(embedded):
    """Or a probe is tested on what it was trained on."""
    names = [f"{number // 3}.mp4" for number in range(18)]
    files = [{"path": name, "bytes": name.encode() if embedded else None} for name in names]
    labels = np.arange(18) // 3 % 2
    table = datasets.Dataset.from_dict({"video": files, "label": labels})
    for train, test in cross_validation(table, num_folds=3).values():
        assert not set(train // 3) & set(test // 3) and len(test) == 6 and labels[test].mean() == 0.5
    with pytest.raises(ValueError, match="files of the rarest class, 3"):
        cross_validation(table, num_folds=4)


def test_msrvtt_in_both_forms(tmp_path):
    (tmp_path / "videos" / "all").mkdir(parents=True)
    (tmp_path / "videos" / "all" / "video7010.mkv").touch()
    rows = [
        "key,vid_key,video_id,sentence",
        'ret0,msr7010,video7010,"a cat, jumping"',
        "ret1,m,video7020,a dog",
    ]
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(rows))
    table = load_msrvtt(tmp_path)
    assert table["captions"][:] == [["a cat, jumping"], ["a dog"]]
    paths = [Path(video["path"]) for video in table["video"]]
    assert paths == [tmp_path / "videos" / "all" / "video7010.mkv", tmp_path / "video7020.mp4"]  # not there

    videos = [{"video_id": f"video{n}", "split": ("train", "test")[n % 2]} for n in range(4)]
    sentences = [{"video_id": f"video{n % 4}", "caption": f"caption {n}"} for n in range(12)]
    (tmp_path / "all.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    table = load_msrvtt(tmp_path, tmp_path / "all.json")
    assert table["name"][:] == ["video1", "video3"]
    assert table["captions"][0] == ["caption 1", "caption 5", "caption 9"]
    with pytest.raises(ValueError, match="no clips in the split 'validation'"):
        load_msrvtt(tmp_path, tmp_path / "all.json", "validation")


def test_youcook2(tmp_path):
    (tmp_path / "raw_videos" / "validation" / "113").mkdir(parents=True)
    (tmp_path / "raw_videos" / "validation" / "113" / "xHr8X2Wpmno.webm").touch()
    segments = [{"segment": [47, 60.5], "id": n, "sentence": f"step {n}"} for n in (0, 1)]
    database = {
        "xHr8X2Wpmno": {"subset": "validation", "annotations": segments},
        "other": {"subset": "training", "annotations": segments},
    }
    file = tmp_path / "annotations" / "youcookii_annotations_trainval.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"database": database}))
    table = load_youcook2(tmp_path)
    assert table["name"][:] == ["xHr8X2Wpmno_0", "xHr8X2Wpmno_1"]
    row = table[1]
    assert row["captions"] == ["step 1"] and (row["start"], row["end"]) == (47.0, 60.5)
    assert Path(row["video"]["path"]).is_file()
    assert load_youcook2(tmp_path, split="training")["name"][0] == "other_0"
