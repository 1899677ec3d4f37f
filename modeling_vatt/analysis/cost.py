# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations and parameters, in the paper's unit and counted.

Two counts of one forward pass of one clip, a multiply-add being 2 operations:

- *paper*: `2 L N (4 d^2 + 2 d f) + 2 L N^2 d + 2 p d N0`, which is within 1.5 % of every figure of the
  paper's Tables 1, 5 and 6. It has one of the two attention products and no projections; N are the tokens
  that DropToken keeps, N0 all patches of p values.
- *true*: every matrix product and convolution of the model, counted by PyTorch's `FlopCounterMode` on the
  meta device. AGG tokens, projections and heads count; dropped patches do not, as they are never projected.

Element-wise work (norms, activations, softmax) is in neither.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
from ..configuration.configuration_vatt import VattTowerConfig
from ..models.embeddings import drop_token_count
from ..models.modeling_vatt import MODALITIES, VattModel


SPECTROGRAM_HOP = 1024  # samples a spectrogram frame advances (release: 0.02134 s at 48 kHz)


@dataclass(frozen=True)
class InputSize:
    """Extent of a clip; what is left out is the config's.

    Args:
        frames: video frames.
        size: height and width of a frame in pixels.
        samples: of the waveform; for a spectrogram tower they are turned into spectrogram frames.
        words: of the text.
    """

    frames: int | None = None
    size: int | None = None
    samples: int | None = None
    words: int | None = None

    def shape(self, config: VattTowerConfig) -> tuple[int, ...]:
        """Shape of one clip as the tower takes it, without a batch axis."""
        if isinstance(config, VattVideoConfig):
            side = self.size or config.image_size
            return (self.frames or config.num_frames, config.num_channels, side, side)
        if isinstance(config, VattAudioConfig):
            if config.input_type == "waveform":
                return (self.samples or config.num_samples,)
            length = math.ceil(self.samples / SPECTROGRAM_HOP) if self.samples else config.spectrogram_length
            return (length, config.num_mel_bins)
        assert isinstance(config, VattTextConfig)
        return (self.words or config.max_position_embeddings,)


def is_transformer(config: VattTowerConfig) -> bool:
    """Whether a tower is a Transformer, so that it has tokens."""
    return getattr(config, "encoder_type", "transformer") in ("transformer", "t5", "bert")


def count_tokens(config: VattTowerConfig, shape: tuple[int, ...], keep: float = 1.0) -> tuple[int, int]:
    """Tokens of a clip without AGG, and how many of them DropToken keeps.

    Args:
        config: of a Transformer tower.
        shape: of one clip, see [`InputSize.shape`].
        keep: share of tokens kept; text and spectrograms always keep all.

    Raises:
        ValueError: if the share is not in (0, 1], or the clip is smaller than one patch.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"The kept share must be in (0, 1], got {keep}.")
    if isinstance(config, VattTextConfig):
        return shape[0], shape[0]
    assert isinstance(config, (VattVideoConfig, VattAudioConfig))
    extent = (shape[0], *shape[2:]) if isinstance(config, VattVideoConfig) else shape
    tokens = math.prod(size // patch for size, patch in zip(extent, config.patch_shape, strict=True))
    if tokens == 0:
        raise ValueError(
            f"A clip of extent {extent} is smaller than one patch {config.patch_shape}: enlarge it."
        )
    return tokens, drop_token_count(tokens, 1 - keep) if _drops_tokens(config) else tokens


def _drops_tokens(config: VattTowerConfig) -> bool:
    is_spectrogram = getattr(config, "input_type", None) == "spectrogram"
    return is_transformer(config) and not isinstance(config, VattTextConfig) and not is_spectrogram


def paper_flops(config: VattTowerConfig, shape: tuple[int, ...], keep: float = 1.0) -> int:
    """Operations of a Transformer tower in the paper's unit; arguments as of [`count_tokens`]."""
    tokens, kept = count_tokens(config, shape, keep)
    patch_values = 0
    if isinstance(config, VattTextConfig):
        kept += 1  # AGG counts as a word
    else:
        assert isinstance(config, (VattVideoConfig, VattAudioConfig))
        patch_values = config.num_channels * math.prod(config.patch_shape)
    width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
    dense = 3 if config.hidden_act == "geglu" else 2
    products = 4 * width * inner + dense * width * config.intermediate_size
    layers = config.num_hidden_layers
    return 2 * layers * kept * products + 2 * layers * kept**2 * inner + 2 * patch_values * width * tokens


class CostCounter:
    """Counts the operations and parameters of a model built on the meta device, with the towers of some
    `modalities`."""

    def __init__(self, config: VattConfig, modalities: tuple[str, ...] = MODALITIES) -> None:
        # A copy, as DropToken rates are set below. Eager attention consists of products that are counted.
        self.config = VattConfig.from_dict(config.to_dict(), attn_implementation="eager")
        self.modalities = modalities
        with torch.device("meta"):
            self.model = VattModel(self.config, modalities)

    def tower_config(self, modality: str) -> VattTowerConfig:
        """Config of a tower."""
        return getattr(self.config, f"{modality}_config")

    def flops(self, modality: str, shape: tuple[int, ...], keep: float = 1.0) -> tuple[int, int]:
        """Operations of a tower for one clip, and of the common-space head behind it.

        Args:
            modality: `"video"`, `"audio"` or `"text"`.
            shape: of one clip, see [`InputSize.shape`].
            keep: share of tokens that DropToken keeps.
        """
        config = self.tower_config(modality)
        drop = keep < 1 and _drops_tokens(config)
        if drop:
            config.drop_token_rate = 1 - keep
        tower = getattr(self.model, f"{modality}_model").train(drop)
        dtype = torch.long if modality == "text" else torch.float32
        inputs = torch.zeros((1, *shape), dtype=dtype, device="meta")
        # Without a mask, which costs no products.
        with FlopCounterMode(display=False) as counter:
            pooled = tower(inputs, encoder=self.model.encoder).pooler_output
            backbone = counter.get_total_flops()
            if self.model.head is not None:
                getattr(self.model.head, modality)(pooled)
        return backbone, counter.get_total_flops() - backbone

    def parameters(self) -> dict[str, tuple[int, int]]:
        """Trainable and frozen parameters by part: towers, the shared encoder and the head."""
        parts: dict[str, nn.Module | None] = {
            name: getattr(self.model, f"{name}_model") for name in self.modalities
        }
        parts |= {"shared encoder": self.model.encoder, "head": self.model.head}
        return {
            name: (
                sum(p.numel() for p in module.parameters() if p.requires_grad),
                sum(p.numel() for p in module.parameters() if not p.requires_grad),
            )
            for name, module in parts.items()
            if module is not None
        }

    def table(self, size: InputSize | None = None, keep: float = 1.0, views: int = 1) -> pd.DataFrame:
        """Costs of one forward pass, a row for every part and one for the total.

        Args:
            size: extent of the clip; the config's by default.
            keep: share of video and waveform tokens that DropToken keeps.
            views: views of a video (windows x crops); multiplies the video tower and its head.

        Returns:
            Columns `part`, `input`, `tokens`, `kept`, `parameters`, `frozen`, `paper_gflops`, `true_gflops`.
            The convolutional and the linear towers have no tokens; their paper unit is the true count.
        """
        size = size or InputSize()
        parameters = self.parameters()
        rows: list[dict[str, Any]] = []
        head_flops = 0
        for name in self.modalities:
            config = self.tower_config(name)
            shape = size.shape(config)
            times = views if name == "video" else 1
            transformer = is_transformer(config)
            tokens, kept = count_tokens(config, shape, keep) if transformer else (0, 0)
            backbone, head = self.flops(name, shape, keep)
            paper = paper_flops(config, shape, keep) if transformer else backbone
            extent = (shape[0], *shape[2:]) if name == "video" else shape
            rows.append(
                {
                    "part": name,
                    "input": " x ".join(map(str, extent)) + (f", {times} views" if times > 1 else ""),
                    "tokens": tokens,
                    "kept": kept,
                    "paper_gflops": times * paper / 1e9,
                    "true_gflops": times * backbone / 1e9,
                }
            )
            head_flops += times * head
        for name in list(parameters)[len(self.modalities) :]:
            rows.append({"part": name, "true_gflops": head_flops / 1e9 if name == "head" else 0.0})
        for row in rows:
            row["parameters"], row["frozen"] = parameters[row["part"]]
        table = pd.DataFrame(rows).fillna(
            {"input": "", "tokens": 0, "kept": 0, "paper_gflops": 0.0, "true_gflops": 0.0}
        )
        counts = ["tokens", "kept", "parameters", "frozen"]
        sums = table[[*counts, "paper_gflops", "true_gflops"]].sum()
        table = pd.concat([table, pd.DataFrame([{"part": "total", "input": "", **sums}])], ignore_index=True)
        table[counts] = table[counts].astype(int)
        return table[["part", "input", *counts, "paper_gflops", "true_gflops"]]


# What the paper prints, by table.
_TABLE_1_TFLOPS = {"Base": 9.09, "Medium": 15.02, "Large": 29.80, "MA-Medium": 15.02}  # 12 views, 320 px
_TABLE_5_GFLOPS = {0.25: 188.1, 0.5: 375.4, 0.75: 574.2, 1.0: 784.8}  # MBS, one clip of each modality
_TABLE_6_GFLOPS = {
    (32, 224, 1.0): 548.1,
    (64, 224, 1.0): 1222.1,
    (32, 320, 0.25): 279.8,
    (32, 320, 0.5): 572.5,
    (32, 320, 0.75): 898.9,
    (32, 320, 1.0): 1252.3,
}
_TABLE_7_MILLIONS = {"Small": 20.9, "Base": 87.9, "Medium": 155.0, "Large": 306.1}
_COMBINATIONS_MILLIONS = {"bbs": 197, "mbs": 264, "lbs": 415, "ma_medium": 155}


def paper_comparison() -> pd.DataFrame:
    """Costs printed in the paper, beside ours in its unit and the true ones.

    Parameters in the paper's way are rows of its Table 7 (the video tower with the classifier of
    Kinetics-600; the text tower for Small) and sums of them; true ones are all trainable parameters of tower
    or model.

    Returns:
        Columns `table`, `item`, `unit`, `paper`, `ours`, `difference_percent` (of ours from the paper's) and
        `true`.
    """
    video = {
        name: CostCounter(VattConfig(video_config=VattVideoConfig.from_size(name.lower())), ("video",))
        for name in ("Base", "Medium", "Large")
    }
    video["MA-Medium"] = CostCounter(VattConfig.from_preset("ma_medium"), ("video",))
    rows: list[tuple[str, str, str, float, float, float]] = []

    def video_cost(name: str, frames: int, size: int, keep: float, views: int = 1) -> tuple[float, float]:
        total = video[name].table(InputSize(frames, size), keep, views).iloc[-1]
        return total["paper_gflops"], total["true_gflops"]

    for name, printed in _TABLE_1_TFLOPS.items():
        ours, true = video_cost(name, 32, 320, 1.0, views=12)
        rows.append(("1", f"VATT-{name}, 12 views of 32x320x320", "TFLOP", printed, ours / 1e3, true / 1e3))
    multimodal = CostCounter(VattConfig.from_preset("mbs"))
    for keep, printed in _TABLE_5_GFLOPS.items():
        total = multimodal.table(keep=keep).iloc[-1]
        ours, true = total["paper_gflops"], total["true_gflops"]
        rows.append(("5", f"MBS, video + audio + text, {keep:.0%} kept", "GFLOP", printed, ours, true))
    for (frames, size, keep), printed in _TABLE_6_GFLOPS.items():
        ours, true = video_cost("Medium", frames, size, keep)
        item = f"VATT-Medium, {frames}x{size}x{size}, {keep:.0%} kept"
        rows.append(("6", item, "GFLOP", printed, ours, true))
    rows += _parameter_rows(video, multimodal)
    table = pd.DataFrame(rows, columns=["table", "item", "unit", "paper", "ours", "true"])
    table.insert(5, "difference_percent", 100 * (table["ours"] / table["paper"] - 1))
    return table


def _parameter_rows(
    video: Mapping[str, CostCounter], multimodal: CostCounter
) -> list[tuple[str, str, str, float, float, float]]:
    classes = 600
    towers = {name: counter.parameters()["video"][0] / 1e6 for name, counter in video.items()}
    towers["Small"] = multimodal.parameters()["text"][0] / 1e6
    ours = dict(towers)
    for name in ("Base", "Medium", "Large"):
        width = video[name].tower_config("video").output_size
        ours[name] += classes * (width + 1) / 1e6
    rows = [
        ("7", f"{name} tower", "M parameters", printed, ours[name], towers[name])
        for name, printed in _TABLE_7_MILLIONS.items()
    ]
    sums = {
        "bbs": ours["Base"] + ours["Base"] + ours["Small"],
        "mbs": ours["Medium"] + ours["Base"] + ours["Small"],
        "lbs": ours["Large"] + ours["Base"] + ours["Small"],
        "ma_medium": ours["Medium"],
    }
    for preset, printed in _COMBINATIONS_MILLIONS.items():
        counter = multimodal if preset == "mbs" else CostCounter(VattConfig.from_preset(preset))
        true = sum(trainable for trainable, _ in counter.parameters().values()) / 1e6
        rows.append(("text", f"{preset} model", "M parameters", printed, sums[preset], true))
    return rows
