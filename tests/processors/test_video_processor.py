# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Video processor: geometry against an independent NumPy resampling, forms of input, saving."""

import json

import numpy as np
import pytest
import torch
from media_factory import frame_numbers, numbered_frames, write_media
from PIL import Image
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from modeling_vatt.configuration import VattVideoConfig
from modeling_vatt.processors import (
    MediaClip,
    MediaError,
    MediaInfo,
    VattImageProcessor,
    VattVideoProcessor,
    read_clip,
    read_picture,
    register_processors,
)


def noise(frames=4, height=30, width=45, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def small(**kwargs):
    return VattVideoProcessor(**{"size": 16, "crop_size": 16, "num_frames": 4, **kwargs})


def pixels(processor, videos, **kwargs):
    return processor(videos, return_tensors="pt", **kwargs)["pixel_values_videos"]


def bilinear(image, height, width):
    """Half-pixel bilinear resampling of (H, W, C), written pixel by pixel of one axis after the other."""
    image = image.astype(np.float64)
    for axis, target in ((0, height), (1, width)):
        length = image.shape[axis]
        place = np.clip((np.arange(target) + 0.5) * length / target - 0.5, 0, length - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, length - 1)
        share = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


def test_default_shape_and_range():
    values = pixels(VattVideoProcessor(), noise(40, 120, 160))
    assert values.shape == (1, 32, 3, 224, 224)
    assert values.dtype == torch.float32
    assert -1 <= values.min() < -0.9
    assert 0.9 < values.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(30, 45), (45, 31), (10, 12)])
def test_geometry_of_the_release(height, width):
    clip = noise(4, height, width)
    side = 16
    long = max(height, width) * side // min(height, width)
    target = (side, long) if height < width else (long, side)
    values = pixels(small(), clip)[0].permute(0, 2, 3, 1).numpy()
    for frame, value in zip(clip, values, strict=True):
        resized = bilinear(frame, *target)
        top, left = (target[0] - side) // 2, (target[1] - side) // 2
        resized = resized[top : top + side, left : left + side]
        # Whole numbers after truncation; float32 may land on the other side of one.
        whole = np.floor(resized)
        close = np.abs(resized - np.round(resized)) < 1e-3
        difference = np.abs((value + 1) * 127.5 - whole)
        assert difference[~close].max() < 1e-3
        assert difference.max() < 1.001


def test_float_frames_are_not_truncated():
    clip = noise().astype(np.float32)
    values = pixels(small(), clip)[0].permute(0, 2, 3, 1).numpy()
    expected = bilinear(clip[0], 16, 24)[:, 4:20] * 2 / 255 - 1
    np.testing.assert_allclose(values[0], expected, atol=1e-5)


def test_no_resize_when_the_size_fits():
    clip = noise(4, 16, 20)
    values = pixels(small(), clip)
    expected = torch.from_numpy(clip[:, :, 2:18]).permute(0, 3, 1, 2) * (2 / 255) - 1
    torch.testing.assert_close(values[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("long", "middle"), [(17, 0), (19, 2), (20, 2), (21, 2), (23, 4)])
@pytest.mark.parametrize("portrait", [False, True])
def test_three_crops_round_half_to_even(long, middle, portrait):
    clips = [noise(4, 16, long, seed) for seed in (0, 1)]
    if portrait:
        clips = [clip.transpose(0, 2, 1, 3) for clip in clips]
    values = pixels(small(do_resize=False, crop_mode="three"), clips)
    assert values.shape == (6, 4, 3, 16, 16)
    for index, clip in enumerate(clips):
        for view, start in enumerate((0, middle, long - 16)):
            part = clip[:, start : start + 16] if portrait else clip[:, :, start : start + 16]
            expected = torch.from_numpy(part.copy()).permute(0, 3, 1, 2) * (2 / 255) - 1
            torch.testing.assert_close(values[3 * index + view], expected, atol=1e-6, rtol=0)


def test_long_clips_are_centred_and_short_ones_repeated():
    clip = noise(9)
    torch.testing.assert_close(pixels(small(), clip), pixels(small(), clip[2:6]))
    repeated = pixels(small(num_frames=7), clip[:3])
    torch.testing.assert_close(repeated, pixels(small(num_frames=7), clip[[0, 1, 2, 0, 1, 2, 0]]))


def test_an_image_becomes_equal_frames():
    image = noise(1)[0]
    values = pixels(small(), image)
    assert values.shape == (1, 4, 3, 16, 16)
    assert (values == values[:, :1]).all()
    assert pixels(small(), image, num_frames=8).shape[1] == 8


def test_forms_of_input_agree():
    clip = noise()
    expected = pixels(small(), clip)
    forms = [
        torch.from_numpy(clip),
        clip.transpose(0, 3, 1, 2),
        list(clip),
        np.ascontiguousarray(clip[..., ::-1])[..., ::-1],  # mirrored memory
        np.frombuffer(clip.tobytes(), np.uint8).reshape(clip.shape),  # read-only memory
        clip[None],
        [clip],
        MediaClip(clip, None, 0.0, 0.4, np.zeros(4), MediaInfo("x", 0.4, True, False)),
    ]
    for form in forms:
        torch.testing.assert_close(pixels(small(), form), expected)
    torch.testing.assert_close(pixels(small(), [clip, list(clip)]), expected.repeat(2, 1, 1, 1, 1))


def test_pil_images():
    clip = noise()
    images = [Image.fromarray(frame) for frame in clip]
    torch.testing.assert_close(pixels(small(), images), pixels(small(), clip))
    torch.testing.assert_close(pixels(small(), images[0]), pixels(small(), clip[0]))
    grey = images[0].convert("L")
    assert pixels(small(), grey).shape == (1, 4, 3, 16, 16)
    torch.testing.assert_close(
        pixels(small(), grey), pixels(small(), np.asarray(grey)[None, :, :, None]), atol=0, rtol=0
    )


def test_grey_of_more_than_eight_bits(tmp_path):
    """Scaled by the range of the format in every path a picture takes; 65535 / 255 = 257."""
    ramp = np.linspace(0, 65535, 16).astype(np.uint16)[None].repeat(16, 0)
    right = np.rint(ramp / 257).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.tif", tiffinfo={262: 0})  # white is zero
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif")[..., 0], 255 - right)
    for name in ("a.png", "a.ppm", "b.tif"):
        path = tmp_path / name
        Image.fromarray(ramp).save(path)
        np.testing.assert_array_equal(read_picture(path), right[..., None].repeat(3, -1))
        expected = pixels(small(), read_picture(path))
        torch.testing.assert_close(pixels(small(), Image.open(path)), expected)
        images = VattImageProcessor(size=16, crop_size=16)
        row = {"bytes": path.read_bytes(), "path": None}
        for picture in (Image.open(path), path, [str(path)], row):
            assert torch.equal(images(picture, return_tensors="pt")["pixel_values"], expected[:, 0])
    for kind in (np.int32, np.float32):
        with pytest.raises(ValueError, match=f"{np.dtype(kind)}.*no known range"):
            small()(Image.fromarray(ramp.astype(kind)))
        Image.fromarray(ramp.astype(kind)).save(tmp_path / "wide.tif")
        with pytest.raises(MediaError, match=f"{np.dtype(kind)}.*no known range"):
            read_picture(tmp_path / "wide.tif")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.uint16), "got uint16"),
        (lambda x: x.astype(">u2") * 257, "got uint16"),
        (lambda x: x > 9, "got bool"),
        (lambda x: torch.from_numpy(x > 9), "got bool"),
        (lambda x: x.astype(np.int32) * 257, "int32 from"),
        (lambda x: x.astype(np.int64) - 128, "int64 from -128"),
        (lambda x: x.astype(np.float32) / 127.5 - 1, "float32 from -1"),
        (lambda x: torch.from_numpy(x).bfloat16() * 2, "bfloat16 from"),
        (lambda x: np.where(x > 9, np.nan, x), "float64 from nan"),
    ],
)
def test_values_outside_their_range_are_refused(change, message):
    clip = noise()
    clip[0, 0, 0, 0], clip[0, 0, 1, 0] = 0, 255
    for videos in (change(clip), list(change(clip)), change(clip)[0]):
        with pytest.raises(ValueError, match=message):
            small()(videos)
    with pytest.raises(ValueError, match="uint8 from 0 to 255"):
        small()(clip, do_rescale=False)


def test_types_that_hold_pixels():
    clip = noise()
    whole = (np.int16, np.int64)
    same = [*(clip.astype(kind) for kind in whole), torch.from_numpy(clip).long()]
    for videos in same:
        torch.testing.assert_close(pixels(small(), videos), pixels(small(), clip))
    floats = pixels(small(), clip.astype(np.float32))
    tensor = torch.from_numpy(clip).float().requires_grad_()
    for videos in (tensor, torch.from_numpy(clip).bfloat16(), clip.astype(np.float16)):
        values = pixels(small(), videos)
        assert not values.requires_grad and values.dtype == torch.float32
        torch.testing.assert_close(values, floats, atol=2e-2, rtol=0)


def test_files_are_read_at_the_rate_of_the_processor(tmp_path):
    path = write_media(tmp_path / "a.mp4", frames=numbered_frames(100), fps=25)
    processor = small(num_frames=8, fps=5, do_resize=False, do_center_crop=False)
    frames = read_clip(path, start=1.2, duration=1.6, fps=5, audio=False).frames
    torch.testing.assert_close(pixels(processor, path), pixels(processor, frames))
    values = (pixels(processor, str(path))[0] + 1).mul(127.5).permute(0, 2, 3, 1).numpy()
    assert frame_numbers(values) == [30, 35, 40, 45, 50, 55, 60, 65]
    assert pixels(processor, path, decode_size=24).shape[-2:] == (24, 32)
    with path.open("rb") as file:
        torch.testing.assert_close(
            pixels(processor, [file, path.read_bytes()])[0], pixels(processor, path)[0]
        )


def test_a_picture_file_is_an_image(tmp_path):
    image = Image.fromarray(noise()[0])
    image.save(tmp_path / "a.png")
    torch.testing.assert_close(pixels(small(), tmp_path / "a.png"), pixels(small(), image))


def test_sampling_of_frames_given_as_arrays():
    clip = (
        np.repeat(np.arange(100, dtype=np.uint8)[:, None, None, None], 3, axis=3).repeat(16, 1).repeat(16, 2)
    )
    values = pixels(
        small(num_frames=10, fps=10),
        clip,
        do_sample_frames=True,
        video_metadata={"fps": 25, "total_num_frames": 100},
    )
    shown = ((values[0, :, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    every = [int(k * 2.5) for k in range(40)]
    assert shown == every[15:25]
    with pytest.raises(ValueError, match="video_metadata"):
        small()(clip, do_sample_frames=True)


def test_switches_and_constants():
    clip = noise(4, 16, 16)
    raw = torch.from_numpy(clip).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(pixels(small(), clip, do_rescale=False, do_normalize=False)[0], raw)
    torch.testing.assert_close(pixels(small(), clip, do_normalize=False)[0], raw / 255)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    values = pixels(small(), clip, image_mean=mean.tolist(), image_std=std.tolist())[0]
    torch.testing.assert_close(
        values, (raw / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1), atol=1e-6, rtol=1e-5
    )
    torch.testing.assert_close(
        pixels(small(), (clip / 255).astype(np.float32), do_rescale=False),
        pixels(small(), clip),
        atol=1e-6,
        rtol=0,
    )
    assert pixels(small(), noise(), size={"height": 20, "width": 18}, do_center_crop=False).shape[-2:] == (
        20,
        18,
    )


def test_return_types():
    assert isinstance(small()(noise(), return_tensors="np")["pixel_values_videos"], np.ndarray)
    values = small()([noise(), noise()])["pixel_values_videos"]
    assert [tuple(value.shape) for value in values] == [(4, 3, 16, 16)] * 2


@pytest.mark.parametrize(
    ("videos", "kwargs", "message"),
    [
        (np.zeros((4, 30, 40, 4), np.uint8), {}, "colour channels"),
        (np.zeros((4, 3, 40, 3), np.uint8), {}, "input_data_format"),
        (np.zeros((30, 40), np.uint8), {}, "shape"),
        ([], {}, "Expected a video"),
        ([None], {}, "NoneType"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], {}, "one size"),
        (noise(), {"do_resize": False, "crop_size": 40}, "enlarge `size`"),
        (noise(), {"crop_mode": "three", "do_center_crop": False}, "do_center_crop"),
        (noise(), {"resample": 3}, "bilinear"),
        (noise(), {"data_format": "channels_last"}, "channels first"),
        ([noise(), noise()], {"video_metadata": [{"fps": 10}]}, "1 entries for 2"),
        ([noise(), noise(4, 40, 40)], {"do_center_crop": False, "return_tensors": "pt"}, "different sizes"),
    ],
)
def test_errors_name_the_remedy(videos, kwargs, message):
    with pytest.raises(ValueError, match=message):
        small()(videos, **kwargs)


@pytest.mark.parametrize(
    "settings",
    [{"do_pad": True}, {"return_metadata": True}, {"size": {"shortest_edge": 256, "longest_edge": 300}}],
)
def test_settings_without_effect_are_refused(settings):
    with pytest.raises(ValueError, match="is not offered here"):
        VattVideoProcessor(**settings)


def test_other_errors(tmp_path):
    with pytest.raises(TypeError, match="windwos"):
        small()(noise(), windwos=3)
    with pytest.raises(Exception, match="crop_mode"):
        VattVideoProcessor(crop_mode="four")
    path = write_media(tmp_path / "sound.wav", waveform=np.zeros(4800, np.float32), audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match=r"sound\.wav"):
        small()(path)


def test_save_and_load(tmp_path):
    register_processors(VattVideoConfig)
    processor = small(crop_mode="three", fps=5, decode_size=20)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert saved["video_processor_type"] == "VattVideoProcessor"
    assert saved["crop_mode"] == "three"
    for loaded in (
        VattVideoProcessor.from_pretrained(tmp_path),
        AutoVideoProcessor.from_pretrained(tmp_path),
    ):
        assert isinstance(loaded, VattVideoProcessor)
        assert loaded.to_dict() == processor.to_dict()
        torch.testing.assert_close(pixels(loaded, noise()), pixels(processor, noise()))
    assert VattVideoProcessor.from_pretrained(tmp_path, num_frames=6).num_frames == 6
