# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training augmentation: colours against colorsys, boxes by the rules of the release, reproducibility."""

import colorsys
import dataclasses

import numpy as np
import pytest
import torch

from modeling_vatt.processors import VattAugmentation, VattVideoProcessor
from modeling_vatt.processors.augmentation import (
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    change_colors,
)


STILL = {"flip_probability": 0.0, "color_probability": 0.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(frames=3, height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def coordinates(height, width):
    """A clip whose red channel is the row and whose green channel is the column."""
    clip = np.zeros((2, height, width, 3), np.uint8)
    clip[..., 0] = np.arange(height)[:, None]
    clip[..., 1] = np.arange(width)
    return clip


def through_hsv(pixels, change):
    out = pixels.clone()
    for t, y, x in np.ndindex(pixels.shape[0], *pixels.shape[2:]):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels[t, :, y, x].tolist())
        out[t, :, y, x] = torch.tensor(colorsys.hsv_to_rgb(*change(hue, saturation, value)))
    return out


def colours():
    pixels = torch.rand(2, 3, 9, 9, generator=seeded())
    pixels[0, :, 0] = torch.rand(9, generator=seeded(1))  # greys
    pixels[0, :, 1, :4] = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    pixels[0, :, 2, 0] = 0
    return pixels


@pytest.mark.parametrize("delta", [-0.2, -0.05, 0.0, 0.13, 0.2, 0.9])
def test_hue(delta):
    pixels = colours()
    expected = through_hsv(pixels, lambda h, s, v: ((h + delta) % 1, s, v))
    torch.testing.assert_close(adjust_hue(pixels.clone(), delta), expected, atol=1e-5, rtol=0)


def saturated(pixels, factor):
    """By TensorFlow's kernel: saturation is 0 where no channel is positive, and cut to [0, 1]."""
    return through_hsv(pixels, lambda h, s, v: (h, min(1, max(0, s * factor)), v))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 5.0])
@pytest.mark.parametrize("brightness", [0.0, -0.1255, -0.3, 0.1])
def test_saturation(factor, brightness):
    pixels = colours() + brightness
    expected = saturated(pixels, factor)
    torch.testing.assert_close(adjust_saturation(pixels.clone(), factor), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("saturation", "hue"), [(0.8, 0.15), (1, 0), (1, 0.15), (0.8, 0)])
@pytest.mark.parametrize("brightness", [-0.12, 0.12])
def test_colours_of_a_dark_picture(brightness, saturation, hue):
    """Brightness, saturation, contrast, hue, cut: each by its formula, with nothing cut in between."""
    pixels = torch.randint(0, 60, (1, 1, 3, 8, 8), dtype=torch.uint8, generator=seeded())
    contrast = 1.3
    changed = pixels[0] / 255 + brightness
    if saturation != 1:
        changed = saturated(changed, saturation)
    mean = changed.mean((2, 3), keepdim=True)
    changed = (changed - mean) * contrast + mean
    if hue:
        changed = through_hsv(changed, lambda h, s, v: ((h + hue) % 1, s, v))
    colors = torch.tensor([[brightness, saturation, contrast, hue]], dtype=torch.float64)
    result = change_colors(pixels, colors)[0]
    torch.testing.assert_close(result, changed.clamp(0, 1) * 2 - 1, atol=1e-5, rtol=0)


def test_contrast_keeps_the_mean_of_each_frame():
    pixels = colours()
    changed = adjust_contrast(pixels.clone(), 0.6)
    torch.testing.assert_close(changed.mean((2, 3)), pixels.mean((2, 3)))
    torch.testing.assert_close(changed.std((2, 3)), 0.6 * pixels.std((2, 3)))


def test_without_any_change_it_is_the_video_processor():
    clip = noise(3, 32, 48)
    plain = VattAugmentation(crop_resize_style="none", **STILL).video(clip, (16, 16))
    processor = VattVideoProcessor(size=16, crop_size=16, num_frames=3)
    expected = processor(clip, return_tensors="pt")["pixel_values_videos"][0]
    assert plain.shape == (3, 3, 16, 16)
    assert plain.dtype == torch.float32
    # One is rounded to whole numbers, the other truncated: at most one step of 256 apart.
    assert (plain - expected).abs().max() <= 2 / 255 + 1e-6


@pytest.mark.parametrize("style", ["VGG", "Inception", "none"])
def test_reproducible_and_in_range(style):
    augmentation = VattAugmentation(crop_resize_style=style, color_probability=1.0)
    first = augmentation.video(noise(), (24, 24), seeded(3))
    assert first.shape == (3, 3, 24, 24)
    assert first.min() >= -1
    assert first.max() <= 1
    assert torch.equal(first, augmentation.video(torch.from_numpy(noise()), (24, 24), seeded(3)))
    assert not torch.equal(first, augmentation.video(noise(), (24, 24), seeded(4)))


def test_all_frames_change_alike():
    clip = np.repeat(noise(1), 5, axis=0)
    for seed in range(8):
        values = VattAugmentation(crop_resize_style="Inception").video(clip, (24, 24), seeded(seed))
        torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-5, rtol=0)


def test_flip_probability():
    clip = coordinates(16, 16)
    augmentation = VattAugmentation(crop_resize_style="none", color_probability=0.0)
    generator = seeded()
    falling = 0
    for _ in range(400):
        row = augmentation.video(clip, (16, 16), generator)[0, 1, 0]
        assert torch.equal(row, row.sort().values) or torch.equal(row, row.sort(descending=True).values)
        falling += int(row[0] > row[-1])
    assert 160 < falling < 240
    never = dataclasses.replace(augmentation, flip_probability=0.0)
    assert all(never.video(clip, (16, 16), generator)[0, 1, 0, 0] == -1 for _ in range(20))


def test_color_probability_and_strength():
    grey = np.full((1, 8, 8, 3), 128, np.uint8)
    augmentation = VattAugmentation(crop_resize_style="none")
    generator = seeded()
    shifts = torch.stack([augmentation.video(grey, (8, 8), generator)[0, 0, 0, 0] for _ in range(500)])
    shifts = (shifts + 1) / 2 - 128 / 255
    changed = shifts[shifts.abs() > 1e-6]
    assert 0.74 < len(changed) / 500 < 0.86
    # Only brightness shows on an even grey; its draw is uniform in +-32/255.
    assert changed.abs().max() <= 32 / 255 + 1e-6
    assert changed.abs().max() > 30 / 255
    assert abs(changed.mean()) < 8 / 255


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (120, 120), (7, 200)])
def test_inception_boxes(height, width):
    augmentation = VattAugmentation(crop_resize_style="Inception")
    generator = seeded()
    boxes = [augmentation.inception_box(height, width, (24, 24), generator) for _ in range(500)]
    found = [box for box in boxes if box != (0, 0, height, width)]
    for top, left, rows, columns in found:
        assert 0 <= top <= height - rows
        assert 0 <= left <= width - columns
        # The sampler rejects boxes that cover less than a tenth, so 0.08 is never reached.
        assert 0.1 <= rows * columns / (height * width) <= 1
        assert 0.5 - 0.6 / rows <= columns / rows <= 2 + 0.6 / rows
    if (height, width) == (7, 200):
        assert not found  # no box of these ratios covers a tenth: the whole picture
    else:
        assert len(found) > 480
        shares = [rows * columns / (height * width) for _, _, rows, columns in found]
        assert min(shares) < 0.15
        assert max(shares) > 0.7
        assert len({box[:2] for box in found}) > 100


def test_inception_crop_is_where_the_box_is():
    augmentation = VattAugmentation(crop_resize_style="Inception", **STILL)
    for seed in range(10):
        top, left, rows, columns = augmentation.inception_box(60, 80, (20, 20), seeded(seed))
        values = (augmentation.video(coordinates(60, 80), (20, 20), seeded(seed))[0] + 1) * 127.5
        place = (torch.arange(20) + 0.5) / 20
        torch.testing.assert_close(
            values[0, :, 0], (top - 0.5 + place * rows).clamp(top, top + rows - 1), atol=0.51, rtol=0
        )
        torch.testing.assert_close(
            values[1, 0], (left - 0.5 + place * columns).clamp(left, left + columns - 1), atol=0.51, rtol=0
        )


def test_vgg_boxes():
    generator = seeded()
    jittered = VattAugmentation()
    ratios, full = [], 0
    for _ in range(500):
        top, left, rows, columns = jittered.vgg_box(90, 160, (24, 24), generator)
        assert 0 <= top <= 90 - rows
        assert 0 <= left <= 160 - columns
        assert rows == 90  # the shorter side is kept whole, whatever the jitter
        ratios.append(columns / rows)
        full += rows == columns
    # Factors 0.8-1.2 of each axis: ratios 2/3 to 3/2; no jitter in a fifth of the cases.
    assert 0.64 < min(ratios) < 0.8
    assert 1.3 < max(ratios) < 1.52
    assert 70 < full < 140
    still = VattAugmentation(scale_jitter_probability=0.0)
    boxes = [still.vgg_box(90, 160, (24, 24), generator) for _ in range(300)]
    assert {box[2:] for box in boxes} == {(90, 90)}
    assert min(box[1] for box in boxes) < 4
    assert max(box[1] for box in boxes) > 66
    assert still.vgg_box(20, 10, (40, 40), generator)[2:] == (10, 10)


def test_noise_of_sound():
    waveform = np.sin(np.arange(50_000) / 7).astype(np.float32) * 0.5
    noisy = VattAugmentation().audio(waveform, seeded())
    assert noisy.dtype == np.float32
    assert np.std(noisy - waveform) == pytest.approx(0.01 * np.abs(waveform).max(), rel=0.03)
    np.testing.assert_array_equal(noisy, VattAugmentation().audio(waveform, seeded()))
    np.testing.assert_array_equal(VattAugmentation(noise=0.0).audio(waveform), waveform)
    silence = np.zeros(10, np.float32)
    np.testing.assert_array_equal(VattAugmentation().audio(silence), silence)


def test_input_is_left_alone():
    clip = noise()
    before = clip.copy()
    VattAugmentation(color_probability=1.0).video(clip, (24, 24), seeded())
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"crop_resize_style": "vgg"},
        {"area_range": (0.5, 0.1)},
        {"area_range": (0.5, 1.5)},
        {"aspect_ratio_range": (0.0, 2.0)},
        {"scale_range": (0.0, 1.0)},
    ],
)
def test_bad_parameters(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        VattAugmentation(**kwargs)


@pytest.mark.parametrize("frames", [noise().astype(np.float32), noise()[0], noise().transpose(0, 3, 1, 2)])
def test_bad_frames(frames):
    with pytest.raises(ValueError, match="uint8 frames"):
        VattAugmentation().video(frames)
