# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Image processor of VATT: pictures to `pixel_values`, by the rules of the video processor."""

from typing import Any, Self

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import ImagesKwargs

from .inputs import is_single, unwrapped
from .media import read_picture
from .video_processing_vatt import PixelRules, VattVideoProcessor
from .windows import is_media_source


class VattImagesKwargs(ImagesKwargs, total=False):
    """
    antialias (`bool`): see [`VattVideosKwargs`].
    """

    antialias: bool | None


class VattImageProcessor(PixelRules):
    r"""Turns pictures into `pixel_values`, float32 `(batch, channels, height, width)` in [-1, 1].

    Resizing, crop and scale are those of [`VattVideoProcessor`]; the model repeats the picture in time. Works
    with and without torchvision, in transformers' `image-classification` pipeline too.

    Args:
        size, crop_size, resample, do_resize, do_center_crop, do_rescale, rescale_factor, do_normalize,
            image_mean, image_std, do_convert_rgb, antialias: see [`VattVideoProcessor`].
    """

    valid_kwargs = VattImagesKwargs
    model_input_names = ["pixel_values"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._video_processor()

    @classmethod
    def from_video_processor(cls, video_processor: VattVideoProcessor) -> Self:
        """The image processor that treats a picture as `video_processor` treats a frame."""
        names = set(cls.valid_kwargs.__annotations__) & set(video_processor.valid_kwargs.__annotations__)
        own = {name: getattr(video_processor, name, None) for name in names}
        return cls(**{name: value for name, value in own.items() if value is not None})

    def _video_processor(self, **kwargs: Any) -> VattVideoProcessor:
        names = set(self.valid_kwargs.__annotations__) & set(VattVideoProcessor.valid_kwargs.__annotations__)
        own = {name: getattr(self, name, None) for name in names}
        return VattVideoProcessor(**{**own, **kwargs, "num_frames": 1})

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Pictures to `pixel_values`.

        Args:
            images: a picture or a list of them, PIL or arrays `(H, W, C)` or `(C, H, W)`, or an array of
                several `(batch, ...)`. Also paths, bytes and rows of `datasets` with `bytes` or `path`.
                Values range from 0 to 255, or to 1 with `do_rescale=False`.
            kwargs: parameters that differ from the processor's in this call, and `return_tensors` (`"pt"`,
                `"np"`; None gives a list of tensors).

        Raises:
            ValueError: input of a wrong form.
            TypeError: an unknown parameter.
        """
        unknown = set(kwargs) - set(self.valid_kwargs.__annotations__)
        if unknown:
            raise TypeError(f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}.")
        tensor_type = kwargs.pop("return_tensors", None)
        several = isinstance(images, list | tuple) or (
            isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4
        )
        given = {name: value for name, value in kwargs.items() if value is not None}
        pictures = [[_picture(image)] for image in (images if several else [images])]
        clips = self._video_processor(**given)(pictures)
        return BatchFeature(
            {"pixel_values": [clip[0] for clip in clips["pixel_values_videos"]]}, tensor_type=tensor_type
        )


def _picture(image: Any) -> Any:
    image = unwrapped(image) if is_single(image) else image
    return read_picture(image) if is_media_source(image) else image
