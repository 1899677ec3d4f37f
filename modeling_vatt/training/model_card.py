# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Model card of a pretrained model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData

from .._version import __version__
from ..modeling_vatt import VattForPreTraining


_BODY = """# {name}

A VATT (Video-Audio-Text Transformer, [arXiv 2104.11178](https://arxiv.org/abs/2104.11178)) pretrained with
[modeling_vatt](https://pypi.org/project/modeling-vatt/): one embedding space for video and sound
({va} dimensions), one for video and text ({vt} dimensions).

| | |
| --- | --- |
| setting | {setting} |
| parameters | {parameters:,} |
| video | {frames} frames of {size} x {size} px |
| sound | {sound} |
| text | {words} words of a vocabulary of {vocabulary:,} |

## Use

```python
import torch
from modeling_vatt import VattForPreTraining
from modeling_vatt.processors import VattProcessor

model = VattForPreTraining.from_pretrained("{name}").eval()
processor = VattProcessor.from_pretrained("{name}")
inputs = processor(videos=["clip.mp4"], text=["a caption"])
with torch.no_grad():
    outputs = model.vatt(inputs.pixel_values_videos, inputs.input_values, inputs.input_ids)
similarity = torch.cosine_similarity(outputs.text_vt_embeds, outputs.video_vt_embeds)
```

Text is compared with video (`*_vt_embeds`), sound with video (`*_va_embeds`); sound and text share no space
{joint}.

## Training

Data: {dataset}. {settings}

## Results

{results}

## Limits

The embeddings reflect what was in the training data, including its gaps and biases. Captions taken from
speech recognition describe what is said, which is not always what is seen.

Made with modeling_vatt {version}, transformers {transformers}, PyTorch {torch}.
"""


def write_model_card(
    output_dir: str | os.PathLike,
    name: str,
    model: VattForPreTraining,
    dataset: str,
    metrics: Mapping[str, float],
    settings: Mapping[str, Any],
) -> None:
    """Write `README.md` beside a saved model.

    Args:
        output_dir: folder of the model.
        name: of the model, on the Hub or as a folder.
        model: for its config and size.
        dataset: what it was trained on.
        metrics: last results.
        settings: of the training.
    """
    config = model.config
    video, audio, text = config.video_config, config.audio_config, config.text_config
    waveform = audio.input_type == "waveform"
    results = "\n".join(f"| {key} | {value:.4g} |" for key, value in metrics.items())
    body = _BODY.format(
        name=name,
        va=config.va_projection_size,
        vt=config.vt_projection_size,
        setting="modality-agnostic" if config.modality_agnostic else "modality-specific",
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        frames=video.num_frames,
        size=video.image_size,
        sound=f"{audio.num_samples} samples"
        if waveform
        else f"{audio.spectrogram_length} x {audio.num_mel_bins} log-mel",
        words=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        joint="except through video" if config.head_type == "fac" else "of their own: all three meet in one",
        dataset=f"`{dataset}`",
        settings=", ".join(f"{key} {value}" for key, value in settings.items()) + ".",
        results=f"| metric | value |\n| --- | --- |\n{results}" if metrics else "Not evaluated.",
        version=__version__,
        transformers=transformers.__version__,
        torch=torch.__version__,
    )
    data = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        pipeline_tag="feature-extraction",
        tags=["vatt", "video", "audio", "text", "contrastive", "retrieval", "modeling_vatt"],
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(Path(output_dir) / "README.md")
