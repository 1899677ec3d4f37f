# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Where windows lie: the same for the processor, data sets, clips decoded once and embedding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clip_folders import small_processor
from media_factory import write_media
from small_models import seeded, small_config

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import ClipDataset, LabelledDataset, decode_clips, load_clips, load_labelled
from modeling_vatt.processors import VattProcessor, read_clip
from modeling_vatt.processors.windows import (
    check_part,
    take_frames,
    take_samples,
    window_places,
    window_starts,
)
from modeling_vatt.retrieval import embed_files


RATE = 8000


def ramp(seconds: float) -> np.ndarray:
    """Sound whose value tells its time: 0.05 a second."""
    return (np.arange(round(seconds * RATE)) / RATE * 0.05).astype(np.float32)


def write_ramp(path: Path, seconds: float = 6.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((16, 16, 3), 4 * number, np.uint8) for number in range(round(10 * seconds))]
    options = {"sampling_rate": RATE, "audio_codec": "pcm_s16le"}
    return write_media(path, frames=frames, fps=10, waveform=ramp(seconds), **options)


def processor_of(frames: int, samples: int) -> VattProcessor:
    processor = small_processor()
    processor.video_processor.num_frames = frames
    processor.feature_extractor.num_samples = samples
    processor.feature_extractor.sampling_rate = RATE
    return processor


def when(inputs, row: int = 0) -> tuple[float, float, float]:
    """Seconds at which the frames, and the sound, of a window begin, and at which the sound ends."""
    grey = (float(inputs["pixel_values_videos"][row, 0].mean()) + 1) * 127.5
    sound = inputs["input_values"][row]
    return grey / 40, float(sound[0]) / 0.05, float(sound[-1]) / 0.05


def test_places_and_starts_are_those_of_the_formula():
    assert window_places() == [0.5] and window_places(3) == [0.0, 0.5, 1.0]
    drawn = window_places(4, np.random.default_rng(0))
    assert [int(4 * place) for place in drawn] == [0, 1, 2, 3]
    for length, count, windows in ((45, 32, 1), (44, 32, 1), (100, 32, 4), (20, 32, 3)):
        # Offsets in frames of the official reader.
        slack = max(0, length - count)
        official = [slack // 2] if windows == 1 else np.linspace(0, slack, windows).astype(int).tolist()
        starts = window_starts(length / 10, count / 10, window_places(windows))
        assert [int(take_frames(np.arange(length), start, 10, count)[0]) for start in starts] == official
    assert window_starts(100.0, 2.0, [0.0, 1.0], (10.0, 20.0)) == [10.0, 18.0]
    assert window_starts(15.0, 2.0, [0.0, 1.0], (10.0, np.inf)) == [10.0, 13.0]
    assert window_starts(100.0, 2.0, [0.5], (10.0, 11.0)) == [10.0]
    assert check_part(None, None, "a") == (0.0, np.inf)
    assert take_samples(np.arange(20), 0.26, 10, 3).tolist() == [3, 4, 5]


@pytest.mark.parametrize(("frames", "samples"), [(20, 3 * RATE), (30, RATE), (20, 2 * RATE)])
@pytest.mark.parametrize("windows", [1, 3])
def test_windows_of_two_lengths_begin_together(tmp_path, frames, samples, windows):
    """Sound longer, shorter, as long: from the file, its contents, a whole clip, decoded once."""
    file = write_ramp(tmp_path / "clips" / "a.mov")
    processor = processor_of(frames, samples)
    table = load_clips(tmp_path / "clips", "train")
    decoded, _ = decode_clips(table, processor)
    whole = read_clip(file, fps=10, sampling_rate=RATE)
    found = {
        "file": processor(videos=[str(file)], windows=windows),
        "bytes": processor(videos=[file.read_bytes()], windows=windows),
        "clip": processor(videos=[whole], windows=windows),
        "arrays": processor(videos=[whole.frames], audio=[whole.waveform], windows=windows),
        "two files": processor(videos=[str(file)], audio=[str(file)], windows=windows),
        "data set": ClipDataset(table, processor, clips_per_video=windows)[0],
        "decoded once": ClipDataset(decoded, processor, clips_per_video=windows)[0],
    }
    longest = max(frames / 10, samples / RATE)
    starts = [(6.0 - longest) / 2] if windows == 1 else np.linspace(0, 6.0 - longest, windows)
    for name, inputs in found.items():
        for row, start in enumerate(starts):
            picture, first, last = when(inputs, row)
            assert abs(picture - start) < 0.05, f"{name}: pictures from {picture}, not {start}"
            assert abs(first - start) < 0.005, f"{name}: sound from {first}, not {start}"
            assert abs(last - start - samples / RATE) < 0.005, f"{name}: sound to {last}"


def test_embedding_takes_the_windows_of_the_data_set(tmp_path):
    file = write_ramp(tmp_path / "clips" / "a.mov")
    processor = processor_of(8, 96)
    processor.feature_extractor.sampling_rate = 60  # 1.6 s of sound, 0.8 s of frames
    model = seeded(VattForPreTraining, small_config()).eval()
    found = embed_files(model, processor, [str(file)], ("video", "audio"), windows=3)
    item = ClipDataset(load_clips(tmp_path / "clips", "train"), processor, clips_per_video=3)[0]
    with torch.no_grad():
        video = model.get_video_features(item["pixel_values_videos"]).va_embeds.numpy()
        audio = model.get_audio_features(item["input_values"]).va_embeds.numpy()
    np.testing.assert_allclose(found.arrays["video_va_embeds"][0], video, atol=1e-5)
    np.testing.assert_allclose(found.arrays["audio_va_embeds"][0], audio, atol=1e-5)


def test_sound_that_goes_on_after_the_pictures(tmp_path):
    """The last window that has pictures stands for those after it, everywhere."""
    frames = [np.full((16, 16, 3), 4 * number, np.uint8) for number in range(30)]
    options = {"sampling_rate": RATE, "audio_codec": "pcm_s16le"}
    (tmp_path / "clips").mkdir()
    file = write_media(tmp_path / "clips" / "a.mov", frames=frames, fps=10, waveform=ramp(6.0), **options)
    processor = processor_of(10, RATE)
    item = ClipDataset(load_clips(tmp_path / "clips", "train"), processor, clips_per_video=3)[0]
    other = processor(videos=[str(file)], windows=3)
    for name in ("pixel_values_videos", "input_values"):
        assert torch.equal(item[name], other[name]), name
    assert when(item, 2) == when(item, 1)


@pytest.mark.parametrize("count", [40, 41, 44, 52, 57])
def test_clips_decoded_once_begin_where_the_file_does(tmp_path, count):
    """Odd and even slack, and lengths whose halves are no exact numbers; sound sample for sample."""
    write_ramp(tmp_path / "clips" / "a.mov", count / 10)
    processor = processor_of(32, 32 * RATE // 10)
    table = load_clips(tmp_path / "clips", "train")
    decoded, _ = decode_clips(table, processor)
    one, other = ClipDataset(table, processor)[0], ClipDataset(decoded, processor)[0]
    for name in ("pixel_values_videos", "input_values"):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-4)
    assert abs(when(one)[0] - (count - 32) // 2 / 10) < 0.05


def test_parts_of_a_file_are_honoured_everywhere(tmp_path):
    """Rows of one file that differ in `start` and `end`, either of them missing: labelled clips, decoded once
    or not, of pictures and of sound."""
    write_ramp(tmp_path / "clips" / "a.mov")
    lines = ["file_name,label,start,end", "a.mov,x,1,2.0", "a.mov,y,4.5,", "a.mov,y,,1.5", "a.mov,x,3,2"]
    (tmp_path / "clips" / "metadata.csv").write_text("\n".join(lines))
    processor = processor_of(10, RATE)
    for media, name in (("video", "pixel_values_videos"), ("audio", "input_values")):
        table = load_labelled(tmp_path / "clips", "train", media)
        decoded, skipped = decode_clips(table, processor, media=media)
        assert len(decoded) == 3 and "no part from 3.0 to 2.0 s" in skipped[0].reason
        for clips in (table, decoded):
            items = LabelledDataset(clips, processor, media)
            for index, (first, last) in enumerate(((1.0, 2.0), (4.5, 6.0), (0.0, 1.5))):
                start = first + (last - first - 1.0) / 2
                pixels = items[index][name]
                value = (
                    (float(pixels[0, 0].mean()) + 1) * 127.5 / 40 if media == "video" else pixels[0, 0] / 0.05
                )
                shown = int(10 * start + 1e-6) / 10 if media == "video" else start
                assert abs(value - shown) < 0.05, (media, index, value, start)
    assert LabelledDataset(table, processor, "audio")[3] == skipped[0]
