# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Processor of VATT: media files, arrays and captions to the inputs of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import TextKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .augmentation import VattAugmentation, change_colors
from .feature_extraction_vatt import VattFeatureExtractor
from .media import DEFAULT_LIMITS, MediaClip, MediaLimits
from .video_processing_vatt import VattVideoProcessor, VattVideosKwargs
from .windows import Window, WindowReader, is_media_source, repeat_to


class VattProcessor(ProcessorMixin):
    r"""Wraps a [`VattFeatureExtractor`], a [`VattVideoProcessor`] and a tokenizer into one processor.

    Args:
        feature_extractor ([`VattFeatureExtractor`]): for sound.
        video_processor ([`VattVideoProcessor`]): for frames.
        tokenizer ([`VattTokenizer`] or another tokenizer whose padding id is 0): for captions.
        num_captions (`int`): captions of a clip, where several are given (the clip's own and its neighbours
            in time).

    ```python
    >>> batch = processor(videos=["a.mp4", "b.webm"], text=["a dog barks", "rain on a roof"])
    >>> model(**batch)
    ```
    """

    def __init__(
        self,
        feature_extractor: Any = None,
        video_processor: Any = None,
        tokenizer: Any = None,
        num_captions: int = 5,
    ) -> None:
        super().__init__(feature_extractor, video_processor, tokenizer)
        if num_captions < 1:
            raise ValueError(f"`num_captions` must be at least 1, got {num_captions}.")
        self.num_captions = num_captions

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """See transformers, which looks the base class of video processors up by name; that fails without
        torchvision."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"`video_processor` must be a video processor, got {type(argument).__name__}.")
        return VideoProcessorMixin

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any, fps: float = 10.0, **kwargs: Any) -> VattProcessor:
        """Processor for the reference inputs of a model.

        Args:
            config: [`VattConfig`].
            tokenizer: see the class.
            fps: frames per second. Frames and sound cover the same time, so the sampling rate follows: 32
                frames at 10 per second and 153600 samples make 48 kHz.
            kwargs: `num_captions`.
        """
        return cls(*cls.media_parts_from_config(config, fps), tokenizer, **kwargs)

    @staticmethod
    def media_parts_from_config(
        config: Any, fps: float = 10.0
    ) -> tuple[VattFeatureExtractor, VattVideoProcessor]:
        """The parts of [`~VattProcessor.from_config`] that need no tokenizer."""
        video, audio = config.video_config, config.audio_config
        hop_length = 1024
        samples = {"waveform": audio.num_samples, "spectrogram": audio.spectrogram_length * hop_length}
        num_samples = samples[audio.input_type]
        rate = round(num_samples * fps / video.num_frames)
        size = video.image_size
        return (
            VattFeatureExtractor(
                audio.input_type, rate, num_samples, num_mel_bins=audio.num_mel_bins, hop_length=hop_length
            ),
            VattVideoProcessor(size=size, crop_size=size, num_frames=video.num_frames, fps=fps),
        )

    def clip_options(self) -> dict[str, Any]:
        """Arguments of `media.read_clip` for one window of frames and sound as the parts want them."""
        return {
            "duration": max(self.video_processor.window_seconds, self.feature_extractor.window_seconds),
            "fps": self.video_processor.fps,
            "sampling_rate": self.feature_extractor.sampling_rate,
            "size": self.video_processor.decode_size,
        }

    @property
    def model_input_names(self) -> list[str]:
        """Names of all that the processor can return."""
        return [*super().model_input_names, "audio_mask", "text_mask"]

    def __call__(  # type: ignore[override]
        self,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        *,
        start: float | list[float] | None = None,
        windows: int = 1,
        load_audio_from_video: bool = True,
        sampling_rate: int | None = None,
        augmentation: VattAugmentation | None = None,
        generator: torch.Generator | None = None,
        late_colors: bool = False,
        limits: MediaLimits = DEFAULT_LIMITS,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Clips, sounds and captions to model inputs.

        Args:
            text: a caption, a list with one caption for each clip, or a list of lists with several. None, ""
                and [] stand for a missing caption.
            videos: one clip or a list, in any form that [`VattVideoProcessor`] takes.
            audio: one sound or a list, in any form that [`VattFeatureExtractor`] takes, None for a silent
                clip; with `videos`, one for each clip, on the same clock. Default: the sound of the video
                files.
            start: seconds at which the window of each clip begins (one number for all, or a list). Default:
                the window is centred, as in the release's evaluation.
            windows: number of windows spread uniformly over each clip; they become batch entries of their
                own, all windows of clip 0 first.
            load_audio_from_video: whether files given as `videos` are also listened to. Frames and sound of
                one window come from one reading, so they stay in step.
            sampling_rate: of sound given as arrays, Hz.
            augmentation: training augmentation in place of resizing and centre crop.
            generator: randomness of the augmentation.
            late_colors: leave the colours of the augmentation to [`change_colors`], which is cheaper on the
                training device.
            limits: what a file may cost, and which hosts may be fetched from.
            return_tensors: `"pt"` or `"np"`.
            kwargs: parameters of the parts for this call, flat (`num_frames=16`) or by part
                (`videos_kwargs={...}`, `text_kwargs={...}`).

        Returns:
            A [`BatchFeature`] with, for N = clips x `windows` and V = 3 with `crop_mode="three"`, else 1:

            - `pixel_values_videos`, float32 (N V, frames, channels, height, width): if `videos` was given;
              with `late_colors` they are uint8, and `video_colors`, float64 (N, 4), is what to change;
            - `input_values`, float32 (N, samples) or (N, frames, mel bins), and `audio_mask`, int64 (N,), 0
              for
              clips without sound (their values are zeros): if `audio` was given or files were listened to;
            - `input_ids` and `attention_mask`, int64 (captions, words), or (clips, `num_captions`, words) for
              lists of lists, and `text_mask`, int64 (clips,), 0 for clips without a caption: if `text` was
              given.

        Raises:
            ValueError: inputs that do not fit together.
            MediaError: a file that cannot be used.
        """
        if text is None and videos is None and audio is None:
            raise ValueError("Nothing to process: pass `text`, `videos` or `audio`.")
        if start is not None and windows != 1:
            raise ValueError("Pass either `start` or `windows`: the latter chooses the starts itself.")
        known = {
            *VattVideosKwargs.__annotations__,
            *TextKwargs.__annotations__,
            "videos_kwargs",
            "text_kwargs",
        }
        if unknown := set(kwargs) - known:
            raise TypeError(f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}.")
        merged = self._merge_kwargs(**kwargs)
        data: dict[str, Any] = {}
        if videos is not None or audio is not None:
            self.feature_extractor.check_sampling_rate(sampling_rate)
            settings = self.video_processor.settings(**merged["videos_kwargs"])
            clips = self._read(videos, audio, start, windows, load_audio_from_video, settings, limits)
            if videos is not None:
                frames = [clip[0] for clip in clips if clip[0] is not None]
                data |= self._frames(frames, settings, augmentation, generator, late_colors)
            if audio is not None or self._listens(videos, load_audio_from_video):
                data |= self._sound([clip[1] for clip in clips], augmentation, generator)
        if text is not None:
            data |= self._captions(text, merged["text_kwargs"])
        return BatchFeature(data, tensor_type=return_tensors)

    def _listens(self, videos: Any, load_audio_from_video: bool) -> bool:
        if videos is None or not load_audio_from_video:
            return False
        clips = self.video_processor.split(videos)
        return any(is_media_source(clip) or isinstance(clip, MediaClip) for clip in clips)

    def _read(
        self,
        videos: Any,
        audio: Any,
        start: float | list[float] | None,
        windows: int,
        listen: bool,
        settings: dict[str, Any],
        limits: MediaLimits,
    ) -> list[Window]:
        """All windows of all clips, clip-major."""
        clips = None if videos is None else self.video_processor.split(videos)
        sounds = None if audio is None else self.feature_extractor.split(audio)
        count = len(clips if clips is not None else sounds or [])
        if clips is not None and sounds is not None and len(sounds) != count:
            raise ValueError(
                f"{count} videos and {len(sounds)} sounds: pass one sound (or None) for each video."
            )
        starts = start if isinstance(start, list | tuple) else [start] * count
        if len(starts) != count:
            raise ValueError(f"`start` has {len(starts)} entries for {count} clips.")
        metadata = self.video_processor.split_metadata(count, settings)
        reader = WindowReader(
            self.video_processor, self.feature_extractor, settings, limits, listen and sounds is None
        )
        result: list[Window] = []
        for index in range(count):
            video = clips[index] if clips is not None else None
            sound = sounds[index] if sounds is not None else None
            result += reader.read(video, sound, starts[index], windows, metadata[index])
        return result

    def _frames(
        self,
        clips: list[torch.Tensor],
        settings: dict[str, Any],
        augmentation: VattAugmentation | None,
        generator: torch.Generator | None,
        late_colors: bool,
    ) -> dict[str, torch.Tensor]:
        name, stack = "pixel_values_videos", self.video_processor.stack
        if augmentation is None:
            views = [view for clip in clips for view in self.video_processor.transform(clip, settings)]
            return {name: stack(views)}
        if settings["crop_mode"] != "center":
            raise ValueError("Augmentation makes one view of a clip: set `crop_mode='center'`.")
        size = (settings["crop_size"].height, settings["crop_size"].width)
        views, colors = [], []
        for clip in clips:
            views.append(augmentation.geometry(clip.permute(0, 2, 3, 1), size, generator))
            colors.append(augmentation.colors(generator))
        drawn = torch.stack(colors)
        if not late_colors:
            views = [
                change_colors(pixels[None], draw[None])[0] for pixels, draw in zip(views, drawn, strict=True)
            ]
        found = {name: stack([repeat_to(view, settings["num_frames"]) for view in views])}
        return {**found, "video_colors": drawn} if late_colors else found

    def _sound(
        self,
        waveforms: list[np.ndarray | None],
        augmentation: VattAugmentation | None,
        generator: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:
        extractor = self.feature_extractor
        silence = np.zeros(extractor.num_samples, dtype=np.float32)
        fitted = [silence if waveform is None else extractor.fit(waveform) for waveform in waveforms]
        if augmentation is not None:
            fitted = [augmentation.audio(waveform, generator) for waveform in fitted]
        return {
            "input_values": extractor(fitted, return_tensors="pt")["input_values"],
            "audio_mask": torch.tensor([int(waveform is not None) for waveform in waveforms]),
        }

    def _captions(self, text: Any, options: dict[str, Any]) -> dict[str, torch.Tensor]:
        items = [text] if isinstance(text, str) else text
        if not isinstance(items, list | tuple) or not len(items):
            raise ValueError(
                f"`text` must be a caption, a list of captions or a list of lists, got {text!r}."
            )
        nested = any(isinstance(item, list | tuple) for item in items)
        rows = self.num_captions if nested else 1
        flat: list[str] = []
        for item in items:
            captions = list(item) if isinstance(item, list | tuple) else [item]
            captions = ["" if caption is None else caption for caption in captions[:rows]]
            if not all(isinstance(caption, str) for caption in captions):
                raise ValueError(f"Captions must be strings or None, got {item!r}.")
            flat += captions + [""] * (rows - len(captions))
        options = {
            "max_length": self.tokenizer.model_max_length,
            **options,
            "padding": "max_length",
            "truncation": True,
        }
        if options["max_length"] > 1_000_000:  # what transformers says for "unknown"
            raise ValueError(
                "The tokenizer knows no length: set `tokenizer.model_max_length` or pass `max_length`."
            )
        options.pop("return_tensors", None)
        encoding = self.tokenizer(flat, return_tensors="pt", return_attention_mask=True, **options)
        ids, mask = encoding["input_ids"], encoding["attention_mask"]
        present = mask.view(len(items), -1).any(1).long()
        if nested:
            ids, mask = (tensor.view(len(items), rows, -1) for tensor in (ids, mask))
        return {"input_ids": ids, "attention_mask": mask, "text_mask": present}


__all__ = ["VattProcessor"]
