# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What metadata and folders say is taken as it is written: labels, captions, sentences, columns."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import datasets
import pytest
from clip_folders import small_processor, write_clip, write_rows

from modeling_vatt.data import (
    ClipDataset,
    ShardSettings,
    all_captions,
    class_names,
    clip_name,
    decode_clips,
    folder_clips,
    load_clips,
    load_labelled,
    load_msrvtt,
    open_table,
    prepare_shards,
)
from modeling_vatt.data.tables import warn_of_shared_files
from modeling_vatt.processors.media import PICTURE_SUFFIXES, VIDEO_SUFFIXES


@pytest.fixture
def folder(tmp_path) -> Path:
    """Names of videos, without content: nothing here opens them."""
    (tmp_path / "clips").mkdir()
    for number in range(6):
        (tmp_path / "clips" / f"{number}.mp4").touch()
    return tmp_path / "clips"


def label_words(table: datasets.Dataset) -> list[str]:
    return [class_names(table)[label] for label in table["label"]]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["001", "01", "1", "10", "2"], ["001", "01", "1", "10", "2"]),
        (["NA", "null", "None", "nan", "N/A"], ["NA", "null", "None", "nan", "N/A"]),
        (["3", "", "10", "2"], ["3", "10", "2"]),
        (["1.0", "1", "1e3", "true", "True"], ["1.0", "1", "1e3", "true", "True"]),
        (["2020-01-01", "00:01:00", "  ", " x "], ["2020-01-01", "00:01:00", "x"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "dataset"])
def test_labels_are_taken_as_they_are_written(folder, tmp_path, written, names, kind):
    rows = [(f"{number}.mp4", label) for number, label in enumerate(written)]
    if kind == "jsonl":
        lines = [json.dumps({"file_name": file, "label": label}) for file, label in rows]
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [f"file_name{mark}label", *(f"{file}{mark}{label}" for file, label in rows)]
    if kind == "dataset":
        (tmp_path / "rows.csv").write_text("\n".join(lines))
        options = {"media_column": "file_name", "data_files": str(tmp_path / "rows.csv")}
        table = load_labelled("csv", "train", "video", **options)
    else:
        (folder / f"metadata.{kind}").write_text("\n".join(lines))
        table = load_labelled(folder, "train", "video")
    assert label_words(table) == names
    numbers = sorted((name for name in names if name.isdecimal()), key=lambda name: (int(name), name))
    assert class_names(table)[: len(numbers)] == numbers


def test_missing_numbers_do_not_make_floats(folder):
    """From a table of pandas, where a blank cell makes floats."""
    rows = {"video": [f"{folder}/{n}.mp4" for n in range(4)], "label": [10.0, float("nan"), 9.0, 10.0]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "rows.parquet")
    options = {"media_column": "video", "data_files": str(folder / "rows.parquet")}
    table = load_labelled("parquet", "train", "video", **options)
    assert class_names(table) == ["9", "10"] and list(table["label"]) == [1, 0, 1]


def test_the_class_is_the_folder_under_the_split(tmp_path, caplog):
    for name in ("star/day1/x.mp4", "star/day2/y.mp4", "moon/day1/x.mp4"):
        for split in ("train", "validation"):
            path = tmp_path / "sky" / split / name
            path.parent.mkdir(parents=True)
            path.touch()
    for split in ("train", "validation", "train[:100%]"):
        table = load_labelled(tmp_path / "sky", split, "video")
        assert class_names(table) == ["moon", "star"] and len(table) == 3
        for row, name in zip(table, label_words(table), strict=True):
            assert f"/{name}/" in row["video"]["path"]
    assert "different depths" not in caplog.text
    (tmp_path / "sky" / "train" / "moon" / "z.mp4").touch()
    assert len(load_labelled(tmp_path / "sky", "train", "video")) == 4
    assert "different depths" in caplog.text and "moon/z.mp4" in caplog.text
    (tmp_path / "sky" / "train" / "loose.mp4").touch()
    with pytest.raises(ValueError, match=r"1 files lie beside the class folders, such as .*loose\.mp4"):
        load_labelled(tmp_path / "sky", "train", "video")


def test_a_file_is_in_one_split_and_once(tmp_path):
    """Also where classes and parts of a split are called as splits are: the first name in a path counts."""
    names = ("dog/a.mp4", "test drive/a.mp4", "test drive/b.mp4", "val/a.mp4")
    for part in ("train", "test/test_1", "test/test_2"):
        for name in names:
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    listed = {}
    for split in ("train", "test"):
        files = [row["path"] for row in open_table(tmp_path, split, "video")["video"]]
        assert len(files) == len(set(files)) and all(f"{tmp_path}/{split}/" in file for file in files)
        listed[split] = files
    assert [len(files) for files in listed.values()] == [4, 8]
    with pytest.raises(ValueError, match='Unknown split "validation"'):
        open_table(tmp_path, "validation", "video")
    shutil.rmtree(tmp_path / "test" / "test_2")
    (tmp_path / "test" / "test_1").rename(tmp_path / "moved")
    (tmp_path / "test").rmdir()
    (tmp_path / "moved").rename(tmp_path / "test")
    table = load_labelled(tmp_path, "train+test", "video")
    assert class_names(table) == ["dog", "test drive", "val"] and len(table) == 8
    for row, name in zip(table, label_words(table), strict=True):
        assert row["video"]["path"].split("/")[-2] == name


@pytest.mark.parametrize("other", ["cat/b.mp4", "metadata.csv"])
def test_files_in_no_split_are_told(tmp_path, caplog, other):
    for name in ("train ride/a.mp4", other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert len(load_clips(tmp_path, "train")) == 1
    assert "left out 1 files that are in no split" in caplog.text and other in caplog.text


def test_cells_with_newlines_marks_and_odd_spaces(folder):
    """Excel's byte order mark, newlines and separators in quotes, U+2028, UTF-16."""
    text = 'file_name,caption\r\n0.mp4,"two\nlines, ""quoted"""\r\n1.mp4,a\u2028b\r\n2.mp4,\r\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (folder / "metadata.csv").write_bytes(text.encode(encoding))
        table = load_clips(folder, "train")
        assert list(table["captions"]) == [['two\nlines, "quoted"'], ["a\u2028b"], []], encoding
    (folder / "metadata.csv").write_bytes("file_name,caption\n0.mp4,café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"metadata\.csv: not UTF-8 text \(byte 0xe9 in line 2\)"):
        load_clips(folder, "train")
    for content, message in (
        ('file_name,caption\n0.mp4,"open\n1.mp4,b\n', "line 3 cannot be read as CSV"),
        ("file_name,caption\n0.mp4,a, b\n", "line 2 has 3 cells for 2 columns"),
        ("file_name,caption,caption\n0.mp4,a,b\n", "two columns are called 'caption'"),
        ("file,caption\n0.mp4,a\n", "no column `file_name`"),
        ("file_name,\0\n0.mp4,a\n", "cannot be read as values of one kind"),
        ("file_name,caption\n../0.mp4,a\n", "no name of a file in its folder"),
        ("file_name,start\n0.mp4,00:01\n", "column 'start' holds .* read as seconds"),
    ):
        (folder / "metadata.csv").write_text(content)
        with pytest.raises(ValueError, match=message):
            load_clips(folder, "train")


def test_missing_captions_are_no_words(folder):
    lines = [
        '{"file_name": "0.mp4", "caption": null}',
        '{"file_name": "1.mp4", "caption": NaN}',
        '{"file_name": "2.mp4", "caption": " "}',
        '{"file_name": "3.mp4"}',
        '{"file_name": "4.mp4", "caption": "nan"}',
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert list(load_clips(folder, "train")["captions"]) == [[], [], [], [], ["nan"]]
    annotations = folder / "MSRVTT_JSFUSION_test.csv"
    annotations.write_text('video_id,sentence\n0,\n0,"a\nb"\n1,none\n')
    assert list(load_msrvtt(folder)["captions"]) == [["a\nb"], ["none"]]
    rows = datasets.Dataset.from_list([{"captions": ["", None, "a"], "sentences": None}])
    assert list(all_captions(rows)) == [["a"]]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "dataset"])
def test_captions_in_several_columns(folder, tmp_path, kind, caplog):
    """Some rows have one, some another: none loses its words."""
    rows = [
        {"file_name": "0.mp4", "captions": "clip 0"},
        {"file_name": "1.mp4", "caption": "clip 1"},
        {"file_name": "2.mp4", "text": "clip 2"},
        {"file_name": "3.mp4", "captions": "clip 3", "text": "clip 9"},
        {"file_name": "4.mp4", "captions": " "},
    ]
    if kind == "csv":
        lines = ["file_name,text,captions,caption"]
        lines += [",".join(row.get(name, "") for name in lines[0].split(",")) for row in rows]
        (folder / "metadata.csv").write_text("\n".join(lines))
        table = load_clips(folder, "train")
    elif kind == "jsonl":
        rows[0]["captions"] = ["clip 0"]  # type: ignore[assignment]
        rows[3]["captions"] = ["clip 3"]  # type: ignore[assignment]
        rows[4]["captions"] = []  # type: ignore[assignment]
        write_rows(folder, rows)
        table = load_clips(folder, "train")
    else:
        columns = {
            name: [row.get(name) for row in rows] for name in ("file_name", "captions", "caption", "text")
        }
        datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "rows.parquet")
        table = load_clips("parquet", "train", "file_name", data_files=str(tmp_path / "rows.parquet"))
    assert list(table["captions"]) == [["clip 0"], ["clip 1"], ["clip 2"], ["clip 3"], []]
    assert "1 clips have their captions in the column 'caption'" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "embedded", "nameless"])
def test_rows_of_one_clip_are_one_clip_with_several_captions(tmp_path, kind, caplog):
    """As in MSR-VTT; parts of a file, and other files of the same name and size, are clips of their own."""
    texts = ["clip 0", "clip 1", "grey number 0", "a tone", "grey", "clip 9"]
    files, starts = ["0", "1", "0", "0", "2", "0"], ["", "", "", "0.5", "", "0"]
    if kind == "csv":
        for name in set(files):
            (tmp_path / f"{name}.mp4").touch()
        lines = [f"{file}.mp4,{text},{start}" for file, text, start in zip(files, texts, starts, strict=True)]
        (tmp_path / "metadata.csv").write_text("\n".join(["file_name,caption,start", *lines]))
        table = load_clips(tmp_path, "train")
    else:
        path = None if kind == "nameless" else "a.mp4"
        videos = [{"path": path, "bytes": file.encode()} for file in files]
        rows = {"video": videos, "caption": texts, "start": [float(start or "nan") for start in starts]}
        features = datasets.Features(
            {
                "video": datasets.Video(decode=False),
                "caption": datasets.Value("string"),
                "start": datasets.Value("float64"),
            }
        )
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "rows.parquet")
        table = load_clips("parquet", "train", data_files=str(tmp_path / "rows.parquet"))
    joined = [["clip 0", "grey number 0", "clip 9"], ["clip 1"], ["a tone"], ["grey"]]
    assert list(table["captions"]) == joined and list(table["start"]) == [None, None, 0.5, None]
    assert "6 rows are 4 clips" in caplog.text


def test_rows_of_one_clip_with_sentences_and_shards_of_them(tmp_path):
    folder = tmp_path / "clips" / "train"
    folder.mkdir(parents=True)
    write_clip(folder / "a.mp4", 1)
    said = [{"start": 0.0, "end": 1.0, "text": text} for text in ("clip 1", "clip 2")]
    write_rows(
        folder,
        [{"file_name": "a.mp4", "sentences": [said[0]]}, {"file_name": "./a.mp4", "sentences": said[1:]}],
    )
    table = load_clips(tmp_path / "clips", "train")
    assert list(table["sentences"]) == [said]
    shards, failures = prepare_shards(folder_clips(tmp_path / "clips", "train"), tmp_path / "shards")
    assert len(shards) == 1 and not failures and shards[0]["sentences"] == said


@pytest.mark.parametrize("several", [False, True])
def test_a_file_with_other_labels_in_another_row(folder, several, caplog):
    def load(*rows: tuple[str, str, float]) -> datasets.Dataset:
        labels = [label.split("+") if several else label for _, label, _ in rows]
        columns = [{"file_name": f"{file}.mp4", "start": start} for file, _, start in rows]
        write_rows(folder, [{**row, "label": label} for row, label in zip(columns, labels, strict=True)])
        return load_labelled(folder, "train", "video")

    assert len(load(("0", "ab", 0), ("0", "ba", 1), ("1", "ab", 0))) == 3 and "repeat" not in caplog.text
    assert len(load(("0", "ab+c", 0), ("0", "c+ab" if several else "ab+c", 0), ("1", "ba", 0))) == 3
    assert "1 rows repeat a file and its label, such as" in caplog.text
    with pytest.raises(ValueError, match=r"0\.mp4 is .*ab.* in one row and .*ba.* in another"):
        load(("0", "ab", 0), ("1", "ab", 0), ("0", "ba", 0))


@pytest.mark.parametrize("kind", ["folder", "embedded"])
def test_files_in_two_splits_are_told(folder, tmp_path, kind, caplog):
    """Rows that are parts of files, divided by their number."""
    files = [f"{number // 2}.mp4" for number in range(10)]
    if kind == "folder":
        write_rows(folder, [{"file_name": file, "start": n % 2} for n, file in enumerate(files)])
        halves = [load_clips(folder, split) for split in ("train[:50%]", "train[50%:]", "train[60%:]")]
    else:
        videos = [{"path": file, "bytes": file.encode() * (n > 7 or 9)} for n, file in enumerate(files)]
        table = datasets.Dataset.from_dict({"video": videos})
        halves = [table.select(range(*rows)) for rows in ((0, 5), (5, 10), (6, 10))]
    caplog.clear()
    warn_of_shared_files(halves[0], halves[2], "video")
    assert not caplog.messages
    warn_of_shared_files(halves[0], halves[1], "video")
    assert "1 of the 5 clips to measure with have the names" in caplog.text


def test_lists_written_as_text(folder):
    """By pandas into CSV: neither one long caption nor a class for each combination."""
    rows = ["\"['a dog', 'it runs']\"", '"[""a cat\'s""]"', "[]"]
    lines = [f"{number}.mp4,{text}" for number, text in enumerate(rows)]
    for column, load in (("caption", load_clips), ("label", load_labelled)):
        more = ("video",) if column == "label" else ()
        (folder / "metadata.csv").write_text("\n".join([f"file_name,{column}", *lines]))
        with pytest.raises(ValueError, match=f"column '{column}': .* is a list written as text"):
            load(folder, "train", *more)
        (folder / "metadata.csv").write_text("\n".join([f"file_name,{column}", *lines, "3.mp4,[Music]"]))
        assert len(load(folder, "train", *more)) == 4


def test_columns_that_are_called_almost_right_are_told(folder, caplog):
    (folder / "metadata.csv").write_text("file_name,Caption,start_time,End,ending\n0.mp4,a,1,2,b\n")
    load_clips(folder, "train")
    assert "start_time, End limit no part" in caplog.text and "clips have no words" in caplog.text


def test_sentences_without_times_or_words_are_left_out_and_listed(folder, caplog):
    good = {"start": 1, "end": 2.5, "text": "clip 3"}
    bad = [
        {**good, "start": float("nan")},
        {**good, "end": None},
        {**good, "text": None},
        {**good, "text": " "},
    ]
    rows = [{"file_name": "0.mp4", "sentences": [*bad, good]}, {"file_name": "1.mp4", "sentences": [bad[0]]}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = load_clips(folder, "train")
    assert list(table["sentences"]) == [[good], []]
    assert "left out 5 sentences" in caplog.text and "0.mp4" in caplog.text
    assert list(all_captions(table)) == [["clip 3"], []]


@pytest.mark.parametrize(
    ("columns", "chosen", "words"),
    [
        ({"text": "clip 1", "sentences": [{"start": 0.0, "end": 1.0, "text": "clip 2"}]}, "text", "clip 1"),
        ({"captions": ["clip 1"], "sentences": ["clip 2"]}, None, "clip 1"),
        ({"captions": ["clip 1"], "sentences": ["clip 2"]}, "sentences", "clip 2"),
        ({"captions": ["clip 1"], "told": "clip 2"}, "told", "clip 2"),
        ({"captions": ["clip 1"], "said": [{"start": 0, "end": 1, "text": "clip 2"}]}, "said", "clip 2"),
        ({"text": "clip 1", "sentences": [{"start": 0.0, "end": 1.0, "text": "clip 2"}]}, None, "clip 2"),
    ],
)
def test_the_caption_column_that_is_named_is_taken(tmp_path, columns, chosen, words):
    write_clip(tmp_path / "a.mp4", 1)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", **columns}))
    table = load_clips(tmp_path, "train", caption_column=chosen)
    processor = small_processor()
    ids = ClipDataset(table, processor)[0]["input_ids"]
    assert ids.tolist() == processor(text=[[words]])["input_ids"].tolist()


def test_columns_of_the_user_stay_as_they_are(tmp_path):
    """Those that are called as something of ours: in clips decoded once, and in `KEY.json` of shards."""
    folder = tmp_path / "clips" / "train"
    folder.mkdir(parents=True)
    write_clip(folder / "a.mp4", 1)
    own = {
        "source": "a camera",
        "source_start": 7,
        "name": "n",
        "duration": "long",
        "error": "none",
        "frames": 3,
    }
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", **own}))
    decoded, skipped = decode_clips(load_clips(tmp_path / "clips", "train"), small_processor())
    assert not skipped and {name: decoded[0][name] for name in own} == own
    for reencode in (False, True):
        out = tmp_path / f"shards{reencode}"
        settings = {"reencode": True, "size": 16} if reencode else {}
        shards, _ = prepare_shards(folder_clips(tmp_path / "clips", "train"), out, ShardSettings(**settings))
        assert clip_name(shards, 0) == "train/a.mp4"
        with tarfile.open(out / "shard-000000.tar") as tar:
            (text,) = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore
        assert {name: {**text, **text["more"]}[name] for name in own} == own


def test_files_that_no_row_names_are_told(folder, caplog):
    """Added later, or called in another Unicode form than on the disk."""
    (folder / "café.mp4").touch()
    rows = [{"file_name": f"{number}.mp4", "caption": "a"} for number in range(6)]
    write_rows(folder, [*rows, {"file_name": "./0.mp4", "caption": "b"}])
    assert len(load_clips(folder, "train")) == 6
    assert "left out 1 files that are in no row of the metadata, such as" in caplog.text
    caplog.clear()
    write_rows(folder, [*rows, {"file_name": "café.mp4", "caption": "b"}])
    assert len(load_clips(folder, "train")) == 7 and not caplog.messages


@pytest.mark.parametrize(("media", "taken"), [("video", 3), ("audio", 4), ("image", 2)])
def test_files_that_are_passed_over_are_counted(tmp_path, monkeypatch, caplog, media, taken):
    for name in ("a.MTS", "b.vob", "c.3gp", "d.flac", "e.jpg", "f.TIFF", "g.txt", "h.xyz", "i"):
        (tmp_path / name).touch()
    assert len(open_table(tmp_path, "train", media)) == taken
    (message,) = caplog.messages
    assert sum(map(int, re.findall(r"(\d+) (?:\.|without)", message))) == 9 - taken and "1 .xyz" in message
    sets = (VIDEO_SUFFIXES, PICTURE_SUFFIXES)
    try:  # the lists may be extended
        for endings in sets:
            endings.add(".xyz")
        assert len(open_table(tmp_path, "train", media)) == taken + 1
    finally:
        for endings in sets:
            endings.discard(".xyz")
