# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Processor of VATT: media files, arrays and captions to the inputs of the model."""

import math
from reprlib import repr as shown
from typing import Any, Self

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import AudioKwargs, TextKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from ..repositories import asked_once
from .augmentation import VattAugmentation, change_colors
from .checkpoint_parts import FRAME_SETTINGS, frame_settings, load_extractor, load_tokenizer
from .feature_extraction_vatt import VattFeatureExtractor
from .image_processing_vatt import VattImageProcessor
from .media import DEFAULT_LIMITS, MediaClip, MediaLimits
from .video_processing_vatt import VattVideoProcessor
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
        """See transformers, whose look-up of the base class of video processors needs torchvision."""
        if argument_name != "video_processor":
            return super().check_argument_for_proper_class(argument_name, argument)
        if not isinstance(argument, VideoProcessorMixin):
            raise TypeError(f"`video_processor` must be a video processor, got {type(argument).__name__}.")
        return VideoProcessorMixin

    def to_dict(self) -> dict[str, Any]:
        """See transformers; adds the settings of pictures, which `AutoImageProcessor` reads."""
        saved = super().to_dict()
        if isinstance(self.video_processor, VattVideoProcessor):
            images = VattImageProcessor.from_video_processor(self.video_processor)
            saved["image_processor"] = images.to_dict()
        return saved

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """See transformers. FileNotFoundError for neither a folder nor a repository; where the Hub does not
        answer, its cache is used."""
        kwargs = asked_once(pretrained_model_name_or_path, "processor_config.json", kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def _load_tokenizer_from_pretrained(cls, kind: str, name: Any, **kwargs: Any) -> Any:
        """See transformers, which would set `num_frames` in the model's config on the way to a tokenizer."""
        kwargs.pop("num_frames", None)
        return super()._load_tokenizer_from_pretrained(kind, name, **kwargs)

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See transformers."""
        parts = {name: value for name, value in processor_dict.items() if name != "image_processor"}
        return super().from_args_and_dict(args, parts, **kwargs)

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any, fps: float = 10.0, **kwargs: Any) -> Self:
        """Processor for the reference inputs of a model.

        Args:
            config: [`VattConfig`].
            tokenizer: see the class.
            fps: frames per second. Frames and sound cover the same time, so the sampling rate follows: 32
                frames at 10 per second and 153600 samples make 48 kHz.
            kwargs: `num_captions`.
        """
        return cls(*cls.media_parts_from_config(config, fps), tokenizer, **kwargs)

    @classmethod
    def from_video_audio_text_pretrained(
        cls,
        config: Any,
        video: str | None = None,
        audio: str | None = None,
        text: str | None = None,
        *,
        tokenizer: Any = None,
        seconds: float = 3.2,
        frames: dict[str, Any] | None = None,
        max_words: int = 64,
        trust_remote_code: bool = False,
        hub_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        r"""
        Processor for a model with pretrained towers: frames, sound and captions of the same moment of a clip,
        as each checkpoint's own processor makes them.

        ```python
        >>> towers = {"video": "google/siglip2-base-patch16-224", "text": "google/siglip2-base-patch16-224"}
        >>> model = VattForPreTraining.from_video_audio_text_pretrained(**towers)
        >>> processor = VattProcessor.from_video_audio_text_pretrained(model.config, **towers)
        ```

        Args:
            config ([`VattConfig`]): of the model. Where the sound tower's input is longer than the window,
                `towers["audio"]["filled"]` is set in it; for a text tower that reads padding,
                `towers["text"]["padding_id"]`.
            video, audio, text (`str`, *optional*): folder or name on the Hub from which the tower was taken;
                None for VATT's own towers.
            tokenizer: of VATT's own text tower.
            seconds (`float`): length of a window. The tower's frames are spread over it.
            frames (`dict`, *optional*): settings of [`VattVideoProcessor`] that override the checkpoint's.
            max_words (`int`): words or pieces of a caption at most.
            trust_remote_code (`bool`): run code that comes with a checkpoint.
            hub_kwargs (`dict`, *optional*): `revision`, `token`, `cache_dir` for all three.
            kwargs: `num_captions`.

        Raises:
            ValueError: a checkpoint without the part, or parts that do not fit the towers.
        """
        hub = {**(hub_kwargs or {}), "trust_remote_code": trust_remote_code}
        given = {"video": video, "audio": audio, "text": text}
        for name, source in given.items():
            if config.is_foreign(name) != (source is not None):
                kind = "another model" if source is None else "VATT's own"
                raise ValueError(
                    f"The {name} tower of this model is {kind}: name the checkpoint of another model only."
                )
        if not 0 < seconds < math.inf:
            raise ValueError(f"`seconds` of a window must be positive, got {seconds}.")
        fps = config.num_frames / seconds
        known = (*FRAME_SETTINGS, "decode_size", "antialias", "do_convert_rgb") if video is not None else ()
        if unknown := set(frames or {}) - set(known):
            raise ValueError(
                f"`frames` has no {', '.join(sorted(unknown))}: use {', '.join(known)}."
                if known
                else "`frames` is for a video tower of another model: leave it out."
            )
        if video is None:
            videos = videos_of(config.video_config, fps)
        else:
            found = {"antialias": True} if frames and "size" in frames else frame_settings(video, **hub)
            settings = {**found, **(frames or {}), "num_frames": config.num_frames, "fps": fps}
            videos = VattVideoProcessor(**settings)
        if audio is None:
            sounds = sounds_of(config.audio_config, seconds)
        else:
            sounds = VattFeatureExtractor.from_extractor(load_extractor(audio, **hub), seconds)
            config.set_use("audio", filled=sounds.filled)
        if text is not None:
            tokenizer = load_tokenizer(text, config.text_config, max_words, **hub)
            if config.text_config.model_type.startswith("siglip"):  # trained with padding as words
                config.set_use("text", padding_id=tokenizer.pad_token_id)
        return cls(sounds, videos, tokenizer, **kwargs)

    @staticmethod
    def media_parts_from_config(
        config: Any, fps: float = 10.0
    ) -> tuple[VattFeatureExtractor, VattVideoProcessor]:
        """The parts of [`~VattProcessor.from_config`] that need no tokenizer."""
        seconds = config.video_config.num_frames / fps
        return sounds_of(config.audio_config, seconds), videos_of(config.video_config, fps)

    def clip_options(self, media: str | None = None) -> dict[str, Any]:
        """Arguments of `media.read_clip` for a window of frames and sound, or of `"video"` or `"audio"`."""
        lengths = {
            "video": self.video_processor.window_seconds,
            "audio": self.feature_extractor.window_seconds,
        }
        only = {} if media is None else {name: name == media for name in lengths}
        return {
            # Windows of different lengths begin together.
            "duration": max(lengths.values()) if media is None else lengths[media],
            "fps": self.video_processor.fps,
            "sampling_rate": self.feature_extractor.sampling_rate,
            "size": self.video_processor.decode_size,
            **only,
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
        mask_captions: bool = False,
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
                clip; with `videos`, one for each clip, from the same start. Default: that of the video files.
            start: seconds at which the window of each clip begins (one number for all, or a list). Default:
                the window is centred, as in the release's evaluation.
            windows: number of windows spread uniformly over each clip; each is an entry of the batch, all
                windows of clip 0 first.
            load_audio_from_video: whether to read the sound of files given as `videos`, of the same window.
            sampling_rate: of sound given as arrays, Hz.
            augmentation: training augmentation in place of resizing and centre crop.
            generator: randomness of the augmentation.
            late_colors: leave the colours of the augmentation to [`change_colors`], which is cheaper on the
                training device; done at once where pixels are not scaled to [-1, 1].
            mask_captions: give `text_mask` for each caption of lists of lists instead of each clip.
            limits: what a file may cost, and which hosts may be fetched from.
            return_tensors: `"pt"` or `"np"`.
            kwargs: parameters of the parts for this call, flat (`num_frames=16`) or by part
                (`videos_kwargs={...}`, `text_kwargs={...}`, `audio_kwargs={...}`), and `common_kwargs` for
                all. Captions are padded to `max_length`, or with `padding="longest"` to the longest one.

        Returns:
            A [`BatchFeature`] with, for N = clips x `windows` and V = 3 with `crop_mode="three"`, else 1:

            - `pixel_values_videos`, float32 (N V, frames, channels, height, width): if `videos` was given;
              with `late_colors` they are uint8, and `video_colors`, float64 (N, 4), is what to change;
            - `input_values`, float32 (N, samples) or (N, frames, mel bins), and `audio_mask`, int64 (N,), 0
              for clips without sound (their values are zeros): if there was `audio` or sound to read;
            - `input_ids` and `attention_mask`, int64 (captions, words), or (clips, `num_captions`, words) for
              lists of lists, and `text_mask`, int64 (clips,), 0 for clips without a caption, or (clips,
              `num_captions`) with `mask_captions`: if `text` was given.

        Raises:
            ValueError: inputs that do not fit together.
            MediaError: a file that cannot be used.
        """
        if text is None and videos is None and audio is None:
            raise ValueError("Nothing to process: pass `text`, `videos` or `audio`.")
        if start is not None and windows != 1:
            raise ValueError("Pass either `start` or `windows`: the latter chooses the starts itself.")
        merged, given = self._options({"sampling_rate": sampling_rate, **kwargs})
        return_tensors = given.get("return_tensors", return_tensors)
        data: dict[str, Any] = {}
        if videos is not None or audio is not None:
            self.feature_extractor.check_sampling_rate(given.get("sampling_rate"))
            settings = self.video_processor.settings(**merged["videos_kwargs"])
            clips = self._read(videos, audio, start, windows, load_audio_from_video, settings, limits)
            if videos is not None:
                frames = [clip[0] for clip in clips if clip[0] is not None]
                data |= self._frames(frames, settings, augmentation, generator, late_colors)
            if audio is not None or self._listens(videos, load_audio_from_video):
                data |= self._sound([clip[1] for clip in clips], augmentation, generator)
        if text is not None:
            data |= self._captions(text, mask_captions, merged["text_kwargs"])
        return BatchFeature(data, tensor_type=return_tensors)

    def _options(self, kwargs: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Parameters of each part, and of the whole call (`return_tensors`, `sampling_rate`)."""
        valid = {
            "text_kwargs": set(TextKwargs.__annotations__),
            "videos_kwargs": set(self.video_processor.valid_kwargs.__annotations__),
            "audio_kwargs": set(AudioKwargs.__annotations__),
            "images_kwargs": set(),
        }
        parts: dict[str, dict[str, Any]] = {name: dict(kwargs.get(name) or {}) for name in valid}
        common = kwargs.get("common_kwargs") or {}
        rate = {"sampling_rate": kwargs.pop("sampling_rate")}
        flat = {name: value for name, value in kwargs.items() if name not in (*valid, "common_kwargs")}
        # Sounds have one length, so flat arguments of padding and truncation are for captions.
        shared = valid["text_kwargs"] | valid["videos_kwargs"]
        unknown = set(flat) - shared | set(common) - shared - {"sampling_rate"}
        for name, options in parts.items():
            unknown |= {f"{option} (in {name})" for option in set(options) - valid[name]}
            if doubled := set(options) & set(flat):
                raise ValueError(
                    f"{', '.join(sorted(doubled))}: passed in `{name}` and beside it, pass it once."
                )
        if unknown:
            raise TypeError(f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}.")
        for name in ("text_kwargs", "videos_kwargs"):
            beside = {option: value for option, value in {**common, **flat}.items() if option in valid[name]}
            parts[name] = {**beside, **parts[name]}
        given: dict[str, Any] = {}
        for options in (rate, dict(common), *parts.values()):
            for option in ("return_tensors", "sampling_rate"):
                value = options.pop(option, None)
                if value is not None and given.setdefault(option, value) != value:
                    raise ValueError(f"`{option}` was passed twice with different values: pass it once.")
        audio = parts["audio_kwargs"]
        if not audio.get("return_attention_mask"):
            audio.pop("return_attention_mask", None)
        self.feature_extractor.check_fitting(**audio)
        return parts, given

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
        listen &= sounds is None
        reader = WindowReader(self.video_processor, self.feature_extractor, settings, limits, listen)
        nothing = [None] * count
        rows = zip(clips or nothing, sounds or nothing, starts, metadata, strict=True)
        return [window for row in rows for window in reader.read(*row, windows)]

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
        late_colors &= _is_plain(settings)
        if not late_colors:
            views = [
                _scaled(change_colors(pixels[None], draw[None])[0], settings)
                for pixels, draw in zip(views, drawn, strict=True)
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
            "input_values": torch.from_numpy(np.stack(extractor.features(fitted))),
            "audio_mask": torch.tensor([int(waveform is not None) for waveform in waveforms]),
        }

    def _captions(self, text: Any, mask_each: bool, options: dict[str, Any]) -> dict[str, torch.Tensor]:
        items = [text] if isinstance(text, str) else text
        if not isinstance(items, list | tuple) or not len(items):
            raise ValueError(
                f"`text` must be a caption, a list of captions or a list of lists, got {shown(text)}."
            )
        nested = any(isinstance(item, list | tuple) for item in items)
        rows = self.num_captions if nested else 1
        flat: list[str] = []
        for item in items:
            captions = list(item) if isinstance(item, list | tuple) else [item]
            captions = ["" if caption is None else caption for caption in captions[:rows]]
            if not all(isinstance(caption, str) for caption in captions):
                raise ValueError(f"Captions must be strings or None, got {shown(item)}.")
            flat += captions + [""] * (rows - len(captions))
        options = {
            "padding_side": "right",
            **_caption_options(options),
            "max_length": options.get("max_length") or self.tokenizer.model_max_length,
            "truncation": True,
        }
        if options["max_length"] > 1_000_000:  # what transformers says for "unknown"
            raise ValueError(
                "The tokenizer knows no length: set `tokenizer.model_max_length` or pass `max_length`."
            )
        encoding = self.tokenizer(
            flat, return_tensors="pt", return_attention_mask=True, return_special_tokens_mask=True, **options
        )
        ids, mask = encoding["input_ids"], encoding["attention_mask"]
        words = mask * (1 - encoding["special_tokens_mask"])  # without marks of begin and end
        if not ids.shape[-1]:  # no caption has a word, but the models take one position at least
            ids, mask, words = (torch.zeros(len(flat), 1, dtype=torch.int64) for _ in range(3))
        present = words.view(len(items), rows, -1).any(2)
        present = (present if nested and mask_each else present.any(1)).long()
        if nested:
            ids, mask = (tensor.view(len(items), rows, -1) for tensor in (ids, mask))
        return {"input_ids": ids, "attention_mask": mask, "text_mask": present}


def _is_plain(settings: dict[str, Any]) -> bool:
    """Whether pixels are scaled to [-1, 1], as augmentation leaves them."""
    halves = {*settings["image_mean"], *settings["image_std"]} == {0.5}
    return settings["do_rescale"] and settings["do_normalize"] and halves


def _scaled(pixels: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """Augmented pixels (T, 3, H, W) in [-1, 1], scaled as the processor scales frames."""
    if _is_plain(settings):
        return pixels
    pixels = (pixels + 1) * 127.5
    if settings["do_rescale"]:
        pixels = pixels * settings["rescale_factor"]
    if settings["do_normalize"]:
        mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
        pixels = (pixels - mean) / std
    return pixels


def videos_of(config: Any, fps: float, size: int | None = None) -> VattVideoProcessor:
    """Video processor for the reference clip of VATT's own tower, or one of another `size`."""
    size = size or config.image_size
    return VattVideoProcessor(size=size, crop_size=size, num_frames=config.num_frames, fps=fps)


def sounds_of(config: Any, seconds: float | None = None, rate: int = 48_000) -> VattFeatureExtractor:
    """Feature extractor for the reference sound of VATT's own tower, of `seconds` or at `rate` Hz."""
    hop_length = 1024
    samples = {"waveform": config.num_samples, "spectrogram": config.spectrogram_length * hop_length}
    num_samples = samples[config.input_type]
    rate = rate if seconds is None else round(num_samples / seconds)
    options: dict[str, Any] = {"num_mel_bins": config.num_mel_bins, "hop_length": hop_length}
    return VattFeatureExtractor(config.input_type, rate, num_samples, **options)


def _caption_options(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the tokenizer; ValueError for those that would change the form of the inputs."""
    done = {
        "padding": (None, True, "longest", "max_length"),
        "truncation": (None, True, "longest_first", "only_first"),
        "return_attention_mask": (None, True),
    }
    offered = {"add_special_tokens", "max_length", "pad_to_multiple_of", "padding_side", "verbose"}
    for name, value in options.items():
        wanted = value not in done[name] if name in done else name not in offered and bool(value)
        if wanted:
            raise ValueError(
                f"`{name}={shown(value)}` cannot be honoured: captions become one tensor, cut to "
                "`max_length`. Leave it out, or call `processor.tokenizer` yourself."
            )
    kept = {name: value for name, value in options.items() if name in offered and value is not None}
    padding = options.get("padding")
    return {**kept, "padding": "max_length" if padding is None else padding}
