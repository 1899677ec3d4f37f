# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of tiny random checkpoints with their processors, as a user would name them for towers."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)


SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
PICTURE = {**SMALL, "image_size": 8, "patch_size": 4}
TEXT_FIELDS = {**SMALL, "vocab_size": 16, "max_position_embeddings": 12, **IDS}
CLIP = CLIPConfig(text_config=TEXT_FIELDS, vision_config=PICTURE, projection_dim=12)
BERT = BertConfig(**TEXT_FIELDS)
WAV2VEC = Wav2Vec2Config(
    **SMALL,
    conv_dim=[8, 8],
    conv_stride=[8, 4],
    conv_kernel=[8, 4],
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    vocab_size=10,
)
WHISPER = WhisperConfig(
    **{"d_model": 16, "num_mel_bins": 8, "max_source_positions": 100, "vocab_size": 20, **IDS},
    encoder_layers=2,
    decoder_layers=1,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    max_target_positions=8,
    decoder_start_token_id=1,
)
WORDS = ["red", "green", "blue", "square", "circle", "a", "moves", "left", "right", "sounds"]


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, with marks of begin and end."""
    names = ["<pad>", "<unk>", "<s>", "</s>", *WORDS]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(names)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=16, **tokens)


def clip_folder(folder: Path) -> Path:
    """Pictures of 8 px and words."""
    torch.manual_seed(0)
    CLIPModel(copy.deepcopy(CLIP)).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    CLIPImageProcessor(**sizes).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def bert_folder(folder: Path) -> Path:
    """Words."""
    torch.manual_seed(1)
    BertModel(copy.deepcopy(BERT)).save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    return folder


def wav2vec_folder(folder: Path, sampling_rate: int = 4000) -> Path:
    """Samples."""
    torch.manual_seed(2)
    Wav2Vec2Model(copy.deepcopy(WAV2VEC)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=sampling_rate, do_normalize=True).save_pretrained(folder)
    return folder


def tower_sources(root: Path) -> dict[str, str]:
    """Folders of a tower for each modality, by its name."""
    makers = {"video": clip_folder, "audio": wav2vec_folder, "text": bert_folder}
    return {name: str(make(root / name)) for name, make in makers.items()}


def whisper_folder(folder: Path) -> Path:
    """Mel features of 2 s at 16 kHz."""
    torch.manual_seed(3)
    WhisperModel(copy.deepcopy(WHISPER)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8, chunk_length=2).save_pretrained(folder)
    return folder


REMOTE = """
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class TinyConfig(PretrainedConfig):
    model_type = "tiny_pictures"

    def __init__(self, hidden_size=6, **kwargs):
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


class TinyModel(PreTrainedModel):
    config_class = TinyConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.layer = nn.Conv2d(3, config.hidden_size, 4, 4)
        self.post_init()

    def forward(self, pixel_values, **kwargs):
        places = self.layer(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=places, pooler_output=places.amax((2, 3)))
"""


def remote_folder(folder: Path) -> Path:
    """Folder of a model whose code comes with it."""
    folder.mkdir()
    (folder / "tiny_pictures.py").write_text(REMOTE)
    auto_map = {"AutoConfig": "tiny_pictures.TinyConfig", "AutoModel": "tiny_pictures.TinyModel"}
    content = {"model_type": "tiny_pictures", "hidden_size": 6, "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(content))
    weights = {"layer.weight": torch.randn(6, 3, 4, 4), "layer.bias": torch.randn(6)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
