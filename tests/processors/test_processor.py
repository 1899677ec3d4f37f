# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Processor: frames and sound of one window, masks, captions, several windows, saving, feeding the model."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from media_factory import click_times, clicks, frame_numbers, numbered_frames, write_media
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from modeling_vatt import VattForPreTraining
from modeling_vatt.configuration import VattConfig
from modeling_vatt.processors import (
    MediaClip,
    MediaError,
    MediaInfo,
    MediaLimits,
    VattAugmentation,
    VattFeatureExtractor,
    VattImageProcessor,
    VattProcessor,
    VattTokenizer,
    VattVideoProcessor,
    probe,
    read_clip,
    register_processors,
)


RATE, FPS, FRAMES, SAMPLES = 16_000, 5, 8, 25_600  # windows of 1.6 s


@pytest.fixture(scope="module")
def tokenizer():
    return VattTokenizer.train_from_iterator(["a dog barks", "rain on a roof"], model_max_length=6)


@pytest.fixture(scope="module")
def processor(tokenizer):
    return VattProcessor(
        VattFeatureExtractor(sampling_rate=RATE, num_samples=SAMPLES),
        VattVideoProcessor(num_frames=FRAMES, fps=FPS, do_resize=False, do_center_crop=False),
        tokenizer,
        num_captions=3,
    )


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Frame k at k / 25 s; clicks at 0.05 s, 0.25 s, ...; 4 s long."""
    folder = tmp_path_factory.mktemp("media")
    frames, sound = numbered_frames(100), clicks(4.0, RATE, every=0.2)
    lossless = {"sampling_rate": RATE, "audio_codec": "pcm_s16le"}
    write_media(folder / "both.mkv", frames=frames, fps=25, waveform=sound, **lossless)
    write_media(folder / "mute.mp4", frames=frames, fps=25)
    write_media(folder / "sound.wav", waveform=sound, **lossless)
    write_media(folder / "short.mkv", frames=frames[:20], fps=25, waveform=sound[: RATE * 4 // 5], **lossless)
    return folder


def shown(values):
    return frame_numbers(((values + 1) * 127.5).permute(0, 2, 3, 1).numpy())


def heard(waveform):
    return click_times(np.asarray(waveform), RATE).tolist()


@pytest.mark.parametrize("augmentation", [None, VattAugmentation()])
def test_sound_of_a_clip_that_is_not_finite(processor, augmentation):
    sound = clicks(1.6, RATE, every=0.2)
    sound[RATE] = np.nan
    info = MediaInfo("a.mkv", 1.6, True, True)
    clip = MediaClip(np.stack(numbered_frames(FRAMES)), sound, 0.0, 1.6, np.arange(FRAMES) / FPS, info)
    with pytest.raises(ValueError, match="NaN or infinite"):
        processor(videos=clip, augmentation=augmentation)
    with pytest.raises(ValueError, match="NaN or infinite"):
        processor.feature_extractor(clip)


def test_frames_and_sound_of_the_centred_window(processor, media):
    batch = processor(videos=media / "both.mkv")
    assert set(batch) == {"pixel_values_videos", "input_values", "audio_mask"}
    assert batch["pixel_values_videos"].shape == (1, FRAMES, 3, 48, 64)
    assert batch["input_values"].shape == (1, SAMPLES)
    assert shown(batch["pixel_values_videos"][0]) == list(range(30, 70, 5))  # 1.2 s to 2.8 s
    assert heard(batch["input_values"][0]) == pytest.approx(np.arange(0.05, 1.6, 0.2), abs=1e-4)
    assert batch["audio_mask"].tolist() == [1]


def test_start_moves_both(processor, media):
    sources = [media / "both.mkv", str(media / "both.mkv"), (media / "both.mkv").read_bytes()]
    batch = processor(videos=sources, start=[0.0, 0.4, 2.1])
    for values, waveform, start in zip(
        batch["pixel_values_videos"], batch["input_values"], (0.0, 0.4, 2.1), strict=True
    ):
        assert shown(values) == [int((start + k / FPS) * 25 + 1e-6) for k in range(FRAMES)]
        expected = np.arange(0.05, 4, 0.2) - start
        assert heard(waveform) == pytest.approx(expected[(expected > 0) & (expected < 1.6)], abs=1e-4)
    with (media / "both.mkv").open("rb") as file:
        same = processor(videos=file, start=0.4)
    torch.testing.assert_close(same["pixel_values_videos"][0], batch["pixel_values_videos"][1])
    one = processor(videos=sources[:2], start=0.4)
    torch.testing.assert_close(one["input_values"][0], one["input_values"][1])


def test_windows_are_uniform_and_clip_major(processor, media):
    batch = processor(videos=[media / "both.mkv", media / "mute.mp4"], windows=3)
    firsts = [shown(values)[0] for values in batch["pixel_values_videos"]]
    assert firsts == [0, 30, 60, 0, 30, 60]  # 0 s, 1.2 s, 2.4 s
    assert batch["audio_mask"].tolist() == [1, 1, 1, 0, 0, 0]
    assert heard(batch["input_values"][2])[0] == pytest.approx(0.05, abs=1e-4)
    # A clip shorter than the window has its windows all at the beginning.
    short = processor(videos=media / "short.mkv", windows=2)["pixel_values_videos"]
    torch.testing.assert_close(short[0], short[1])


def test_short_clips_are_repeated_in_step(processor, media):
    batch = processor(videos=media / "short.mkv")  # 0.8 s
    assert shown(batch["pixel_values_videos"][0]) == [0, 5, 10, 15] * 2
    assert heard(batch["input_values"][0]) == pytest.approx(np.arange(0.05, 1.6, 0.2), abs=1e-4)


def test_silent_clips_are_masked(processor, media):
    batch = processor(videos=[media / "mute.mp4", media / "both.mkv"])
    assert batch["audio_mask"].tolist() == [0, 1]
    assert (batch["input_values"][0] == 0).all()
    assert "input_values" not in processor(videos=media / "both.mkv", load_audio_from_video=False)


def test_sound_from_its_own_file_follows_the_video(processor, media):
    together = processor(videos=media / "both.mkv", start=0.4)
    apart = processor(videos=media / "mute.mp4", audio=media / "sound.wav", start=0.4)
    torch.testing.assert_close(apart["input_values"], together["input_values"])
    waveform = read_clip(media / "sound.wav", sampling_rate=RATE).waveform
    arrays = processor(videos=media / "mute.mp4", audio=waveform, start=0.4, sampling_rate=RATE)
    torch.testing.assert_close(arrays["input_values"], together["input_values"])
    some = processor(videos=[media / "mute.mp4"] * 2, audio=[None, waveform], windows=2)
    assert some["audio_mask"].tolist() == [0, 0, 1, 1]


def test_sound_alone(processor, media):
    batch = processor(audio=[media / "sound.wav", media / "both.mkv"])
    assert set(batch) == {"input_values", "audio_mask"}
    torch.testing.assert_close(
        batch["input_values"], processor(videos=media / "both.mkv")["input_values"].repeat(2, 1)
    )
    waveform = np.arange(3 * SAMPLES, dtype=np.float32)
    batch = processor(audio=[waveform, None], windows=3)
    assert batch["input_values"][:3, 0].tolist() == [0, SAMPLES, 2 * SAMPLES]
    assert batch["audio_mask"].tolist() == [1, 1, 1, 0, 0, 0]
    assert processor(audio=waveform, start=0.5)["input_values"][0, 0] == RATE / 2


def test_arrays_and_clips(processor, media):
    clip = read_clip(media / "both.mkv", fps=FPS, sampling_rate=RATE)
    expected = processor(videos=media / "both.mkv")
    for batch in (processor(videos=clip), processor(videos=[clip.frames], audio=[clip.waveform])):
        torch.testing.assert_close(batch["pixel_values_videos"], expected["pixel_values_videos"])
        torch.testing.assert_close(batch["input_values"], expected["input_values"])
    assert set(processor(videos=clip.frames)) == {"pixel_values_videos"}
    windows = processor(videos=clip, windows=3)
    assert [shown(values)[0] for values in windows["pixel_values_videos"]] == [0, 30, 60]
    assert shown(processor(videos=clip.frames, start=0.4)["pixel_values_videos"][0])[0] == 10
    read = read_clip(media / "both.mkv", **processor.clip_options())
    torch.testing.assert_close(
        processor(videos=read)["input_values"], processor(videos=media / "both.mkv", start=0)["input_values"]
    )


def test_three_views(processor, media):
    batch = processor(
        videos=media / "both.mkv", crop_mode="three", do_center_crop=True, crop_size=48, windows=2
    )
    assert batch["pixel_values_videos"].shape == (6, FRAMES, 3, 48, 48)
    assert batch["input_values"].shape == (2, SAMPLES)


def test_parameters_of_one_call(processor, media):
    batch = processor(
        videos=media / "both.mkv", num_frames=4, text_kwargs={"max_length": 3}, text="a dog barks on"
    )
    assert shown(batch["pixel_values_videos"][0]) == [30, 35, 40, 45]
    assert batch["input_ids"].shape == (1, 3)
    assert (
        processor(videos=media / "mute.mp4", videos_kwargs={"fps": 2.5}, start=0)[
            "pixel_values_videos"
        ].shape[1]
        == 8
    )


def test_one_caption_a_clip(processor, tokenizer):
    batch = processor(text=["A dog barks!", None, "", "?!", "unheard"])
    assert set(batch) == {"input_ids", "attention_mask", "text_mask"}
    assert batch["input_ids"].shape == (5, 6)
    assert batch["text_mask"].tolist() == [1, 0, 0, 0, 1]
    assert batch["text_mask"].dtype == torch.int64
    assert batch["input_ids"][0].tolist() == tokenizer("a dog barks")["input_ids"]
    assert (batch["input_ids"][1:4] == 0).all()
    assert (batch["attention_mask"].sum(1) == torch.tensor([3, 0, 0, 0, 1])).all()
    assert processor(text="a dog")["input_ids"].shape == (1, 6)


def test_several_captions_a_clip(processor, tokenizer):
    batch = processor(
        text=[["a dog", "rain"], [], ["a", "dog", "barks", "on"], None, "roof", ["", None, "rain"]]
    )
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (6, 3, 6)
    assert batch["text_mask"].tolist() == [1, 0, 1, 0, 1, 1]
    each = processor(text=[["a dog", "rain"], [], ["", None, "rain"]], mask_captions=True)
    assert each["text_mask"].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert processor(text=["a dog", ""], mask_captions=True)["text_mask"].tolist() == [1, 0]
    assert batch["input_ids"][0, 0].tolist() == tokenizer("a dog")["input_ids"]
    assert (batch["input_ids"][0, 2] == 0).all()
    assert batch["input_ids"][2, 2].tolist() == tokenizer("barks")["input_ids"]  # the fourth is cut
    assert (batch["input_ids"][4, 1:] == 0).all()


def test_arguments_of_every_part(processor):
    """The groups of transformers' processors: honoured, or refused with the argument's name."""
    inputs = {"text": ["a dog barks", "a"], "audio": [np.ones(SAMPLES, np.float32)]}
    plain = processor(**inputs)
    groups = [
        {name: {} for name in ("audio_kwargs", "images_kwargs", "text_kwargs", "videos_kwargs")},
        {"audio_kwargs": {"sampling_rate": RATE, "padding": True, "truncation": True}},
        {"text_kwargs": {"padding": "max_length", "truncation": "longest_first"}, "common_kwargs": None},
        {"common_kwargs": {"return_tensors": "pt"}, "text_kwargs": {"return_tensors": "pt"}},
    ]
    for options in groups:
        for name, value in processor(**inputs, **options).items():
            assert torch.equal(value, plain[name])
    assert isinstance(processor(**inputs, common_kwargs={"return_tensors": "np"})["input_ids"], np.ndarray)
    for options in (
        {"padding": True},
        {"common_kwargs": {"padding": "longest"}},
        {"text_kwargs": {"padding": True}},
    ):
        batch = processor(**inputs, **options)
        assert batch["input_ids"].tolist() == plain["input_ids"][:, :3].tolist()
    assert processor(text=["", "?!"], padding=True)["text_mask"].tolist() == [0, 0]
    left = processor(text="a dog", padding_side="left")["input_ids"]
    assert left[0].tolist() == [0] * 4 + plain["input_ids"][1, :1].tolist() + left[0, -1:].tolist()
    refused = [
        ({"padding": False}, "padding"),
        ({"truncation": False}, "truncation"),
        ({"return_attention_mask": False}, "return_attention_mask"),
        ({"text_kwargs": {"return_offsets_mapping": True}}, "return_offsets_mapping"),
        ({"audio_kwargs": {"padding": False}}, "padding"),
        ({"audio_kwargs": {"max_length": 7}}, "max_length"),
        ({"audio_kwargs": {"sampling_rate": 8000}}, "8000 Hz"),
        ({"audio_kwargs": {"sampling_rate": RATE}, "sampling_rate": 8000}, "sampling_rate"),
        ({"text_kwargs": {"max_length": 3}, "max_length": 4}, "max_length"),
    ]
    for options, name in refused:
        with pytest.raises(ValueError, match=name):
            processor(**inputs, **options)
    for group in ("audio_kwargs", "common_kwargs", "images_kwargs", "text_kwargs", "videos_kwargs"):
        with pytest.raises(TypeError, match="wide"):
            processor(**inputs, **{group: {"wide": 1}})


def test_rows_and_bytes(processor, media):
    """What `datasets` gives for its columns, and other kinds of bytes: as the file itself."""
    path = media / "both.mkv"
    expected = processor(videos=path)
    data = path.read_bytes()
    rows = [
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        bytearray(data),
        memoryview(data),
    ]
    for row in rows:
        for batch in (processor(videos=row), processor(videos=[row]), processor(videos=row, audio=row)):
            for name, value in expected.items():
                assert torch.equal(batch[name], value)
    waveform = read_clip(path, sampling_rate=RATE).waveform
    row = {"array": waveform, "path": None, "sampling_rate": RATE}
    assert torch.equal(processor(audio=[row])["input_values"], processor(audio=waveform)["input_values"])
    with pytest.raises(ValueError, match="8000 Hz"):
        processor(audio=[{**row, "sampling_rate": 8000}])
    for bad in ({"array": waveform}, {"bytes": None, "path": None}):
        with pytest.raises(ValueError, match="A row"):
            processor(audio=bad)


def test_objects_of_torchcodec(processor, media):
    """By what they have: the moments and rates that they carry hold."""
    clip = read_clip(media / "both.mkv", fps=25, sampling_rate=48_000)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    stereo = torch.from_numpy(np.stack([clip.waveform * 2, clip.waveform * 0]))
    samples = SimpleNamespace(data=stereo, sample_rate=48_000, pts_seconds=0.0, duration_seconds=4.0)
    times = torch.arange(100) / 25 + 7  # a stream that begins late
    batch = SimpleNamespace(data=frames, pts_seconds=times, duration_seconds=torch.full((100,), 0.04))

    class Decoder:
        metadata = SimpleNamespace(begin_stream_seconds=7.0, end_stream_seconds=11.0)

        def __getitem__(self, index):
            return frames[index]

        def get_frames_played_at(self, seconds):
            return SimpleNamespace(data=frames[[int((moment - 7) * 25) for moment in seconds]])

    sound = SimpleNamespace(get_all_samples=lambda: samples)
    expected = processor(videos=media / "both.mkv", start=0.4)
    for video, audio in ((Decoder(), sound), (batch, samples), ([batch], [sound])):
        found = processor(videos=video, audio=audio, start=0.4)
        assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])
        torch.testing.assert_close(found["input_values"], expected["input_values"], atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="max_bytes"):
        processor.video_processor(Decoder(), limits=MediaLimits(max_bytes=10))
    batch.pts_seconds = times.flip(0)
    with pytest.raises(ValueError, match="order of time"):
        processor(videos=batch)


def test_errors_print_no_large_values(processor):
    large = bytes(100_000)
    for options in ({"text": {"a": large}}, {"text": [[large]]}, {"videos": {large}}, {"audio": {large}},
                    {"audio": {"array": large}}, {"text": "a", "padding": large}):  # fmt: skip
        with pytest.raises(ValueError) as error:
            processor(**options)
        assert len(str(error.value)) < 1000


def test_other_tokenizers(processor, tmp_path):
    pieces = VattTokenizer.train_sentencepiece(["a dog barks"] * 9, vocab_size=290, model_max_length=9)
    other = VattProcessor(processor.feature_extractor, processor.video_processor, pieces)
    assert other(text="a dog")["input_ids"].shape == (1, 9)
    pieces.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="model_max_length"):
        other(text="a dog")


def test_augmentation(processor, media):
    augmentation = VattAugmentation()
    options = {"videos": media / "both.mkv", "augmentation": augmentation, "crop_size": 32}
    batch = processor(**options, generator=torch.Generator().manual_seed(1))
    assert batch["pixel_values_videos"].shape == (1, FRAMES, 3, 32, 32)
    plain = processor(videos=media / "both.mkv")["input_values"]
    assert (batch["input_values"] - plain).std() == pytest.approx(0.01 * plain.abs().max().item(), rel=0.05)
    again = processor(**options, generator=torch.Generator().manual_seed(1))
    other = processor(**options, generator=torch.Generator().manual_seed(2))
    for key in ("pixel_values_videos", "input_values"):
        assert torch.equal(batch[key], again[key])
        assert not torch.equal(batch[key], other[key])
    short = processor(videos=media / "short.mkv", augmentation=augmentation, crop_size=32)
    assert short["pixel_values_videos"].shape == (1, FRAMES, 3, 32, 32)
    with pytest.raises(ValueError, match="crop_mode"):
        processor(**options, crop_mode="three")


def test_numpy_output(processor, media):
    batch = processor(videos=media / "both.mkv", text="a dog", return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in batch.values())


def test_sources_that_can_be_read_once(processor, media):
    class Pipe(io.RawIOBase):
        def __init__(self, data):
            self.data = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    batch = processor(videos=Pipe((media / "both.mkv").read_bytes()), windows=3)
    torch.testing.assert_close(
        batch["pixel_values_videos"], processor(videos=media / "both.mkv", windows=3)["pixel_values_videos"]
    )


def test_unknown_length_is_found_by_decoding(processor, tmp_path):
    path = write_media(
        tmp_path / "live.mkv", frames=numbered_frames(100), fps=25, container_options={"live": "1"}
    )
    assert probe(path).duration == pytest.approx(4.0)
    assert shown(processor(videos=path)["pixel_values_videos"][0])[0] == 30


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "Nothing to process"),
        ({"videos": "both.mkv", "start": 1.0, "windows": 2}, ValueError, "either `start` or `windows`"),
        ({"videos": "both.mkv", "windows": 0}, ValueError, "at least 1"),
        ({"videos": "both.mkv", "start": [0.0, 1.0]}, ValueError, "2 entries for 1"),
        ({"videos": "both.mkv", "start": -1.0}, ValueError, "from the beginning"),
        ({"videos": "both.mkv", "start": 9.0}, MediaError, r"both\.mkv"),
        ({"videos": "sound.wav"}, MediaError, r"sound\.wav.*`audio`"),
        ({"videos": "missing.mp4"}, MediaError, r"missing\.mp4"),
        ({"videos": "both.mkv", "audio": [None, None]}, ValueError, "1 videos and 2 sounds"),
        ({"videos": np.zeros((8, 4, 4, 3), np.uint8), "start": 2.0}, ValueError, "no frames at 2 s"),
        ({"audio": np.zeros(1000, np.float32), "start": 2.0}, ValueError, "no samples at 2 s"),
        ({"audio": np.zeros(1000, np.float32), "sampling_rate": 8000}, ValueError, "8000 Hz"),
        ({"text": 3}, ValueError, "`text` must be"),
        ({"text": []}, ValueError, "`text` must be"),
        ({"text": [["a", 3]]}, ValueError, "strings or None"),
        ({"text": "a", "window": 3}, TypeError, "window"),
        ({"videos": "https://example.org/a.mp4"}, MediaError, "allowed"),
    ],
)
def test_errors_name_the_remedy(processor, media, kwargs, error, message):
    if isinstance(kwargs.get("videos"), str) and "://" not in kwargs["videos"]:
        kwargs = {**kwargs, "videos": media / kwargs["videos"]}
    with pytest.raises(error, match=message):
        processor(**kwargs)


def test_limits_reach_the_reader(processor, media):
    with pytest.raises(MediaError, match="max_bytes"):
        processor(videos=media / "both.mkv", limits=MediaLimits(max_bytes=10))


def test_parts_are_checked(processor, tokenizer):
    with pytest.raises(TypeError, match="video_processor"):
        VattProcessor(processor.feature_extractor, processor.feature_extractor, tokenizer)
    with pytest.raises(TypeError):
        VattProcessor(processor.video_processor, processor.video_processor, tokenizer)
    with pytest.raises(ValueError, match="num_captions"):
        VattProcessor(processor.feature_extractor, processor.video_processor, tokenizer, num_captions=0)


def test_save_and_load(processor, media, tmp_path):
    register_processors(VattConfig)
    register_processors(VattConfig)  # twice does no harm
    processor.save_pretrained(tmp_path)
    inputs = {"videos": [media / "both.mkv", media / "mute.mp4"], "text": [["a dog"], []]}
    expected = processor(**inputs)
    for loaded in (VattProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, VattProcessor)
        assert loaded.num_captions == 3
        assert loaded.model_input_names == processor.model_input_names
        batch = loaded(**inputs)
        assert set(batch) == set(expected) == set(loaded.model_input_names)
        for key in expected:
            assert torch.equal(batch[key], expected[key])
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), VattTokenizer)
    pictures, frame = AutoImageProcessor.from_pretrained(tmp_path), np.zeros((9, 12, 3), np.uint8) + 50
    assert isinstance(pictures, VattImageProcessor)
    pixels = processor(videos=frame)["pixel_values_videos"][:, 0]
    assert torch.equal(pictures(frame, return_tensors="pt")["pixel_values"], pixels)
    VattConfig.from_preset("tiny").save_pretrained(tmp_path)  # a folder with a model
    loaded = AutoProcessor.from_pretrained(tmp_path, num_captions=2, num_frames=4, fps=2.0)
    assert (loaded.num_captions, loaded.video_processor.num_frames) == (2, 4)
    assert loaded.video_processor.window_seconds == 2


@pytest.mark.parametrize(
    ("config", "rate", "kind", "shape"),
    [
        (VattConfig.from_preset("tiny"), 16_000, "waveform", (51_200,)),
        (VattConfig.from_preset("mmv_tiny"), 16_000, "spectrogram", (50, 80)),
        (VattConfig.from_preset("bbs"), 48_000, "waveform", (153_600,)),
        (
            VattConfig(audio_config={"input_type": "spectrogram", "drop_token_rate": 0.0}),
            48_000,
            "spectrogram",
            (150, 80),
        ),
    ],
)
def test_from_config(tokenizer, media, config, rate, kind, shape):
    processor = VattProcessor.from_config(config, tokenizer)
    assert processor.feature_extractor.sampling_rate == rate
    assert processor.feature_extractor.feature_type == kind
    batch = processor(videos=media / "both.mkv")
    side = config.video_config.image_size
    assert batch["pixel_values_videos"].shape == (1, 32, 3, side, side)
    assert batch["input_values"].shape == (1, *shape)


@pytest.mark.parametrize("preset", ["tiny", "mmv_tiny"])
def test_the_model_takes_what_the_processor_makes(tokenizer, media, preset):
    config = VattConfig.from_preset(preset)
    config.text_config.max_position_embeddings = tokenizer.model_max_length
    processor = VattProcessor.from_config(config, tokenizer)
    batch = processor(videos=[media / "both.mkv", media / "mute.mp4"], text=[["a dog", "barks"], None])
    torch.manual_seed(0)
    model = VattForPreTraining(config).eval()
    with torch.no_grad():
        loss = model(**batch).loss
        # Only the first clip has sound and captions: what the second one holds there must not matter.
        batch["input_values"][1] = 1.0
        batch["input_ids"][1] = 5
        batch["attention_mask"][1] = 1
        torch.testing.assert_close(model(**batch).loss, loss)
    assert loss.isfinite()
