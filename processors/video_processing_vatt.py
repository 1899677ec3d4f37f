# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Video processor of VATT: frames to `pixel_values_videos`, in plain torch (torchvision is not needed)."""

from reprlib import repr as shown
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import validate_typed_dict
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import ChannelDimension, SizeDict
from transformers.processing_utils import VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import VideoProcessorMixin

from .inputs import frames_of, is_single, numbers_of, unwrapped
from .media import DEFAULT_LIMITS, MediaClip, MediaError, MediaLimits
from .media.picture import picture_pixels
from .windows import as_tensor, is_media_source, read_windows, repeat_to


logger = logging.get_logger(__name__)

# Types that hold 0 to 255. Others (bool, uint16) do not say what white is.
_PIXEL_TYPES = ("uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
BILINEAR = 2  # value of PIL's enumeration, which need not be installed


class VattVideosKwargs(VideosKwargs, total=False):
    """
    crop_mode (`str`): `"center"`, or `"three"` for three views of each clip (start, middle and end of the
        longer side), which become batch entries of their own: views of clip 0, views of clip 1, ...
    decode_size (`int`): shorter side in pixels that files are decoded at; None decodes at their own size.
        Saves time for large videos, at the price of a second resampling.
    antialias (`bool`): resize with PIL, which averages over the pixels that fall together, as the image
        processors of other models do.
    """

    crop_mode: Literal["center", "three"] | None
    decode_size: int | None
    antialias: bool | None


class PixelRules(BaseImageProcessor):
    """Defaults of pictures and clips: the release's rules of evaluation."""

    resample = BILINEAR
    size = {"shortest_edge": 224}
    default_to_square = False
    crop_size = {"height": 224, "width": 224}
    antialias = False
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """See transformers; newer settings at their defaults are left out, so older processors stay equal."""
        saved = super().to_dict()
        if not saved.get("antialias"):
            saved.pop("antialias", None)
        return saved


class VattVideoProcessor(PixelRules, VideoProcessorMixin):
    r"""Turns clips into `pixel_values_videos`, float32 `(batch, num_frames, channels, height, width)` in [-1,
    1].

    Evaluation rules of the release: the shorter side is resized to `size` (bilinear, half-pixel centres, no
    antialiasing; uint8 frames stay uint8, values truncated), the centre (or three views, see `crop_mode`) of
    `crop_size` is cut out, and pixels are scaled to [-1, 1]. A clip of more than `num_frames` frames is cut
    to its centre, a shorter one is repeated; one image becomes a clip of equal frames (`num_frames=4` is what
    the release feeds for pictures).

    Args:
        size (`int` or `dict`): `{"shortest_edge": 224}`, or `{"height": ..., "width": ...}`.
        crop_size (`int` or `dict`): `{"height": 224, "width": 224}`.
        num_frames (`int`): frames of a clip.
        fps (`float`): frames taken per second of a file. Arrays are taken to have that rate already, unless
            `do_sample_frames=True` and `video_metadata` (with `fps`) say otherwise.
        crop_mode, decode_size, antialias: see [`VattVideosKwargs`].
        resample (`int`): PIL's number of the interpolation; other than bilinear with `antialias` only.
        do_resize, do_center_crop, do_rescale, rescale_factor, do_normalize, image_mean, image_std,
            do_convert_rgb: as in other video processors. `do_convert_rgb` applies to PIL images and grey
            arrays.
    """

    valid_kwargs = VattVideosKwargs
    model_input_names = ["pixel_values_videos"]

    crop_mode = "center"
    decode_size = None
    num_frames = 32
    fps = 10.0
    do_sample_frames = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings()

    @property
    def window_seconds(self) -> float:
        """Length of a clip in seconds."""
        return self.num_frames / self.fps

    def settings(self, **kwargs: Any) -> dict[str, Any]:
        """All parameters of one call, given or the processor's; raises for unknown or bad ones."""
        unknown = set(kwargs) - set(self.valid_kwargs.__annotations__)
        if unknown:
            raise TypeError(f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}.")
        if kwargs:
            validate_typed_dict(self.valid_kwargs, kwargs)
        given = {name: value for name, value in kwargs.items() if value is not None}
        own = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        settings = self._standardize_kwargs(**{**own, **given})
        if settings["resample"] != BILINEAR and not settings["antialias"]:
            raise ValueError(
                f"Only bilinear resampling is offered (`resample={BILINEAR}`); `antialias=True` has PIL's."
            )
        if settings["crop_mode"] not in ("center", "three"):
            raise ValueError(f'`crop_mode` must be "center" or "three", got {settings["crop_mode"]!r}.')
        undone = [name for name in ("do_pad", "return_metadata") if settings.get(name)]
        undone += ["`longest_edge` of `size`"] if settings["size"] and settings["size"].longest_edge else []
        if undone:
            raise ValueError(f"{', '.join(undone)}: is not offered here, leave it out.")
        if settings["data_format"] not in (None, "channels_first", ChannelDimension.FIRST):
            raise ValueError("The models take channels first: leave `data_format` out.")
        return settings

    def preprocess(self, videos: Any, *, limits: MediaLimits = DEFAULT_LIMITS, **kwargs: Any) -> BatchFeature:
        """Clips to `pixel_values_videos`.

        Args:
            videos: one clip or a list of clips. A clip is an array or tensor (T, H, W, C) or (T, C, H, W), a
                list of images (PIL or arrays), one image, a [`MediaClip`], a path, URL, bytes or file object,
                of which the centred window is read, a row of `datasets` with `bytes` or `path`, or
                torchcodec's `VideoDecoder` or `FrameBatch`, of which frames are taken at `fps` by their
                times. Values range from 0 to 255, or to 1 with `do_rescale=False`.
            limits: what a file may cost, and which hosts may be fetched from.
            kwargs: parameters that differ from the processor's in this call, and `return_tensors` (`"pt"`,
                `"np"`; None gives a list of tensors).

        Raises:
            ValueError: input of a wrong form, or values outside their range.
            MediaError: a file that cannot be read.
        """
        settings = self.settings(**kwargs)
        clips = self.split(videos)
        metadata = self.split_metadata(len(clips), settings)
        views = [
            view
            for clip, data in zip(clips, metadata, strict=True)
            for view in self.transform(self.load(clip, settings, data, limits), settings)
        ]
        tensor_type = settings["return_tensors"]
        pixels = self.stack(views) if tensor_type else views
        return BatchFeature({"pixel_values_videos": pixels}, tensor_type=tensor_type)

    def split(self, videos: Any) -> list[Any]:
        """The single clips of a batch, unread."""
        if is_single(videos) or is_media_source(videos) or isinstance(videos, MediaClip) or _is_image(videos):
            return [unwrapped(videos)]
        if isinstance(videos, np.ndarray | torch.Tensor):
            if videos.ndim not in (4, 5):
                raise ValueError(
                    f"Expected an image (3 axes), video (4) or videos (5), got shape {tuple(videos.shape)}."
                )
            return [videos] if videos.ndim == 4 else list(videos)
        if not isinstance(videos, list | tuple) or not len(videos):
            raise ValueError(
                f"Expected a video (array, images, path) or a list of them, got {shown(videos)}."
            )
        return [videos] if all(map(_is_image, videos)) else list(map(unwrapped, videos))

    def split_metadata(self, count: int, settings: dict[str, Any]) -> list[Any]:
        """`video_metadata` of each of `count` clips, None where there is none."""
        metadata = settings["video_metadata"]
        metadata = metadata if isinstance(metadata, list) else [metadata] * count
        if len(metadata) != count:
            raise ValueError(f"`video_metadata` has {len(metadata)} entries for {count} videos.")
        return metadata

    def load(
        self, clip: Any, settings: dict[str, Any], metadata: Any = None, limits: MediaLimits = DEFAULT_LIMITS
    ) -> torch.Tensor:
        """One clip as tensor (T, C, H, W) of unchanged type and size; of files, the centred window."""
        if is_media_source(clip):
            seconds = settings["num_frames"] / settings["fps"]
            options = {"fps": settings["fps"], "size": settings["decode_size"]}
            clip = read_windows(clip, seconds, audio=False, limits=limits, **options)[0]
        if isinstance(clip, MediaClip):
            if clip.frames is None or not len(clip.frames):
                raise MediaError(
                    clip.info.source,
                    f"no pictures at {clip.start:g} s",
                    "Choose another window, or pass a file without pictures as `audio`.",
                )
            return as_tensor(clip.frames).permute(0, 3, 1, 2)
        clip = frames_of(clip, settings["fps"], limits.max_bytes)
        if _is_image(clip):
            clip = [clip]
        if isinstance(clip, list | tuple):
            clip = _stack_images(clip, settings["do_convert_rgb"])
        if not isinstance(clip, np.ndarray | torch.Tensor) or clip.ndim != 4 or not len(clip):
            found = tuple(clip.shape) if hasattr(clip, "shape") else type(clip).__name__
            raise ValueError(f"Expected a clip of shape (T, H, W, C) or (T, C, H, W), got {found}.")
        frames = _as_pixels(clip)
        if _channels_last(frames, settings["input_data_format"]):
            frames = frames.permute(0, 3, 1, 2)
        if frames.shape[1] == 1 and settings["do_convert_rgb"]:
            frames = frames.expand(-1, 3, -1, -1)
        if frames.shape[1] != 3:
            raise ValueError(
                f"Expected 3 colour channels, got {frames.shape[1]}. Drop or convert the others first."
            )
        _check_range(frames, settings)
        if settings["do_sample_frames"]:
            frames = frames[self.sample_frames(metadata, fps=settings["fps"], length=len(frames))]
        return frames

    def sample_frames(
        self, metadata: Any, fps: float | None = None, length: int = 0, **kwargs: Any
    ) -> np.ndarray:
        """Indices of the frames shown at k / `fps` seconds, of `length` frames at the rate in `metadata`."""
        rate = metadata.get("fps") if isinstance(metadata, dict) else getattr(metadata, "fps", None)
        if not rate:
            raise ValueError("`do_sample_frames` needs the frame rate: pass `video_metadata={'fps': ...}`.")
        step = rate / (fps or self.fps)
        return (np.arange(max(1, round(length / step))) * step + 1e-6).astype(int).clip(max=length - 1)

    def transform(self, frames: torch.Tensor, settings: dict[str, Any]) -> list[torch.Tensor]:
        """One clip (T, C, H, W) to its views, float32 (num_frames, C, height, width)."""
        count = settings["num_frames"]
        if len(frames) > count:
            frames = repeat_to(frames, count)
        if settings["device"] is not None:
            frames = frames.to(settings["device"])
        if settings["do_resize"]:
            resample = settings["resample"] if settings["antialias"] else None
            frames = _resize(frames, *_target_size(frames, settings["size"]), resample)
        crop: SizeDict | None = settings["crop_size"] if settings["do_center_crop"] else None
        boxes = _crop_boxes(frames, crop, settings["crop_mode"])
        views = [self._normalize(frames[:, :, rows, columns], settings) for rows, columns in boxes]
        # Repeating comes last, so that no frame is computed twice.
        return [repeat_to(view, count) if len(view) < count else view for view in views]

    def stack(self, views: list[torch.Tensor]) -> torch.Tensor:
        """Views to one batch."""
        shapes = {tuple(view.shape) for view in views}
        if len(shapes) != 1:
            raise ValueError(
                f"Clips of different sizes {sorted(shapes)} make no batch: set `do_center_crop=True`."
            )
        return torch.stack(views) if len(views) > 1 else views[0].unsqueeze(0)

    def _normalize(self, frames: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
        """Rescaling and normalisation as one multiplication and one addition."""
        factor = settings["rescale_factor"] if settings["do_rescale"] else 1.0
        scale = torch.full((1,), factor, device=frames.device)
        shift = torch.zeros_like(scale)
        if settings["do_normalize"]:
            std = torch.as_tensor(settings["image_std"], dtype=torch.float32, device=frames.device)
            mean = torch.as_tensor(settings["image_mean"], dtype=torch.float32, device=frames.device)
            scale, shift = scale / std, shift - mean / std
        frames = frames.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return frames.mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))


def _is_image(value: Any) -> bool:
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.ndim == 3
    return hasattr(value, "convert") and hasattr(value, "getbands")  # PIL, which need not be installed


def _stack_images(images: Any, convert_rgb: bool) -> np.ndarray | torch.Tensor:
    arrays = []
    for image in images:
        if hasattr(image, "convert"):
            image = picture_pixels(image) if convert_rgb else np.asarray(image)
        elif not _is_image(image):
            raise ValueError(f"A list of frames must hold images, found {type(image).__name__}.")
        arrays.append(_as_pixels(image))
    shapes = {tuple(array.shape) for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"The frames of a clip must have one size, got {sorted(shapes)}. Resize them first.")
    return torch.stack(arrays)


def _as_pixels(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    expected = "pixels as uint8, or as numbers from 0 to 255 (of uint16: `(x / 257).astype('uint8')`)"
    return as_tensor(numbers_of(array, _PIXEL_TYPES, expected))


def _check_range(frames: torch.Tensor, settings: dict[str, Any]) -> None:
    """Refuse values for which scaling and normalisation do not fit."""
    largest = 1 / settings["rescale_factor"] if settings["do_rescale"] else 1.0
    if frames.dtype == torch.uint8 and largest >= 255 - 1e-3:
        return
    own_constants = settings["do_normalize"] and max(map(abs, settings["image_mean"])) > 1
    if not settings["do_rescale"] and (own_constants or not settings["do_normalize"]):
        return  # who leaves both out knows the range
    low, high = float(frames.min()), float(frames.max())
    slack = largest / 1000
    if not -slack <= low <= high <= largest + slack:
        raise ValueError(
            f"Expected pixels from 0 to {largest:g}, got {frames.dtype} from {low:g} to {high:g}: scale "
            "them, or set `do_rescale` and `do_normalize`."
        )
    if settings["do_rescale"] and frames.is_floating_point() and high <= 1:
        logger.warning_once("The frames seem to be in [0, 1] already: pass `do_rescale=False`.")


def _channels_last(frames: torch.Tensor, input_data_format: Any) -> bool:
    if input_data_format is not None:
        return ChannelDimension(input_data_format) == ChannelDimension.LAST
    last, first = (frames.shape[axis] in (1, 3) for axis in (-1, 1))
    if first and last:
        raise ValueError(f"Shape {tuple(frames.shape)} is ambiguous: pass `input_data_format`.")
    return last or (not first and frames.shape[-1] < frames.shape[1])


def _target_size(frames: torch.Tensor, size: SizeDict) -> tuple[int, int]:
    height, width = frames.shape[-2:]
    if size.shortest_edge:
        edge = size.shortest_edge
        return max(edge, height * edge // width), max(edge, width * edge // height)
    if not (size.height and size.width):
        raise ValueError(f"`size` needs `shortest_edge`, or `height` and `width`, got {size}.")
    return size.height, size.width


def _resize(frames: torch.Tensor, height: int, width: int, resample: int | None) -> torch.Tensor:
    """Resize by PIL or, if `resample` is None, bilinearly with half-pixel centres; uint8 is then truncated,
    as in the release."""
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    if resample is not None:
        return _resize_as_pil(frames, height, width, resample)
    # One frame at a time: float copies of more do not fit into the processor's cache.
    resized = torch.cat(
        [
            F.interpolate(frame.float(), size=(height, width), mode="bilinear", align_corners=False)
            for frame in frames.split(1)
        ]
    )
    return resized if frames.is_floating_point() else resized.floor_()


def _resize_as_pil(frames: torch.Tensor, height: int, width: int, resample: int) -> torch.Tensor:
    """Resize by PIL, frame by frame, float channels one by one."""
    from PIL import Image

    whole = frames.dtype == torch.uint8
    pictures = frames.cpu().permute(0, 2, 3, 1) if whole else frames.cpu().float().flatten(0, 1)
    images = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures.numpy()]
    resized = [np.asarray(image.resize((width, height), Image.Resampling(resample))) for image in images]
    result = torch.from_numpy(np.stack(resized)).to(frames.device)
    return result.permute(0, 3, 1, 2) if whole else result.view(*frames.shape[:2], height, width)


def _crop_boxes(frames: torch.Tensor, crop: SizeDict | None, mode: str) -> list[tuple[slice, slice]]:
    """(rows, columns) of each view."""
    height, width = frames.shape[-2:]
    if crop is None:
        if mode == "three":
            raise ValueError('`crop_mode="three"` needs `do_center_crop=True`.')
        return [(slice(None), slice(None))]
    if crop.height is None or crop.width is None or crop.height > height or crop.width > width:
        raise ValueError(
            f"Cannot crop {crop.height} x {crop.width} from frames of {height} x {width}: enlarge `size`."
        )
    top, left = (height - crop.height) // 2, (width - crop.width) // 2
    corners = [(top, left)]
    if mode == "three":
        # Python rounds half to even, as the release does.
        if height >= width:
            corners = [(y, 0) for y in (0, round(height / 2 - crop.height // 2), height - crop.height)]
        else:
            corners = [(0, x) for x in (0, round(width / 2 - crop.width // 2), width - crop.width)]
    return [(slice(y, y + crop.height), slice(x, x + crop.width)) for y, x in corners]
