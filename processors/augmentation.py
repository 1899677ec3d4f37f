# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training augmentation of the release (paper A.2.1), reproducible through a `torch.Generator`.

All random values are drawn once per clip. The two resizings of the release are composed into one, which
computes only the part of the frames that the crop keeps.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from .windows import as_tensor


_CACHE_PIXELS = 100_000  # changed at a time: more do not fit into the processor's cache
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class VattAugmentation:
    """Parameters of the training augmentation; the defaults are the official ones.

    Args:
        crop_resize_style: "VGG" (release, pre-training): scale jitter, shorter side to the crop size, random
            crop. "Inception" (paper, and fine-tuning of the release): random area and aspect ratio. "none":
            centre crop.
        flip_probability: of a horizontal flip.
        scale_jitter_probability, scale_range: "VGG"; height and width are scaled independently.
        area_range, aspect_ratio_range: "Inception"; share of the picture's area, and width / height.
        min_object_covered, max_attempts: "Inception"; smallest accepted share of the picture, and number of
            draws after which the whole picture is taken.
        color_probability: of changing colours at all.
        max_brightness_delta, saturation_range, contrast_range, max_hue_delta: on values in [0, 1], hue in
            turns.
        noise: standard deviation of the noise added to sound, as a share of its peak.
    """

    crop_resize_style: Literal["VGG", "Inception", "none"] = "VGG"
    flip_probability: float = 0.5
    scale_jitter_probability: float = 0.8
    scale_range: tuple[float, float] = (0.8, 1.2)
    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_ratio_range: tuple[float, float] = (0.5, 2.0)
    min_object_covered: float = 0.1
    max_attempts: int = 100
    color_probability: float = 0.8
    max_brightness_delta: float = 32 / 255
    saturation_range: tuple[float, float] = (0.6, 1.4)
    contrast_range: tuple[float, float] = (0.6, 1.4)
    max_hue_delta: float = 0.2
    noise: float = 0.01

    def __post_init__(self) -> None:
        if self.crop_resize_style not in ("VGG", "Inception", "none"):
            raise ValueError(
                f'`crop_resize_style` must be "VGG", "Inception" or "none", got {self.crop_resize_style!r}.'
            )
        for name in ("scale_range", "area_range", "aspect_ratio_range", "saturation_range", "contrast_range"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(
                    f"`{name}` must be an increasing pair of non-negative numbers, got {(low, high)}."
                )
            if low == 0 and name in ("scale_range", "area_range", "aspect_ratio_range"):
                raise ValueError(f"`{name}` must lie above 0.")
        if self.area_range[1] > 1:
            raise ValueError("`area_range` must lie in (0, 1].")

    def video(
        self,
        frames: torch.Tensor | np.ndarray,
        crop_size: tuple[int, int] = (224, 224),
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Augment one clip.

        Args:
            frames: uint8 (T, H, W, 3).
            crop_size: (height, width) of the result in pixels.
            generator: source of randomness (CPU); None draws from torch's global one.

        Returns:
            float32 (T, 3, height, width) in [-1, 1].
        """
        pixels = self.geometry(frames, crop_size, generator)
        return change_colors(pixels[None], self.colors(generator)[None])[0]

    def geometry(
        self, frames: torch.Tensor | np.ndarray, crop_size: tuple[int, int], generator: torch.Generator | None
    ) -> torch.Tensor:
        """Crop, scale and flip of [`video`], uint8 (T, 3, height, width); [`colors`] draws the rest."""
        frames = as_tensor(frames)
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(
                f"Expected uint8 frames of shape (T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}."
            )
        box = self.inception_box if self.crop_resize_style == "Inception" else self.vgg_box
        top, left, rows, columns = box(*frames.shape[1:3], crop_size, generator)
        pixels = frames[:, top : top + rows, left : left + columns].contiguous().permute(0, 3, 1, 2)
        # On uint8, torch resizes several times as fast as on floats; values are rounded to whole numbers.
        if (rows, columns) != tuple(crop_size):
            pixels = F.interpolate(pixels, size=crop_size, mode="bilinear", align_corners=False)
        # Frames come with the channels last; transposing costs less before they become floats.
        pixels = pixels.contiguous()
        return pixels.flip(-1) if _uniform(0, 1, generator) < self.flip_probability else pixels

    def colors(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw brightness, saturation, contrast and hue for [`change_colors`]: float64 (4,), NaN for none."""
        if _uniform(0, 1, generator) >= self.color_probability:
            return torch.full((4,), math.nan, dtype=torch.float64)
        brightness = _uniform(-self.max_brightness_delta, self.max_brightness_delta, generator)
        saturation = _uniform(*self.saturation_range, generator)
        contrast = _uniform(*self.contrast_range, generator)
        hue = _uniform(-self.max_hue_delta, self.max_hue_delta, generator)
        return torch.tensor([brightness, saturation, contrast, hue], dtype=torch.float64)

    def audio(self, waveform: np.ndarray, generator: torch.Generator | None = None) -> np.ndarray:
        """float32 (samples,) plus Gaussian noise of `noise` times its peak."""
        peak = float(max(waveform.max(initial=0.0), -waveform.min(initial=0.0)))
        if self.noise == 0 or peak == 0:
            return waveform
        noise = torch.randn(waveform.shape, generator=generator).numpy()
        noise *= self.noise * peak
        noise += waveform
        return noise

    def vgg_box(
        self, height: int, width: int, crop_size: tuple[int, int], generator: torch.Generator | None = None
    ) -> Box:
        """Box (top, left, rows, columns) that scale jitter, resizing and random crop keep."""
        random = self.crop_resize_style == "VGG"
        scaled_height, scaled_width = height, width
        if random and _uniform(0, 1, generator) < self.scale_jitter_probability:
            scaled_height = max(1, int(height * _uniform(*self.scale_range, generator)))
            scaled_width = max(1, int(width * _uniform(*self.scale_range, generator)))
        crop_height, crop_width = crop_size
        # The smallest scaling that covers the crop: for square crops, the shorter side becomes the crop size.
        zoom = max(crop_height / scaled_height, crop_width / scaled_width)
        rows = min(height, max(1, round(crop_height / zoom * height / scaled_height)))
        columns = min(width, max(1, round(crop_width / zoom * width / scaled_width)))
        if not random:
            return (height - rows) // 2, (width - columns) // 2, rows, columns
        top, left = _integer(height - rows + 1, generator), _integer(width - columns + 1, generator)
        return top, left, rows, columns

    def inception_box(
        self, height: int, width: int, crop_size: tuple[int, int], generator: torch.Generator | None = None
    ) -> Box:
        """Random box (top, left, rows, columns), as of TensorFlow's distorted bounding box sampler."""
        form = crop_size[1] / crop_size[0]
        ratios = (self.aspect_ratio_range[0] * form, self.aspect_ratio_range[1] * form)
        smallest, largest = (share * height * width for share in self.area_range)
        for _ in range(self.max_attempts):
            ratio = _uniform(*ratios, generator)
            rows = _box_rows(height, width, ratio, smallest, largest, generator)
            columns = round(rows * ratio)
            if not (0 < rows <= height and 0 < columns <= width and smallest <= rows * columns <= largest):
                continue
            # The end of the range is never drawn, unless the box fills the side: so does TensorFlow.
            top, left = _integer(height - rows, generator), _integer(width - columns, generator)
            if rows * columns >= self.min_object_covered * height * width:
                return top, left, rows, columns
        return 0, 0, height, width


def change_colors(pixels: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
    """Clips, uint8 (clips, T, 3, H, W), with changed colours: float32 in [-1, 1] on the same device.
    `colors`: float64 (clips, 4) on the CPU, from [`VattAugmentation.colors`]."""
    output = torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device)
    count = len(pixels[0]) if pixels.is_cuda else max(1, _CACHE_PIXELS // pixels[0, 0, 0].numel())
    for clip, result, (brightness, saturation, contrast, hue) in zip(
        pixels, output, colors.tolist(), strict=True
    ):
        if math.isnan(brightness):
            result.copy_(clip).mul_(2 / 255).sub_(1)
            continue
        for part, target in zip(clip.split(count), result.split(count), strict=True):
            if saturation == 1 and hue == 0:  # all is linear: half as many passes
                mean = target.copy_(part).mean((2, 3), keepdim=True)
                shift = mean.mul_((1 - contrast) * 2 / 255).add_(2 * brightness - 1)
                target.mul_(contrast * 2 / 255).add_(shift).clamp_(-1, 1)
                continue
            target.copy_(part).mul_(1 / 255).add_(brightness)
            if saturation != 1:
                adjust_saturation(target, saturation)
            adjust_contrast(target, contrast)
            if hue:
                adjust_hue(target, hue)
            target.clamp_(0, 1).mul_(2).sub_(1)
    return output


def adjust_saturation(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """In place: HSV saturation of (T, 3, H, W) times `factor`, cut to [0, 1]; hue and value are kept.

    As in TensorFlow's kernel, pixels that brightness made partly negative have a saturation above 1 before
    the cut, and those without a positive channel become grey.
    """
    lowest, value = _extremes(pixels)
    # Saturation is chroma / value, so it reaches 1 at a factor of value / chroma.
    chroma = torch.sub(value, lowest, out=lowest).clamp_(min=1e-12)
    share = torch.div(value, chroma, out=chroma).clamp_(0, factor).unsqueeze(1)
    value = value.unsqueeze(1)
    return pixels.sub_(value).mul_(share).add_(value)


def adjust_contrast(pixels: torch.Tensor, factor: float) -> torch.Tensor:
    """In place: distance of (T, 3, H, W) from the mean of each frame and channel times `factor`."""
    mean = pixels.mean((2, 3), keepdim=True)
    return pixels.mul_(factor).add_(mean.mul_(1 - factor))


def adjust_hue(pixels: torch.Tensor, delta: float) -> torch.Tensor:
    """In place: HSV hue of (T, 3, H, W) turned by `delta` turns; saturation and value are kept."""
    red, green, blue = pixels.unbind(1)
    lowest, value = _extremes(pixels)
    chroma = value - lowest
    inverse = chroma.clamp(min=1e-12).reciprocal_()
    # Hue in sixths of a turn: distance from the primary colour that dominates.
    hue = (red - green).mul_(inverse).add_(4)
    hue = torch.where(value == green, (blue - red).mul_(inverse).add_(2), hue)
    hue = torch.where(value == red, (green - blue).mul_(inverse), hue)
    hue.add_(delta * 6)
    hue.sub_(hue.div(6).floor_().mul_(6))
    # Share of the chroma in each channel along the colour circle: 1 around its own colour, 0 opposite to it.
    shares = ((hue - 3).abs_().sub_(1), (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2))
    for channel, share in zip((red, green, blue), shares, strict=True):
        torch.addcmul(lowest, chroma, share.clamp_(0, 1), out=channel)
    return pixels


def _extremes(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest channel of (T, 3, H, W)."""
    red, green, blue = pixels.unbind(1)
    lowest, highest = torch.minimum(red, green), torch.maximum(red, green)
    return torch.minimum(lowest, blue, out=lowest), torch.maximum(highest, blue, out=highest)


def _box_rows(
    height: int, width: int, ratio: float, smallest: float, largest: float, generator: torch.Generator | None
) -> int:
    """Height of a box of the given width / height ratio, uniform among those of an allowed area."""
    rows, most = round(math.sqrt(smallest / ratio)), round(math.sqrt(largest / ratio))
    if round(most * ratio) > width:
        most = int((width + 0.5 - 1e-7) / ratio)
    most = min(most, height)
    rows = min(rows, most)
    rows += _integer(most - rows + 1, generator)
    if round(rows * ratio) * rows < smallest:
        rows += 1
    if round(rows * ratio) * rows > largest:
        rows -= 1
    return rows


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(stop: int, generator: torch.Generator | None) -> int:
    """Uniform in 0, ..., stop - 1; 0 if there is no choice."""
    return int(torch.randint(max(1, stop), (), generator=generator))
