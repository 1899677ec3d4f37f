# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature extractor of VATT: mono sound to a waveform of fixed length or a log-mel spectrogram."""

from functools import lru_cache
from numbers import Real
from reprlib import repr as shown
from typing import Any, Literal, Self

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import logging

from .checkpoint_parts import extractor_from_dict
from .inputs import EXPECTED_SOUND, RatedSound, is_single, mono_at, samples_of, sound_of, unwrapped
from .media import DEFAULT_LIMITS, MediaClip, MediaError, MediaLimits
from .windows import is_media_source, read_windows, repeat_to


logger = logging.get_logger(__name__)

_LARGEST_SAMPLE = 100.0  # beyond it samples are whole numbers as floats


class VattFeatureExtractor(SequenceFeatureExtractor):
    r"""Cuts sound to one window and returns `input_values`.

    Of longer sound the centre is taken, shorter sound is repeated (as in DMVR). The loudness is kept. The
    log-mel spectrogram is the release's: periodic Hann window, zero-padded end, magnitude, HTK mel triangles
    without area normalisation, log(1 + 10000 x), min-max to [0, 1] over the clip.

    Args:
        feature_type (`str`): `"waveform"` gives `(batch, num_samples)`; `"spectrogram"` gives
            `(batch, ceil(num_samples / hop_length), num_mel_bins)`; `"extractor"` what `extractor` makes.
        sampling_rate (`int`): Hz of the sound.
        num_samples (`int`): length of the window; 153600 are 3.2 s at 48 kHz.
        num_mel_bins (`int`): mel bins.
        frame_length, hop_length (`int`): length and step of the Fourier windows in samples.
        min_frequency, max_frequency (`float`): edges of the mel bins in Hz.
        log_scale (`float`): factor inside the logarithm.
        do_normalize (`bool`): scale each waveform to zero mean and unit variance, like Wav2Vec2. The release
            does not; small models trained from scratch start to learn from sound much sooner with it.
        extractor (feature extractor of transformers, or its settings as `dict`): of another model; takes the
            window as it is.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        feature_type: Literal["waveform", "spectrogram", "extractor"] = "waveform",
        sampling_rate: int = 48_000,
        num_samples: int = 153_600,
        num_mel_bins: int = 80,
        frame_length: int = 2048,
        hop_length: int = 1024,
        min_frequency: float = 80.0,
        max_frequency: float = 7600.0,
        log_scale: float = 10_000.0,
        do_normalize: bool = False,
        extractor: Any = None,
        **kwargs: Any,
    ) -> None:
        if feature_type not in ("waveform", "spectrogram", "extractor"):
            raise ValueError(
                f'`feature_type` must be "waveform", "spectrogram" or "extractor", got {feature_type!r}.'
            )
        if (feature_type == "extractor") != (extractor is not None):
            raise ValueError('`feature_type="extractor"` and `extractor` belong together: give both or none.')
        if num_samples < 1:
            raise ValueError(f"`num_samples` must be positive, got {num_samples}.")
        if feature_type == "spectrogram" and max_frequency > sampling_rate / 2:
            raise ValueError(
                f"`max_frequency` {max_frequency} must be at most half of the {sampling_rate} Hz of sound."
            )
        kwargs = {"padding_value": 0.0, "return_attention_mask": False, **kwargs}
        kwargs["feature_size"] = num_mel_bins if feature_type == "spectrogram" else 1
        super().__init__(sampling_rate=sampling_rate, **kwargs)
        self.feature_type = feature_type
        self.num_samples = num_samples
        self.num_mel_bins = num_mel_bins
        self.frame_length = frame_length
        self.hop_length = hop_length
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency
        self.log_scale = log_scale
        self.do_normalize = do_normalize
        self.extractor = extractor_from_dict(extractor) if isinstance(extractor, dict) else extractor
        if self.extractor is not None:
            self._check_extractor()

    @classmethod
    def from_extractor(cls, extractor: Any, seconds: float) -> Self:
        """Windows of `seconds` through the feature extractor of another model, at its sampling rate.

        Raises:
            ValueError: the extractor cannot take windows of this length.
        """
        rate = extractor.sampling_rate
        return cls("extractor", rate, max(1, round(seconds * rate)), extractor=extractor)

    def to_dict(self) -> dict[str, Any]:
        """See transformers; the settings of `extractor` are nested."""
        saved = super().to_dict()
        extractor = saved.pop("extractor", None)
        return saved if extractor is None else {**saved, "extractor": extractor.to_dict()}

    @property
    def filled(self) -> float:
        """Share of the features that holds sound, where the extractor pads to a length of its own."""
        if self.extractor is None:
            return 1.0
        features = self._extract([_noise(self.num_samples)])[0]
        if features.ndim != 2:
            return 1.0
        for axis in (0, 1):  # padded frames are the same in all bins
            sounding = np.flatnonzero(np.ptp(features, axis=1 - axis) > 1e-6)
            if len(sounding) and sounding[-1] + 1 < features.shape[axis]:
                return float(sounding[-1] + 1) / features.shape[axis]
        return 1.0

    def _check_extractor(self) -> None:
        """Raise if the extractor cuts the window, or takes a random part of it."""
        if self.extractor.sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` {self.sampling_rate} Hz is not that of the audio tower, "
                f"{self.extractor.sampling_rate} Hz ({type(self.extractor).__name__}): leave it out."
            )
        whole = _noise(self.num_samples)
        other = whole.copy()
        other[-max(1, len(whole) // 10) :] *= -0.5
        try:
            same, again, changed = (self._extract([sound])[0] for sound in (whole, whole, other))
        except Exception as error:  # extractors do not agree on what they raise
            raise ValueError(
                f"The audio tower's {type(self.extractor).__name__} does not take windows of "
                f"{self.window_seconds:g} s ({error}): choose another length."
            ) from error
        if not np.array_equal(same, again) or np.array_equal(same, changed):
            raise ValueError(
                f"The audio tower's {type(self.extractor).__name__} does not take all of a window of "
                f"{self.window_seconds:g} s: choose shorter windows."
            )

    def _extract(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        found = self.extractor(waveforms, sampling_rate=self.sampling_rate, return_tensors="np")
        for name in ("input_features", "input_values"):
            if name in found:
                return [np.asarray(features, dtype=np.float32) for features in found[name]]
        raise ValueError(
            f"{type(self.extractor).__name__} gives {', '.join(found)}, no features: choose another one."
        )

    @property
    def window_seconds(self) -> float:
        """Length of the window in seconds."""
        return self.num_samples / self.sampling_rate

    def __call__(
        self,
        raw_audio: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        limits: MediaLimits = DEFAULT_LIMITS,
        **kwargs: Any,
    ) -> BatchFeature:
        """Sound to `input_values`, float32 `(batch, ...)`.

        Args:
            raw_audio: one sound or a list of them: mono array, tensor or list of floats, or path, URL, bytes
                or file object (decoded, mixed down and resampled), or [`MediaClip`]. A 2-D array is a batch
                of mono sounds. Also rows of `datasets` (`bytes` or `path`; `array` and `sampling_rate`), and
                torchcodec's `AudioDecoder` and `AudioSamples`, which are mixed down and resampled too.
            sampling_rate: of arrays; must be that of the extractor. Files need none.
            return_tensors: `"pt"` or `"np"`; None gives a list of arrays.
            limits: what a file may cost, and which hosts may be fetched from.
            kwargs: `padding`, `truncation` and `max_length`, as far as they ask for what is done anyway.

        Raises:
            ValueError: other sampling rate, several channels, or no samples.
            MediaError: a file without sound, or unreadable.
        """
        self.check_fitting(**kwargs)
        self.check_sampling_rate(sampling_rate)
        features = self.features([self.fit(self.load(item, limits)) for item in self.split(raw_audio)])
        data = {"input_values": np.stack(features) if return_tensors else features}
        return BatchFeature(data, tensor_type=return_tensors)

    def features(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """`input_values` of float32 (num_samples,) sounds, one by one; ValueError if they are not finite."""
        peak = np.max([np.abs(waveform).max() for waveform in waveforms])  # NaN if there is one
        if not np.isfinite(peak):
            raise ValueError(f"Expected {EXPECTED_SOUND}, got NaN or infinite values: replace them.")
        if peak > _LARGEST_SAMPLE and not self.do_normalize:
            logger.warning_once(
                f"The sound reaches {peak:g}, but should lie in [-1, 1]: divide whole numbers."
            )
        if self.do_normalize:
            waveforms = [_normalized(waveform) for waveform in waveforms]
        if self.feature_type == "extractor":
            return self._extract(waveforms)
        return list(self.log_mel(np.stack(waveforms))) if self.feature_type == "spectrogram" else waveforms

    def check_fitting(self, **kwargs: Any) -> None:
        """Raise for arguments that are unknown, or ask for other lengths than the window's."""
        done = {
            "padding": (True, "longest", "max_length", None),
            "truncation": (True, None),
            "max_length": (self.num_samples, None),
        }
        if unknown := set(kwargs) - set(done):
            raise TypeError(f"{type(self).__name__} knows no argument {', '.join(sorted(unknown))}.")
        for name, value in kwargs.items():
            if value not in done[name]:
                raise ValueError(
                    f"Every sound is cut or repeated to `num_samples={self.num_samples}`: leave "
                    f"`{name}={value!r}` out, or change `num_samples`."
                )

    def check_sampling_rate(self, sampling_rate: int | None) -> None:
        """Raises `ValueError` for arrays sampled at another rate than the extractor's."""
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"The sound is sampled at {sampling_rate} Hz, but this model takes {self.sampling_rate} Hz. "
                f"Resample it (`soxr.resample(x, {sampling_rate}, {self.sampling_rate})`) or pass the file."
            )

    def split(self, raw_audio: Any) -> list[Any]:
        """The single sounds of a batch, unread: sources, clips, arrays or None."""
        if is_single(raw_audio) or is_media_source(raw_audio) or isinstance(raw_audio, MediaClip):
            return [unwrapped(raw_audio)]
        if isinstance(raw_audio, np.ndarray | torch.Tensor):
            if raw_audio.ndim > 2 or (raw_audio.ndim == 2 and raw_audio.shape[1] <= 8):  # (samples, channels)
                raise ValueError(
                    "Expected mono sound of shape (samples,) or (batch, samples), got "
                    f"{tuple(raw_audio.shape)}. Mix the channels down first, e.g. `x.mean(axis=-1)` for "
                    "(samples, channels)."
                )
            return [raw_audio] if raw_audio.ndim < 2 else list(raw_audio)
        if not isinstance(raw_audio, list | tuple) or not len(raw_audio):
            raise ValueError(f"Expected sound (array, path or a list of these), got {shown(raw_audio)}.")
        first = raw_audio[0]
        numbers = isinstance(first, Real) or getattr(first, "ndim", None) == 0
        return [np.asarray(raw_audio)] if numbers else list(map(unwrapped, raw_audio))

    def load(self, item: Any, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
        """One sound as float32 `(samples,)`; of files, the centred window."""
        if is_media_source(item):
            rate = self.sampling_rate
            item = read_windows(item, self.window_seconds, video=False, sampling_rate=rate, limits=limits)[0]
        if isinstance(item, MediaClip):
            if item.waveform is None:
                raise MediaError(item.info.source, "no sound", "Leave it out or pass another file.")
            item = item.waveform
        item = sound_of(item)
        if isinstance(item, RatedSound):
            if item.resample:
                return mono_at(item, self.sampling_rate)
            self.check_sampling_rate(item.sampling_rate)
            item = item.samples
        samples = samples_of(item)
        if samples.ndim != 1:
            raise ValueError(
                f"Expected mono sound of shape (samples,), got {samples.shape}. Mix the channels down "
                "first, e.g. `x.mean(axis=0)` for (channels, samples)."
            )
        return samples

    def fit(self, waveform: np.ndarray) -> np.ndarray:
        """Exactly `num_samples` samples: the centre, or repeats."""
        if not len(waveform):
            raise ValueError("The sound holds no samples: leave it out or pass another.")
        return repeat_to(waveform, self.num_samples)

    def log_mel(self, waveforms: np.ndarray) -> np.ndarray:
        """float32 (batch, samples) to the normalised log-mel spectrogram (batch, frames, mel bins)."""
        frames = -(-waveforms.shape[-1] // self.hop_length)
        padding = (frames - 1) * self.hop_length + self.frame_length - waveforms.shape[-1]
        padded = torch.nn.functional.pad(torch.from_numpy(waveforms), (0, max(0, padding)))
        windows = padded.unfold(-1, self.frame_length, self.hop_length)[:, :frames]
        fft_length = 1 << (self.frame_length - 1).bit_length()  # TensorFlow's STFT takes the next power of 2
        spectrum = torch.fft.rfft(windows * torch.hann_window(self.frame_length), n=fft_length).abs()
        edges = (self.min_frequency, self.max_frequency)
        filters = _mel_filters(fft_length // 2 + 1, self.num_mel_bins, *edges, self.sampling_rate)
        log_mel = torch.log1p(self.log_scale * (spectrum @ filters))
        lowest, highest = log_mel.amin((1, 2), keepdim=True), log_mel.amax((1, 2), keepdim=True)
        spread = highest - lowest
        return ((log_mel - lowest) / torch.where(spread > 0, spread, 1.0)).numpy()


def _noise(samples: int) -> np.ndarray:
    """A sound that is never the same, float32 (samples,)."""
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


def _normalized(waveform: np.ndarray) -> np.ndarray:
    """(samples,) of mean 0 and variance 1; silence stays."""
    centred = waveform - waveform.mean()
    centred /= max(float(np.sqrt(np.square(centred).mean())), 1e-5)
    return centred


@lru_cache(maxsize=8)
def _mel_filters(bins: int, mel_bins: int, lowest: float, highest: float, sampling_rate: int) -> torch.Tensor:
    filters = mel_filter_bank(
        bins, mel_bins, lowest, highest, sampling_rate, mel_scale="htk", triangularize_in_mel_space=True
    )
    return torch.from_numpy(filters).float()
