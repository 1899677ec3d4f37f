# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature extractor: the official log-mel spectrogram, fitting to a window, forms of input, saving."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from media_factory import numbered_frames, tone, write_media
from transformers import AutoFeatureExtractor

from modeling_vatt.configuration import VattAudioConfig
from modeling_vatt.processors import MediaError, VattFeatureExtractor, read_clip, register_processors
from modeling_vatt.processors.inputs import unwrapped


GOLDEN = Path(__file__).parents[1] / "fixtures" / "goldens" / "small" / "mel.npz"


def values(extractor, audio, **kwargs):
    return extractor(audio, return_tensors="np", **kwargs)["input_values"]


def sound(samples, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def test_log_mel_of_the_release():
    golden = np.load(GOLDEN)
    extractor = VattFeatureExtractor("spectrogram", num_samples=len(golden["waveform"]))
    assert (extractor.frame_length, extractor.hop_length) == (golden["window"], golden["hop"])
    np.testing.assert_allclose(values(extractor, golden["waveform"])[0], golden["normalised"], atol=5e-6)


def test_default_shapes():
    assert values(VattFeatureExtractor(), sound(200_000)).shape == (1, 153_600)
    spectrogram = values(VattFeatureExtractor("spectrogram"), sound(153_600))
    assert spectrogram.shape == (1, 150, 80)
    assert spectrogram.dtype == np.float32
    assert spectrogram.min() == 0
    assert spectrogram.max() == 1
    assert VattFeatureExtractor().window_seconds == pytest.approx(3.2)


def test_each_sound_is_normalised_by_itself():
    extractor = VattFeatureExtractor("spectrogram", num_samples=8192)
    batch = [sound(8192), 0.01 * sound(8192, 1), np.zeros(8192, np.float32)]
    together = values(extractor, batch)
    for one, item in zip(together, batch, strict=True):
        np.testing.assert_allclose(one, values(extractor, item)[0], atol=1e-6)
    assert (together[2] == 0).all()


def test_fft_of_windows_that_are_no_power_of_two():
    # The 0.04267 s window of the release at 16 kHz; an even tone lies in one mel bin throughout.
    extractor = VattFeatureExtractor(
        "spectrogram", sampling_rate=16_000, num_samples=16_000, frame_length=682, hop_length=341
    )
    result = values(extractor, tone(1.0, 16_000, 1000.0))[0]
    assert result.shape == (47, 80)
    mel = 2595 * np.log10(1 + np.array([80, 7600, 1000]) / 700)
    assert (result[2:-3].argmax(1) == round((mel[2] - mel[0]) / (mel[1] - mel[0]) * 81 - 1)).all()


def test_long_sounds_are_centred_and_short_ones_repeated():
    extractor = VattFeatureExtractor(num_samples=100)
    long = sound(231)
    np.testing.assert_array_equal(values(extractor, long)[0], long[65:165])
    short = sound(40)
    np.testing.assert_array_equal(values(extractor, short)[0], np.concatenate([short, short, short[:20]]))


def test_forms_of_input_agree():
    extractor = VattFeatureExtractor(num_samples=50)
    one, two = sound(50), sound(50, 1)
    expected = np.stack([one, two])
    for form in ([one, two], np.stack([one, two]), torch.tensor(np.stack([one, two])), [one.tolist(), two]):
        np.testing.assert_allclose(values(extractor, form), expected, atol=1e-7)
    np.testing.assert_allclose(values(extractor, one.tolist()), expected[:1], atol=1e-7)
    np.testing.assert_allclose(values(extractor, one.astype(np.float64)), expected[:1], atol=1e-7)
    assert isinstance(extractor(one, return_tensors="pt")["input_values"], torch.Tensor)
    assert len(extractor([one, two])["input_values"]) == 2


def test_types_of_samples():
    extractor = VattFeatureExtractor(num_samples=50)
    one = sound(50)
    tensor = torch.from_numpy(one)
    for form in (tensor.clone().requires_grad_(), list(one), list(tensor), one.astype(">f4")):
        np.testing.assert_array_equal(values(extractor, form)[0], one)
    np.testing.assert_allclose(values(extractor, tensor.bfloat16())[0], one, atol=4e-3)
    for bad, message in ((one > 0, "bool"), (tensor.short(), "int16"), (one * np.inf, "NaN or infinite")):
        with pytest.raises(ValueError, match=message):
            extractor(bad)


def test_files_are_resampled_and_mixed_down(tmp_path):
    stereo = np.stack([tone(2.0, 44_100, 440), 0.5 * tone(2.0, 44_100, 440)])
    path = write_media(tmp_path / "a.wav", waveform=stereo, sampling_rate=44_100, audio_codec="pcm_s16le")
    extractor = VattFeatureExtractor(sampling_rate=16_000, num_samples=16_000)
    result = values(extractor, path)[0]
    np.testing.assert_allclose(result, 0.75 * tone(2.0, 16_000, 440)[8_000:24_000], atol=2e-3)
    np.testing.assert_array_equal(values(extractor, path.read_bytes())[0], result)
    clip = read_clip(path, start=0.5, duration=1.0, sampling_rate=16_000)
    np.testing.assert_array_equal(values(extractor, [clip, str(path)]), np.stack([result, result]))


def test_rows_hold_sound_as_files_do():
    """Whole numbers, and channels in the second axis as soundfile reads them, made noise."""
    wave = np.sin(np.arange(600) / 9).astype(np.float32)
    extractor = VattFeatureExtractor(num_samples=600, sampling_rate=200)
    for array in (wave, [wave, wave], wave.tolist()):
        row = unwrapped({"array": array, "sampling_rate": 200}, resample=True)
        np.testing.assert_array_equal(extractor.load(row), wave)
    for bad, message in (
        ((wave * 32767).astype(np.int16), "got int16"),
        (np.stack([wave, wave], 1), r"got \(600, 2\): pass `x\.T`"),
    ):
        with pytest.raises(ValueError, match=message):
            extractor.load(unwrapped({"array": bad, "sampling_rate": 200}, resample=True))


def test_whole_numbers_as_floats_are_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    extractor = VattFeatureExtractor(num_samples=4, sampling_rate=200)
    extractor(np.array([0.5, -1.5, 1.0, 0.0], dtype=np.float32))
    assert "should lie in" not in caplog.text
    extractor(np.array([300, -20000, 4, 0], dtype=np.float32))
    assert "The sound reaches 20000, but should lie in [-1, 1]" in caplog.text


def test_sampling_rate_must_be_the_extractors():
    extractor = VattFeatureExtractor(num_samples=50)
    assert values(extractor, sound(50), sampling_rate=48_000).shape == (1, 50)
    with pytest.raises(ValueError, match=r"44100 Hz.*48000 Hz.*soxr\.resample"):
        extractor(sound(50), sampling_rate=44_100)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ([np.zeros((2, 1000), np.float32)], r"x\.mean\(axis=0\)"),
        (np.zeros((1000, 2), np.float32), r"x\.mean\(axis=-1\)"),
        (np.zeros((2, 2, 1000), np.float32), "mono"),
        (np.zeros(1000, np.int16), "32768"),
        (np.zeros(0, np.float32), "no samples"),
        ([], "Expected sound"),
        (None, "Expected sound"),
    ],
)
def test_errors_name_the_remedy(audio, message):
    with pytest.raises(ValueError, match=message):
        VattFeatureExtractor(num_samples=50)(audio)


def test_other_errors(tmp_path):
    with pytest.raises(TypeError, match="sampling_rat"):
        VattFeatureExtractor()(sound(10), sampling_rat=3)
    with pytest.raises(ValueError, match="max_frequency"):
        VattFeatureExtractor("spectrogram", sampling_rate=8_000)
    with pytest.raises(ValueError, match="feature_type"):
        VattFeatureExtractor("mfcc")
    with pytest.raises(ValueError, match="num_samples"):
        VattFeatureExtractor(num_samples=0)
    path = write_media(tmp_path / "silent.mp4", frames=numbered_frames(10), fps=10)
    with pytest.raises(MediaError, match=r"silent\.mp4"):
        VattFeatureExtractor()(path)


def test_save_and_load(tmp_path):
    register_processors(VattAudioConfig)
    extractor = VattFeatureExtractor("spectrogram", num_samples=8192, num_mel_bins=40, hop_length=512)
    expected = values(extractor, sound(9000))
    extractor.save_pretrained(tmp_path)
    for loaded in (
        VattFeatureExtractor.from_pretrained(tmp_path),
        AutoFeatureExtractor.from_pretrained(tmp_path),
    ):
        assert isinstance(loaded, VattFeatureExtractor)
        assert loaded.to_dict() == extractor.to_dict()
        np.testing.assert_array_equal(values(loaded, sound(9000)), expected)
