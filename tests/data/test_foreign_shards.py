# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tar files of other makers: every member is used, counted, or named by an error."""

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from clip_folders import small_processor, write_clip

from modeling_vatt.data import ClipDataset, ShardDataset, ShardError, all_captions, write_index


def pack(folder: Path, *members: tuple[str, Any] | tarfile.TarInfo, name: str = "theirs.tar") -> Path:
    """A tar file of names with bytes, texts or JSON, and of ready headers."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / name, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            path, content = member
            if not isinstance(content, bytes):
                content = (content if isinstance(content, str) else json.dumps(content)).encode()
            header = tarfile.TarInfo(path)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return folder / name


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def said(dataset: ShardDataset) -> dict[bytes, list[str]]:
    """Captions of each clip by its content."""
    return {dataset[n]["video"]["bytes"]: dataset[n]["captions"] for n in range(len(dataset))}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_text_and_json_are_joined_and_blanks_dropped(tmp_path, order):
    members = [
        ("1.txt", "\ufeffa dog\n"),
        ("1.json", {"captions": ["", " ", "a cat", None]}),
        ("1.mp4", b"1"),
    ]
    pack(tmp_path, *(members[number] for number in order))
    dataset = write_index(tmp_path)
    assert said(dataset) == {b"1": ["a cat", "a dog"]} and list(all_captions(dataset)) == [["a cat", "a dog"]]


def test_metadata_without_captions_leaves_the_text(tmp_path):
    """As video2dataset writes it: missing captions are NaN or null, bad sentences do not refuse the set."""
    sentences = [
        {"start": 0.0, "end": 1.0, "text": "yes"},
        {"start": float("nan"), "end": 1.0, "text": "no"},
        {"start": 0.0, "end": None, "text": "no"},
        {"start": 0.0, "end": 1.0, "text": None},
    ]
    pack(
        tmp_path,
        ("1.mp4", b"1"),
        ("1.txt", "a dog"),
        ("1.json", {"captions": None, "caption": float("nan"), "sentences": sentences, "width": 3}),
    )
    dataset = write_index(tmp_path)
    assert said(dataset) == {b"1": ["a dog"]}
    assert [sentence["text"] for sentence in dataset[0]["sentences"]] == ["yes"]
    counted = json.loads((tmp_path / "shards.json").read_text())["left_out"]
    assert counted == {"sentences: no time": 2, "sentences: no text": 1}


def test_dots_in_names(tmp_path):
    pack(
        tmp_path,
        ("./a/v1.0.mp4", b"one"),
        ("./a/v1.0.json", {"caption": "first"}),
        ("./a/v1.5.MP4", b"two"),
        ("./a/v1.5.json", {"caption": "second"}),
        ("b.left.mp4", b"left"),
        ("b.right.mp4", b"right"),
        ("b.json", {"caption": "both"}),
        ("c.mp4", b"c"),
        ("c.en.txt", "third"),
    )
    dataset = write_index(tmp_path)
    assert said(dataset) == {
        b"one": ["first"],
        b"two": ["second"],
        b"left": ["both"],
        b"right": ["both"],
        b"c": ["third"],
    }
    assert dataset.table[0]["key"] == "a/v1.0"


def test_keys_and_names_that_occur_twice(tmp_path):
    twice = [("1.mp4", b"one"), ("1.txt", "first"), ("1.mp4", b"two"), ("1.txt", "second")]
    kinds = [("2.mp4", b"three"), ("2.webm", b"four"), ("2.txt", "third")]
    pack(tmp_path / "good", *twice, *kinds)
    dataset = write_index(tmp_path / "good")
    expected = {b"one": ["first"], b"two": ["second"], b"three": ["third"], b"four": ["third"]}
    assert said(dataset) == expected
    assert dataset.table["key"][:] == ["1", "1#2", "2.mp4", "2.webm"]
    pack(tmp_path / "bad", ("1.mp4", b"one"), ("1.mp4", b"two"), ("1.txt", "whose?"))
    with pytest.raises(ShardError, match=r"theirs\.tar: .*'1\.txt' .it is there 1 times, '1\.mp4' 2 times"):
        write_index(tmp_path / "bad")


def test_links_stand_for_what_they_lead_to(tmp_path):
    pack(
        tmp_path,
        ("blobs/0a", b"content"),
        link("clips/1.mp4", "../blobs/0a", tarfile.SYMTYPE),
        ("clips/1.txt", "a dog"),
        link("clips/2.mp4", "blobs/0a", tarfile.LNKTYPE),
        link("clips/2.txt", "1.txt", tarfile.SYMTYPE),
        link("clips/3.mp4", "../../etc/passwd", tarfile.SYMTYPE),
        link("clips/4.mp4", "4.mp4", tarfile.SYMTYPE),
    )
    dataset = write_index(tmp_path)
    assert [dataset[n]["video"]["bytes"] for n in range(len(dataset))] == [b"content"] * 2
    assert list(all_captions(dataset)) == [["a dog"]] * 2
    counted = json.loads((tmp_path / "shards.json").read_text())["left_out"]
    assert counted["links to nothing in the shard, devices and pipes"] == 2


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_gnu_tar(tmp_path, kind):
    """Long names, hard links and dots, as the program writes them."""
    videos = tmp_path / "videos"
    deep = videos / ("long" * 30) / ("names" * 20)
    deep.mkdir(parents=True)
    (deep / "clip.v2.mp4").write_bytes(b"deep")
    (deep / "clip.v2.txt").write_text("a dog")
    (videos / "a.mp4").write_bytes(b"a")
    (videos / "b.mp4").hardlink_to(videos / "a.mp4")
    (videos / "c.mp4").symlink_to("a.mp4")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", f"--format={kind}", "-cf", out / "x.tar", "-C", videos, "."], check=True)
    dataset = write_index(out)
    found = [dataset[n]["video"]["bytes"] for n in range(len(dataset))]
    assert sorted(found) == [b"a", b"a", b"a", b"deep"] and said(dataset)[b"deep"] == ["a dog"]


def test_what_is_not_used_is_counted(tmp_path, caplog):
    members = [("1.mp4", b"1"), ("1.wav", b"x"), ("._1.mp4", b"x"), ("2.txt", "alone"), ("README", "x")]
    pack(tmp_path, *members)
    (tmp_path / "more.tar.gz").write_bytes(b"")
    assert len(write_index(tmp_path)) == 1
    counted = json.loads((tmp_path / "shards.json").read_text())["left_out"]
    assert counted == {
        ".wav files": 1,
        "hidden files": 1,
        "texts without a video": 1,
        "files without an ending": 1,
        "compressed tar files": 1,
    }
    pack(tmp_path / "none", ("1.wav", b"x"))
    with pytest.raises(ShardError, match=r"no videos in the tar files .1 \.wav files"):
        write_index(tmp_path / "none")


def test_damage_is_no_end(tmp_path):
    """`tarfile` takes a damaged header, and a file cut off between two members, for the end."""
    path = pack(tmp_path, *((f"{n}.mp4", bytes([n + 1]) * 600) for n in range(4)))
    content = path.read_bytes()
    member = 512 + 1024
    faults = {
        "no tar file": b"no tar file at all",
        "no header of a member at byte 3072": content[: 2 * member]
        + b"x" * 100
        + content[2 * member + 100 :],
        "the end mark is missing": content[: 2 * member],
        "unexpected end of data": content[: 2 * member - 200],
        "more after the end mark": content + content,
    }
    for reason, damaged in faults.items():
        path.write_bytes(damaged)
        with pytest.raises(ShardError, match=f"theirs.tar: .*{reason}"):
            write_index(tmp_path)
    path.write_bytes(content[: 4 * member + 1024])  # without padding
    assert len(write_index(tmp_path)) == 4


def test_text_that_has_no_utf8_form(tmp_path):
    pack(tmp_path, ("1.mp4", b"1"), ("1.json", r'{"caption": "half \ud83d", "source": "\udce9.mp4"}'))
    assert write_index(tmp_path)[0]["captions"] == ["half ?"]


def test_keys_that_begin_anew_in_every_shard(tmp_path):
    """Their videos are told apart, or they would be left out as negatives of each other."""
    for number in range(2):
        content = write_clip(tmp_path / "clip.mp4", number).read_bytes()
        pack(tmp_path, ("000.mp4", content), name=f"{number}.tar")
    items = ClipDataset(write_index(tmp_path), small_processor(), with_ids=True)
    assert int(items[0]["video_ids"][0]) != int(items[1]["video_ids"][0])
