# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Labelled clips: where classes come from, how splits agree on them, and the items made of them."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from clip_folders import RATE, small_processor, write_clip, write_rows
from media_factory import tone, write_media
from PIL import Image

from modeling_vatt.data import (
    EpochSampler,
    LabelledDataset,
    SkippedClip,
    class_names,
    collate_clips,
    decode_clips,
    has_several_labels,
    load_labelled,
    match_classes,
)
from modeling_vatt.processors import MediaError, MediaLimits, VattAugmentation, read_picture


def write_sound(path: Path, *pitches: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mixture = sum(tone(1.0, RATE, pitch) for pitch in pitches) / len(pitches)
    return write_media(path, waveform=mixture, sampling_rate=RATE, audio_codec="pcm_s16le")


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    """A folder per class: videos of four containers, some of them silent, and one sound file."""
    root = tmp_path_factory.mktemp("classes")
    for split, names in (("train", ["cat", "dog"]), ("validation", ["dog", "cow"])):
        for place, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            write_clip(root / split / name / f"{name}1.mp4", place, sound=name != "cow")
            write_clip(root / split / name / f"{name}2.mkv", 7 + place, seconds=2.4)
    frames = [np.zeros((16, 16, 3), np.uint8)] * 8
    write_media(root / "train" / "dog" / "dog3.webm", frames=frames, fps=10, video_codec="libvpx-vp9")
    write_sound(root / "train" / "cat" / "cat3.wav", 300)
    return root


def test_a_folder_per_class(classes):
    """The classes are those of this split, whatever folders others have; every container counts, sound files
    do not."""
    train = load_labelled(classes, "train", "video")
    assert train.features["label"] == datasets.ClassLabel(names=["cat", "dog"])
    found = [(Path(row["video"]["path"]).name, row["label"]) for row in train]
    assert sorted(found) == [
        ("cat1.mp4", 0),
        ("cat2.mkv", 0),
        ("dog1.mp4", 1),
        ("dog2.mkv", 1),
        ("dog3.webm", 1),
    ]
    assert class_names(load_labelled(classes, "validation", "video")) == ["cow", "dog"]
    sounds = load_labelled(classes, "train", "audio")
    assert len(sounds) == 6 and not has_several_labels(sounds)
    assert "audio" in sounds.column_names and "video" not in sounds.column_names


def test_splits_are_brought_onto_the_classes_of_training(classes):
    validation = load_labelled(classes, "validation", "video")
    matched = match_classes(validation, ["rain", "dog", "cow"])
    before, after = (
        [class_names(table)[label] for label in table["label"]] for table in (validation, matched)
    )
    assert before == after and set(matched["label"]) == {1, 2}
    with pytest.raises(ValueError, match=r"1 classes of the split 'validation' .* the 2 .* trained: 'cow'"):
        match_classes(validation, ["cat", "dog"])


@pytest.mark.parametrize(
    ("values", "options", "names", "encoded"),
    [
        (["b", "a", "b"], {}, ["a", "b"], [1, 0, 1]),
        (["b", None, "a"], {}, ["a", "b"], [1, 0]),
        ([10, 9, 10], {}, ["9", "10"], [1, 0, 1]),
        ([True, False, True], {}, ["False", "True"], [1, 0, 1]),
        ([["b", "a"], [], ["c", "c"]], {}, ["a", "b", "c"], [[1, 0], [], [2]]),
        (["b; a", "c", "a;"], {"label_separator": ";"}, ["a", "b", "c"], [[1, 0], [2], [0]]),
        (["b, x", "a", "a"], {}, ["a", "b, x"], [1, 0, 0]),
    ],
)
def test_labels_of_every_kind(tmp_path, values, options, names, encoded, caplog):
    """Names, numbers, lists, and strings with a separator, from `metadata.jsonl`; rows without are left
    out."""
    for column in ("label", "sort"):
        folder = tmp_path / column
        folder.mkdir()
        for place in range(3):
            (folder / f"{place}.mp4").touch()
        write_rows(folder, [{"file_name": f"{i}.mp4", column: value} for i, value in enumerate(values)])
        chosen = {} if column == "label" else {"label_column": "sort"}
        table = load_labelled(folder, "train", "video", **chosen, **options)
        assert class_names(table) == names and list(table["label"]) == encoded
        assert ("left out 1 clips without a label" in caplog.text) == (None in values)
        assert match_classes(table, names)["label"] == table["label"]


def test_labels_in_another_unicode_form_are_one_class(tmp_path):
    """As in folders that a Mac has packed."""
    for number, name in enumerate(("caf\u00e9", "cafe\u0301", "bar")):
        (tmp_path / name).mkdir()
        write_sound(tmp_path / name / f"{number}.wav", 300)
    table = load_labelled(tmp_path, "train", "audio")
    assert class_names(table) == ["bar", "caf\u00e9"] and sorted(table["label"]) == [0, 1, 1]
    # As a model names them that was trained on such folders.
    assert sorted(match_classes(table, ["cafe\u0301", "bar"])["label"]) == [0, 0, 1]


def test_csv_beside_the_files_and_other_datasets(tmp_path):
    """AudioSet's way of writing labels; a data set of the user's own with another media column; its own class
    list is kept."""
    folder = tmp_path / "tagged"
    write_sound(folder / "a.wav", 300)
    (folder / "metadata.csv").write_text('file_name,labels\na.wav,"/m/1,/m/2"\n')
    table = load_labelled(folder, "train", "audio", label_separator=",")
    assert class_names(table) == ["/m/1", "/m/2"] and list(table["label"]) == [[0, 1]]
    rows = {"clip": [str(folder / "a.wav")] * 2, "label": [2, -1]}
    features = {"clip": datasets.Value("string"), "label": datasets.ClassLabel(names=["x", "y", "z"])}
    own = tmp_path / "own"
    own.mkdir()
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(own / "train.parquet")
    table = load_labelled("parquet", "train", "audio", media_column="clip", data_dir=str(own))
    assert class_names(table) == ["x", "y", "z"] and list(table["label"]) == [2]
    assert LabelledDataset(table, small_processor(), "audio")[0]["labels"].tolist() == [2]


def test_what_is_missing_is_named(classes, tmp_path):
    for wrong, message in (
        ({"split": "test"}, 'Unknown split "test"'),
        ({"media": "smell"}, "video, audio, image"),
        ({"media": "image"}, "no image files in this folder"),
        ({"label_column": "kind"}, "no column 'kind' among"),
        ({"media_column": "clip"}, "no column 'clip' among"),
        ({"data": tmp_path / "nothing"}, "no such folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_labelled(**{"data": classes, "split": "train", "media": "video", **wrong})
    with pytest.raises(ValueError, match="no column `label`"):
        load_labelled(classes / "train" / "dog", "train", "video")


def test_items(classes):
    """One view in training, windows and crops in evaluation, as the classifiers take them."""
    processor = small_processor()
    table = load_labelled(classes, "train", "video")
    shapes = {}
    for views in ((1, 1), (4, 3)):
        items = LabelledDataset(table, processor, "video", windows=views[0], crops=views[1])
        batch = collate_clips([items[index] for index in range(5)])
        assert not batch.skipped and batch.inputs["labels"].tolist() == list(table["label"])
        shapes[views] = tuple(batch.inputs["pixel_values_videos"].shape)
    assert shapes == {(1, 1): (5, 8, 3, 8, 8), (4, 3): (5, 12, 8, 3, 8, 8)}
    source = table[1]["video"]["path"]
    expected = processor(videos=[source], windows=4, crop_mode="three", load_audio_from_video=False)
    assert torch.equal(items[1]["pixel_values_videos"][0], expected["pixel_values_videos"])
    sounds = LabelledDataset(load_labelled(classes, "train", "audio"), processor, "audio", windows=3)
    assert sounds[0]["input_values"].shape == (1, 3, 96)


def test_several_labels_are_ones_and_zeros(tmp_path):
    labels = {"a.wav": ["z", "x"], "b.wav": ["y"], "c.wav": ["y"]}
    for name in labels:
        write_sound(tmp_path / name, 300)
    write_rows(tmp_path, [{"file_name": name, "label": label} for name, label in labels.items()])
    items = LabelledDataset(load_labelled(tmp_path, "train", "audio"), small_processor(), "audio")
    batch = collate_clips([items[index] for index in range(3)])
    assert batch.inputs["labels"].tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert items.several_labels and items.num_labels == 3


def test_items_depend_on_seed_epoch_and_index_only(classes):
    def items(seed: int, media: str) -> LabelledDataset:
        table = load_labelled(classes, "train", media)
        augmentation = VattAugmentation("Inception") if media == "video" else None
        return LabelledDataset(table, small_processor(), media, True, augmentation, seed=seed)

    for media, name in (("video", "pixel_values_videos"), ("audio", "input_values")):
        first = items(0, media)[(3, 1)][name]
        torch.manual_seed(99)  # the global generator has no say
        assert torch.equal(first, items(0, media)[(3, 1)][name])
        assert not torch.equal(first, items(0, media)[(4, 1)][name])
        assert not torch.equal(first, items(1, media)[(3, 1)][name])


def test_what_cannot_be_read_is_skipped(tmp_path):
    """A silent video among sounds, a sound among videos, damaged files, missing files."""
    write_clip(tmp_path / "silent.mp4", 1, sound=False)
    write_sound(tmp_path / "sound.wav", 300)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    names = ["silent.mp4", "sound.wav", "broken.mp4", "missing.mp4"]
    write_rows(tmp_path, [{"file_name": name, "label": place} for place, name in enumerate(names)])
    readable = {"audio": "sound.wav", "video": "silent.mp4"}
    for media, good in readable.items():
        table = load_labelled(tmp_path, "train", media)
        items = LabelledDataset(table, small_processor(), media)
        files = {Path(row[media]["path"]).name for row in table}
        batch = collate_clips([items[index] for index in range(len(table))])
        assert files - {Path(clip.name).name for clip in batch.skipped} == {good}
        decoded, skipped = decode_clips(table, small_processor(), media=media)
        assert len(decoded) == 1 and {clip.name for clip in skipped} == {clip.name for clip in batch.skipped}


@pytest.mark.parametrize("decoded", [False, True])
def test_parts_of_a_file_that_cannot_be_read_are_counted_each(tmp_path, decoded):
    (tmp_path / "a.wav").write_bytes(b"broken")
    write_sound(tmp_path / "b.wav", 300)
    rows = [{"file_name": "a.wav", "label": "x", "start": n, "end": n + 1} for n in range(3)]
    write_rows(tmp_path, [*rows, {"file_name": "b.wav", "label": "y"}])
    table = load_labelled(tmp_path, "train", "audio")
    if decoded:
        _, skipped = decode_clips(table, small_processor(), media="audio")
    else:
        items = LabelledDataset(table, small_processor(), "audio")
        skipped = [item for item in map(items.__getitem__, range(4)) if isinstance(item, SkippedClip)]
    assert len({clip.name for clip in skipped}) == 3 and "a.wav (1.0 to 2.0 s)" in skipped[1].name


def test_decoded_clips_give_the_same_items(classes):
    """Windows of decoded sound begin at the same sample; those of pictures at the same frame."""
    processor = small_processor()
    for media, name in (("video", "pixel_values_videos"), ("audio", "input_values")):
        table = load_labelled(classes, "train", media)
        decoded, skipped = decode_clips(table, processor, media=media)
        options = {"windows": 2, "crops": 3 if media == "video" else 1}
        fresh, cached = (LabelledDataset(clips, processor, media, **options) for clips in (table, decoded))
        names = [clip.name for clip in skipped]
        here = [i for i in range(len(table)) if table[i][media]["path"] not in names]
        assert len(here) == len(decoded) >= 5
        for one, other in zip(here, range(len(decoded)), strict=True):
            assert fresh[one][name].shape == cached[other][name].shape
            assert torch.equal(fresh[one]["labels"], cached[other]["labels"])
            if media == "video":  # each clip is one grey, so a shift is not seen
                torch.testing.assert_close(fresh[one][name], cached[other][name], rtol=0, atol=0.02)


def test_images(tmp_path):
    """A folder per class of PNG and JPEG files, one of them lying on its side, one broken."""
    for name, value in (("dark", 20), ("light", 220)):
        (tmp_path / "train" / name).mkdir(parents=True)
        picture = np.full((12, 20, 3), value, np.uint8)
        picture[:, :10] //= 2
        Image.fromarray(picture).save(tmp_path / "train" / name / "a.png")
        turned = Image.Exif()
        turned[0x0112] = 6
        Image.fromarray(picture).save(tmp_path / "train" / name / "b.jpg", exif=turned)
    (tmp_path / "train" / "light" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    table = load_labelled(tmp_path, "train", "image")
    processor = small_processor()
    items = LabelledDataset(table, processor, "image", augmentation=VattAugmentation("Inception"))
    batch = collate_clips([items[index] for index in range(5)])
    assert batch.inputs["pixel_values"].shape == (4, 3, 8, 8)
    assert batch.inputs["labels"].tolist() == [0, 0, 1, 1]
    assert [Path(clip.name).name for clip in batch.skipped] == ["c.png"]
    plain = LabelledDataset(table, processor, "image")[0]["pixel_values"]
    expected = processor.video_processor(np.asarray(Image.open(table[0]["image"]["path"])), num_frames=1)
    assert torch.equal(plain, expected["pixel_values_videos"][0][:1])
    assert read_picture(table[1]["image"]["path"]).shape == (20, 12, 3)
    with pytest.raises(MediaError, match="more than 100 pixels"):
        read_picture(table[0]["image"]["path"], MediaLimits(max_pixels=100))


@pytest.mark.parametrize(
    "options",
    [
        {"crops": 2},
        {"windows": 0},
        {"media": "audio", "crops": 3},
        {"media": "image", "windows": 4},
        {"random_window": True, "windows": 4},
        {"augmentation": VattAugmentation(), "crops": 3},
    ],
)
def test_views_that_make_no_sense(classes, options):
    table = load_labelled(classes, "train", "video")
    with pytest.raises(ValueError, match=r"windows|view"):
        LabelledDataset(table, small_processor(), **{"media": "video", **options})


def test_epochs_are_permutations_of_their_own():
    epoch = 0
    sampler = EpochSampler(10, seed=3, epoch=lambda: epoch)
    first = list(sampler)
    assert len(sampler) == 10 and {index for _, index in first} == set(range(10))
    assert first == list(sampler) and {e for e, _ in first} == {0}
    epoch = 1
    second = list(sampler)
    assert [i for _, i in first] != [i for _, i in second] and {e for e, _ in second} == {1}
