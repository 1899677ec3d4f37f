# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The demo corpus: what is promised about its splits, files, captions, and the link of sound and picture."""

import importlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
from scripts import EXAMPLES, call

from modeling_vatt.processors.media import read_clip


sys.path.insert(0, str(EXAMPLES))
corpus = importlib.import_module("make_corpus")

SMALL = {
    "seed": 3,
    "train_clips": 12,
    "validation_clips": 2,
    "test_clips": 4,
    "silent_fraction": 0.25,
    "uncaptioned_fraction": 0.25,
    "webm_fraction": 0.3,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict]:
    """A small corpus, and its plan: (spec, captions) by split and file name."""
    folder = tmp_path_factory.mktemp("corpus") / "small"
    args = corpus.CorpusArguments(str(folder), num_workers=2, **SMALL)
    assert corpus.make_corpus(args)
    plan = corpus.plan_corpus(args)
    return folder, {
        split: {spec.file_name: (spec, captions) for spec, captions in plan[split]} for split in plan
    }


@pytest.fixture(scope="module")
def full_plan() -> dict:
    return corpus.plan_corpus(corpus.CorpusArguments("unused"))


@pytest.fixture(scope="module")
def spec(full_plan):
    """Some clip, to be changed by the tests: 4 s, 30 frames per second, in tune, on a plain background."""
    some = full_plan["train"][0][0]
    return replace(
        some, has_audio=True, fps=30, num_frames=120, width=96, height=96, sampling_rate=48_000,
        tilt=0.0, detune=0.0, gain=-3.0, hiss=-90.0, grain=0.0, gradient=0.0, background=(30, 30, 30),
        centre=(0.0, 0.0),
    )  # fmt: skip


def combination(spec) -> tuple[str, ...]:
    return tuple(getattr(spec, name) for name in corpus.ATTRIBUTES)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spectrum(waveform: np.ndarray) -> np.ndarray:
    """Magnitudes at every 0.25 Hz (4 s at 48 kHz), of length 1."""
    magnitudes = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return magnitudes / np.linalg.norm(magnitudes)


def loudness(waveform: np.ndarray, per_second: int) -> np.ndarray:
    """Root mean square of consecutive windows at 48 kHz."""
    window = 48_000 // per_second
    return np.sqrt(np.mean(waveform[: len(waveform) // window * window].reshape(-1, window) ** 2, axis=1))


def object_mask(frames: np.ndarray) -> np.ndarray:
    return frames.max(axis=-1) > 90


def test_default_splits_share_no_combination(full_plan):
    combinations = {split: {combination(spec) for spec, _ in clips} for split, clips in full_plan.items()}
    assert sum(map(len, combinations.values())) == len(set().union(*combinations.values())) == 864
    assert len(full_plan["train"]) >= 800
    assert len(full_plan["test"]) == len(combinations["test"]) == 216
    for name, values in corpus.ATTRIBUTES.items():
        for split, clips in full_plan.items():
            assert {getattr(spec, name) for spec, _ in clips} == set(values), (split, name)


def test_only_training_clips_lack_sound_or_captions(full_plan):
    lacking = {
        split: (sum(not spec.has_audio for spec, _ in clips), sum(not captions for _, captions in clips))
        for split, clips in full_plan.items()
    }
    assert lacking == {"train": (80, 80), "validation": (0, 0), "test": (0, 0)}
    assert all(spec.has_audio or captions for spec, captions in full_plan["train"])


def test_lengths_and_formats_vary_within_their_bounds(full_plan):
    specs = [spec for clips in full_plan.values() for spec, _ in clips]
    assert all(3.2 <= spec.seconds <= 4.0 for spec in specs)
    assert len({spec.fps for spec in specs}) == 7
    assert {(spec.width, spec.height) for spec in specs} == {(96, 96), (128, 128), (128, 96), (96, 128)}
    assert {(spec.sampling_rate, spec.channels) for spec in specs} == {
        (rate, channels) for rate in (44_100, 48_000) for channels in (1, 2)
    }
    assert all(spec.sampling_rate == 48_000 for spec in specs if spec.webm)


def test_captions_tell_the_attributes(full_plan):
    patterns = {}
    for value, words in corpus.WORDS.items():
        forms = [re.sub(r"\[(\w+)/(\w+)\]", ending, word) for word in words for ending in (r"\1", r"\2")]
        patterns[value] = re.compile(rf"\b({'|'.join(forms)})\b", re.IGNORECASE)

    def told(caption: str, name: str) -> set[str]:
        """Values of an attribute whose words are in the caption."""
        return {value for value in corpus.ATTRIBUTES[name] if patterns[value].search(caption)}

    openings = Counter()
    for clips in full_plan.values():
        for spec, captions in clips:
            if not captions:
                continue
            assert len({caption.lower() for caption in captions}) == 5
            assert all(len(caption.split()) <= 14 for caption in captions)
            openings.update(caption.split()[0].lower() for caption in captions)
            missing = []
            for caption in captions:
                values = {name: told(caption, name) for name in corpus.ATTRIBUTES}
                assert all(value <= {getattr(spec, name)} for name, value in values.items()), caption
                missing.append(sum(not value for value in values.values()))
            assert missing[0] == 0
            assert sum(missing) <= 1
    assert len(openings) > 8
    text = " ".join(caption.lower() for _, captions in full_plan["train"] for caption in captions)
    assert re.search(r"\ban (orange|emerald|aqua|ivory|amber)\b", text)
    assert not re.search(r"\ba [aeiou]", text)


def test_same_files_for_any_number_of_workers(small, tmp_path):
    folder, _ = small
    assert corpus.make_corpus(corpus.CorpusArguments(str(tmp_path / "again"), num_workers=1, **SMALL))
    assert contents(tmp_path / "again") == contents(folder)
    assert not list(folder.parent.glob(".*"))


def test_another_seed_is_another_corpus():
    first, second = (corpus.CorpusArguments("unused", **(SMALL | {"seed": seed})) for seed in (3, 4))
    tests = [[combination(spec) for spec, _ in corpus.plan_corpus(args)["test"]] for args in (first, second)]
    assert tests[0] != tests[1]


def test_takes_up_an_interrupted_run(small, tmp_path):
    folder, _ = small
    args = corpus.CorpusArguments(str(tmp_path / "new"), num_workers=1, **SMALL)
    assert corpus.make_corpus(args)
    partial = tmp_path / ".new.partial"
    (tmp_path / "new").rename(partial)
    kept, lost = sorted((partial / "train").glob("clip_*"))[:2]
    kept.write_bytes(b"made before")
    lost.unlink()
    (partial / "train" / "metadata.jsonl").unlink()
    assert corpus.make_corpus(args)
    expected = contents(folder) | {f"train/{kept.name}": b"made before"}
    assert contents(tmp_path / "new") == expected
    assert not partial.exists()


def test_rests_of_other_settings_are_not_mixed_in(small, tmp_path):
    folder, _ = small
    partial = tmp_path / ".new.partial"
    (partial / "test").mkdir(parents=True)
    (partial / "test" / "clip_00000.mp4").write_bytes(b"other")
    other = corpus.describe_corpus(corpus.CorpusArguments("unused", **(SMALL | {"seed": 4})))
    (partial / "corpus.json").write_text(json.dumps(other))
    assert corpus.make_corpus(corpus.CorpusArguments(str(tmp_path / "new"), num_workers=2, **SMALL))
    assert contents(tmp_path / "new") == contents(folder)


def test_complete_corpus_is_left_alone(small, capsys):
    folder, _ = small
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    call("make_corpus", output_dir=folder, **SMALL)
    assert "there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_foreign_folders_are_refused(small, tmp_path):
    folder, _ = small
    with pytest.raises(FileExistsError, match="no corpus with these settings"):
        corpus.make_corpus(corpus.CorpusArguments(str(folder), **(SMALL | {"seed": 4})))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match="Choose another --output_dir"):
        call("make_corpus", output_dir=tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}
    with pytest.raises(FileExistsError, match="is a file"):
        corpus.make_corpus(corpus.CorpusArguments(str(tmp_path / "thesis.txt"), **SMALL))


@pytest.mark.parametrize(
    "options",
    [{"silent_fraction": 1.5}, {"silent_fraction": 0.6, "uncaptioned_fraction": 0.6}, {"test_clips": 0}],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match=r"--|least one clip"):
        corpus.CorpusArguments("unused", **options)


def test_files_hold_what_was_rendered(small):
    folder, plan = small
    formats = set()
    for split, clips in plan.items():
        assert {path.name for path in (folder / split).iterdir()} == {*clips, "metadata.jsonl"}
        for name, (spec, _) in clips.items():
            with av.open(str(folder / split / name)) as file:
                codecs = tuple(stream.codec_context.name for stream in file.streams)
                if spec.has_audio:
                    assert file.streams.audio[0].rate == spec.sampling_rate
                    assert file.streams.audio[0].channels == spec.channels
            assert len(codecs) == 1 + spec.has_audio
            formats.add(codecs)
            frames, waveform = corpus.render_clip(spec)
            clip = read_clip(folder / split / name, fps=spec.fps, sampling_rate=spec.sampling_rate)
            assert clip.frames.shape == frames.shape
            assert np.abs(clip.frames.astype(float) - frames).mean() < 8
            assert (clip.waveform is None) == (waveform is None) == (not spec.has_audio)
            if waveform is not None:
                length = min(len(waveform), len(clip.waveform))
                assert abs(len(waveform) - len(clip.waveform)) < 0.05 * spec.sampling_rate
                assert np.corrcoef(waveform[:length], clip.waveform[:length])[0, 1] > 0.9
    assert {codecs[0] for codecs in formats} == {"h264", "vp9"}
    assert {codecs[1] for codecs in formats if len(codecs) == 2} == {"aac", "opus"}


def test_loads_as_videofolder(small, tmp_path):
    folder, plan = small
    table = datasets.load_dataset("videofolder", data_dir=str(folder), cache_dir=str(tmp_path))
    table = table.cast_column("video", datasets.Video(decode=False))
    assert {split: len(rows) for split, rows in table.items()} == {"train": 12, "validation": 2, "test": 4}
    assert table["train"].features["captions"] == datasets.List(datasets.Value("string"))
    for split, rows in table.items():
        for row in rows:
            spec, captions = plan[split][Path(row["video"]["path"]).name]
            assert row["captions"] == captions
            assert tuple(row[name] for name in corpus.ATTRIBUTES) == combination(spec)
            assert row["has_audio"] == spec.has_audio
    assert sum(not row["captions"] for row in table["train"]) == 3
    assert sum(not row["has_audio"] for row in table["train"]) == 3
    description = json.loads((folder / "corpus.json").read_text())
    assert description["settings"] == SMALL
    assert description["attributes"]["shape"] == list(corpus.SHAPES)


def test_pitch_tells_size_and_colour(spec):
    pitches = []
    for size in ("large", "medium", "small"):
        for colour in corpus.COLOURS:
            clip = replace(spec, shape="circle", motion="blinking", size=size, colour=colour)
            peak = np.argmax(spectrum(corpus.render_waveform(clip))) / 4
            assert peak == pytest.approx(clip.pitch, rel=0.01)
            pitches.append(peak)
    steps = 12 * np.log2(np.divide(pitches[1:], pitches[:-1]))
    assert steps.min() > 1.5  # semitones; the tuning varies by 0.15 to each side


def test_timbre_tells_shape(spec):
    tone = replace(spec, motion="blinking", colour="red", size="medium")
    # In bands of a third of an octave, so that a beat or a breath more does not count as another timbre.
    bands = np.geomspace(100, 12_000, 22)
    spectra = []
    for shape in corpus.SHAPES:
        power = spectrum(corpus.render_waveform(replace(tone, shape=shape))) ** 2
        places = np.searchsorted(np.arange(len(power)) / 4, bands)
        band = np.sqrt(np.add.reduceat(power, places))
        spectra.append(band / np.linalg.norm(band))
    likeness = np.array(spectra) @ np.array(spectra).T
    # Circle and cross share the band; the cross fills it with noise.
    off_diagonal = likeness[~np.eye(6, dtype=bool)]
    assert np.sort(off_diagonal)[:-2].max() < 0.9


def test_rhythm_tells_motion(spec):
    rhythms = []
    for motion in corpus.PERIODS:
        loud = loudness(corpus.render_waveform(replace(spec, shape="circle", motion=motion, period=1.0)), 50)
        rhythms.append(loud - loud.mean())
    likeness = np.corrcoef(rhythms)
    assert likeness[~np.eye(6, dtype=bool)].max() < 0.9


def test_bounces_are_heard_when_seen(spec):
    clip = replace(spec, motion="bouncing", shape="circle", colour="white", period=0.8, phase=0.3)
    frames, waveform = corpus.render_clip(clip)
    rows = np.arange(96)
    mask = object_mask(frames)
    height = (mask.sum(axis=2) * rows).sum(axis=1) / mask.sum(axis=(1, 2))  # of the middle, downwards
    landings = [k / 30 for k in range(1, 119) if height[k] > height[k - 1] and height[k] >= height[k + 1]]
    loud = loudness(waveform, 200)
    strikes = (np.flatnonzero(np.diff(loud) > 0.2 * loud.max()) + 1) / 200
    assert len(landings) == 5
    for landing in landings:
        assert np.abs(strikes - landing).min() < 0.04  # a frame takes 0.033 s


def test_blinking_is_heard_while_seen(spec):
    frames, waveform = corpus.render_clip(replace(spec, motion="blinking", shape="square", colour="white"))
    seen = object_mask(frames).any(axis=(1, 2))
    heard = loudness(waveform, 30) > 0.02
    assert 0.3 < seen.mean() < 0.7
    assert np.mean(seen == heard) > 0.9


def test_picture_shows_size_colour_and_motion(spec):
    areas = []
    for size in corpus.RADII:
        clip = replace(spec, shape="circle", colour="pink", motion="circling", size=size)
        frames = corpus.render_frames(replace(clip, radius=corpus.RADII[size]))
        mask = object_mask(frames)
        areas.append(mask.sum(axis=(1, 2)).mean())
        lit = np.median(frames[mask & (frames[..., 0] > 240)], axis=0)
        assert np.abs(lit - corpus.COLOURS["pink"]).max() <= 2
        assert not mask[:, 0].any()  # all of the object stays in the picture
        assert not mask[:, :, -1].any()
    assert areas[1] > 2 * areas[0]
    assert areas[2] > 2 * areas[1]
    turning = corpus.render_frames(replace(spec, shape="circle", colour="pink", motion="spinning"))
    assert np.ptp(turning.astype(int), axis=0).max() > 50  # a turning disc is no still picture
