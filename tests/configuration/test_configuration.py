# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Configurations: official sizes and defaults, round trips, and refusal of what cannot work."""

import copy
import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from small_models import AUDIO, TEXT, TOWER, VARIANTS, VIDEO, small_config

from modeling_vatt import (
    VattAudioConfig,
    VattConfig,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
    VattTextConfig,
    VattVideoConfig,
)
from modeling_vatt.configuration import encoder_size


PRESETS = ("bbs", "mbs", "lbs", "ma_base", "ma_medium", "ma_large", "mmv", "tiny", "ma_tiny", "mmv_tiny")
WORD_TABLE = 65536 * 300


def count(module: torch.nn.Module, trainable: bool = True) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


def meta_model(config: VattConfig, modality: str) -> torch.nn.Module:
    """The tower of one modality, without memory."""
    with torch.device("meta"):
        return VattModel(config, modalities=(modality,))


# --- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "tower", "expected"),
    [
        ("video", VattVideoConfig.from_size("xlarge"), 533_695_488),
        ("audio", VattAudioConfig.from_size("medium"), 152_520_704),
        ("audio", VattAudioConfig.from_size("large"), 303_675_392),
        ("audio", VattAudioConfig.spectrogram("base"), 85_056_768),
        ("audio", VattAudioConfig.spectrogram("medium"), 151_157_760),
        ("audio", VattAudioConfig.spectrogram("large"), 302_201_856),
        ("video", VattVideoConfig.i3d(), 12_287_264),
        ("audio", VattAudioConfig.resnet(), 23_508_032 - 2 * 64 * 49),
        ("audio", VattAudioConfig.resnet(101), 42_500_160 - 2 * 64 * 49),
        ("text", VattTextConfig(), 19_038_252),
        ("text", VattTextConfig.from_size("base"), 85_194_156),
        ("text", VattTextConfig.linear(), 616_448),
    ],
)
def test_sizes_of_towers(modality, tower, expected):
    """Trainable parameters of the official towers of which tests/convert has no list of variables."""
    model = meta_model(VattConfig(**{f"{modality}_config": tower}), modality)
    assert count(model) == expected


@pytest.mark.parametrize(
    ("preset", "expected"), [("ma_base", 92_258_304), ("ma_medium", 161_283_072), ("ma_large", 312_437_760)]
)
def test_sizes_of_agnostic_backbones(preset, expected):
    """One shared encoder, everything else per modality (without the frozen word table and the head)."""
    with torch.device("meta"):
        model = VattModel(VattConfig.from_preset(preset))
    assert count(model) - count(model.head) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", (512, 2048, 6, 8, 64)),
        ("base", (768, 3072, 12, 12, 64)),
        ("medium", (1024, 4096, 12, 16, 64)),
        ("large", (1024, 4096, 24, 16, 64)),
        ("xlarge", (1536, 4096, 24, 24, 64)),
    ],
)
def test_encoder_sizes(name, expected):
    """The size table of the paper and the release."""
    assert tuple(encoder_size(name).values()) == expected


def test_official_defaults():
    """What a bare config means: the release's defaults (BBS), which conversions rely on."""
    config = VattConfig()
    video, audio, text = config.video_config, config.audio_config, config.text_config
    assert video.position_axes == {"temporal": 8, "vertical": 14, "horizontal": 14}
    assert video.patch_shape == (4, 16, 16)
    assert (video.drop_token_rate, audio.drop_token_rate) == (0.5, 0.5)
    assert audio.position_axes == {"temporal": 1200}
    assert audio.patch_shape == (128,)
    assert (text.encoder_type, text.vocab_size, text.embedding_size) == ("t5", 65536, 300)
    assert (text.trainable_embeddings, text.pad_token_id) == (False, 0)
    assert (text.relative_attention_num_buckets, text.relative_attention_max_distance) == (32, 64)
    assert (video.classifier_dropout, audio.classifier_dropout) == (0.5, 0.0)
    for tower in (video, audio, text):
        assert (tower.hidden_act, tower.pre_norm, tower.layer_norm_eps) == ("gelu", True, 1e-6)
        assert (tower.hidden_dropout_prob, tower.attention_probs_dropout_prob) == (0.1, 0.1)
        assert tower.position_dropout_prob == 0.1
        assert (tower.use_pre_projection, tower.use_post_projection, tower.use_bias) == (False, False, True)
    assert (config.head_type, config.va_projection_size, config.vt_projection_size) == ("fac", 512, 256)
    assert (config.batch_norm_momentum, config.batch_norm_eps, config.sync_batch_norm) == (0.1, 1e-5, True)
    assert (config.loss_type, config.temperature, config.loss_reduction) == ("asymmetric", 0.07, "mean")
    weights = (config.video_text_loss_weight, config.video_audio_loss_weight, config.audio_text_loss_weight)
    assert weights == (1, 1, 0)


def test_spectrogram_defaults():
    """SpT: 9 x 16 patches of 16 frames x 5 bins, no biases, no DropToken."""
    config = VattAudioConfig.spectrogram("base")
    assert config.patch_shape == (16, 5)
    assert config.position_axes == {"spectral": 16, "temporal": 9}
    assert not config.use_bias
    assert config.drop_token_rate == 0


# --- round trips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_a_file(preset, tmp_path):
    """Every named config is saved and loaded without loss."""
    config = VattConfig.from_preset(preset)
    config.save_pretrained(tmp_path)
    assert VattConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_survive_a_round_trip(variant):
    """Dictionaries, JSON and copies keep every field, those of the towers included."""
    config = small_config(variant, temperature=0.2)
    again = VattConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))
    assert again.to_dict() == config.to_dict()
    assert copy.deepcopy(config).to_dict() == config.to_dict()
    for name in ("video_config", "audio_config", "text_config"):
        assert getattr(again, name).to_dict() == getattr(config, name).to_dict()


def test_every_field_survives_a_file(tmp_path):
    """Non-default values of all fields come back: none is lost or renamed on the way."""
    towers = {
        "video_config": VattVideoConfig(**VIDEO, drop_token_rate=0.25, use_input_masking=True, mask_rate=0.3),
        "audio_config": VattAudioConfig(**AUDIO, freeze_backbone=True, classifier_dropout=0.3),
        "text_config": VattTextConfig(**TEXT, trainable_embeddings=True, pad_token_id=3),
    }
    fields = {
        "head_type": "joint",
        "va_projection_size": 12,
        "vt_projection_size": 12,
        "batch_norm_momentum": 0.2,
        "batch_norm_eps": 1e-3,
        "sync_batch_norm": False,
        "loss_type": "symmetric",
        "temperature": 0.5,
        "video_text_loss_weight": 2.0,
        "video_audio_loss_weight": 0.5,
        "audio_text_loss_weight": 0.25,
        "loss_reduction": "sum",
        "label_balancing": True,
    }
    VattConfig(**towers, **fields, id2label={0: "dog", 1: "cat", 2: "cow"}).save_pretrained(tmp_path)
    loaded = VattConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in fields} == fields
    assert loaded.num_labels == 3
    assert loaded.id2label[2] == "cow"
    assert (loaded.video_config.drop_token_rate, loaded.video_config.mask_rate) == (0.25, 0.3)
    assert loaded.video_config.use_input_masking
    assert loaded.audio_config.freeze_backbone
    assert loaded.text_config.trainable_embeddings
    assert loaded.text_config.pad_token_id == 3


def test_towers_load_from_a_composed_config(tmp_path):
    """`VattVideoConfig.from_pretrained` finds its part in the config of a whole model."""
    config = small_config()
    config.save_pretrained(tmp_path)
    for tower_class, key in (
        (VattVideoConfig, "video_config"),
        (VattAudioConfig, "audio_config"),
        (VattTextConfig, "text_config"),
    ):
        assert tower_class.from_pretrained(tmp_path).hidden_size == getattr(config, key).hidden_size == 16


def test_fields_can_be_overridden(tmp_path):
    """Of a preset as of a checkpoint, in the usual transformers way."""
    VattConfig.from_preset("tiny", num_labels=7).save_pretrained(tmp_path)
    config = VattConfig.from_pretrained(tmp_path, temperature=0.3)
    assert (config.temperature, config.num_labels) == (0.3, 7)


def test_what_is_no_field_of_a_preset_is_refused():
    """It would stay in the config without effect, and be saved with it."""
    VattConfig.from_preset("tiny", num_labels=3, attn_implementation="eager", output_attentions=True)
    with pytest.raises(TypeError, match=r"no field temprature, token, video_config\.drop_tokn_rate"):
        VattConfig.from_preset("tiny", temprature=0.3, token="secret", video_config={"drop_tokn_rate": 0.0})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("key", ["video_config", "audio_config", "text_config"])
def test_a_field_of_a_tower_of_a_preset(preset, key):
    """The others stay those of the preset, not those of a Base model; a config replaces the tower."""
    plain = VattConfig.from_preset(preset)
    changed = VattConfig.from_preset(preset, **{key: {"classifier_dropout": 0.25}})
    assert getattr(changed, key).classifier_dropout == 0.25
    getattr(plain, key).classifier_dropout = 0.25
    assert changed.to_dict() == plain.to_dict()
    if preset == "mbs":
        tower = type(getattr(plain, key))(hidden_size=96)
        assert getattr(VattConfig.from_preset(preset, **{key: tower}), key).to_dict() == tower.to_dict()


def test_towers_may_be_dicts_or_configs():
    """Both forms of a tower give the same model config."""
    dicts = VattConfig(video_config=VIDEO, audio_config=AUDIO, text_config=TEXT)
    objects = VattConfig(
        video_config=VattVideoConfig(**VIDEO),
        audio_config=VattAudioConfig(**AUDIO),
        text_config=VattTextConfig(**TEXT),
    )
    assert dicts.to_dict() == objects.to_dict()


# --- modality-agnostic -----------------------------------------------------------------------------------


def test_agnostic_config_completes_itself():
    """Sharing an encoder needs projections around it and the BERT-like text branch with bias."""
    config = small_config("agnostic")
    for tower in (config.video_config, config.audio_config, config.text_config):
        assert tower.use_pre_projection
        assert tower.use_post_projection
        assert tower.output_size == TOWER["projection_size"]
    assert config.text_config.encoder_type == "bert"
    assert config.text_config.pre_projection_bias


def test_agnostic_towers_are_derived_from_video():
    """Only the video tower given: the other two share its encoder fields and keep their own inputs."""
    config = VattConfig(modality_agnostic=True, video_config=dict(VIDEO))
    for tower in (config.audio_config, config.text_config):
        assert {name: getattr(tower, name) for name in TOWER} == {
            name: getattr(config.video_config, name) for name in TOWER
        }
    assert config.audio_config.num_samples == 153600
    assert config.text_config.vocab_size == 65536


def test_agnostic_without_towers_is_base():
    """A bare agnostic config is UniT-Base."""
    assert VattConfig(modality_agnostic=True).text_config.hidden_size == 768


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [("audio", "hidden_size", 32), ("text", "num_hidden_layers", 3), ("audio", "layer_norm_eps", 1e-5)],
)
def test_agnostic_towers_must_agree(tower, field, value):
    """The message names the field, both values, and what to do."""
    with pytest.raises(StrictDataclassError, match=rf"{tower}_config.{field}.* {value} .*make them equal"):
        small_config("agnostic", **{tower: {field: value}})


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VattConfig.from_preset("huge"), "Unknown VATT preset 'huge': choose one of bbs"),
        (lambda: encoder_size("huge"), "Unknown encoder size 'huge': choose one of tiny"),
        (lambda: VattVideoConfig(hidden_dropout_prob=1.0), "`hidden_dropout_prob` must be in"),
        (
            lambda: VattVideoConfig(attention_probs_dropout_prob=-0.1),
            "`attention_probs_dropout_prob` must be",
        ),
        (lambda: VattTextConfig(position_dropout_prob=2), "`position_dropout_prob` must be in"),
        (lambda: VattVideoConfig(drop_token_rate=1.0), "`drop_token_rate` must be in"),
        (lambda: VattAudioConfig(mask_rate=1.5), "`mask_rate` must be in"),
        (lambda: VattVideoConfig(hidden_act="geglu", pre_norm=False), "geglu"),
        (lambda: VattVideoConfig(num_frames=3), "enlarge `num_frames`"),
        (lambda: VattVideoConfig(image_size=8), "holds no patch of 4 frames x 16 px"),
        (lambda: VattAudioConfig(num_samples=100), "holds no patch"),
        (lambda: VattAudioConfig.spectrogram(spectrogram_patch_size=[4]), "spectrogram_patch_size"),
        (lambda: VattAudioConfig.spectrogram(drop_token_rate=0.5), "set `drop_token_rate=0`"),
        (lambda: VattConfig(head_type="joint"), "vt_projection_size=va_projection_size"),
        (lambda: VattConfig(audio_text_loss_weight=1.0), "`audio_text_loss_weight` needs"),
        (lambda: VattConfig(video_text_loss_weight=-1.0), "non-negative"),
        (lambda: VattConfig(video_text_loss_weight=0, video_audio_loss_weight=0), "not all zero"),
        (lambda: VattConfig(loss_type="triplet"), "loss_type"),
        (lambda: VattConfig(head_type="mlp"), "head_type"),
        (lambda: VattConfig(loss_reduction="max"), "loss_reduction"),
        (lambda: VattTextConfig(encoder_type="gpt"), "encoder_type"),
        (lambda: VattAudioConfig(input_type="midi"), "input_type"),
        (lambda: VattVideoConfig(hidden_size="wide"), "hidden_size"),
        (lambda: VattConfig(temperature=0.0), "temperature"),
        (lambda: VattConfig(temperature=float("nan")), "temperature"),
        (lambda: VattConfig(video_text_loss_weight=float("nan")), "non-negative"),
        (lambda: VattVideoConfig(classifier_dropout=1.5), "`classifier_dropout` must be in"),
        (lambda: VattVideoConfig(hidden_act="tanhh"), "hidden_act"),
        (lambda: VattVideoConfig(projection_act="tanhh"), "projection_act"),
        (lambda: VattVideoConfig(num_attention_heads=0), "num_attention_heads"),
    ],
)
def test_refusals_name_the_field(build, message):
    """What cannot work is refused when the config is made, by name."""
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        build()


@pytest.mark.parametrize("preset", ["mbs", "ma_medium", "ma_tiny"])
def test_classifier_dropout_is_that_of_fine_tuning(preset):
    """The release fine-tunes all models with 0.5 (video) and 0 (sound)."""
    config = VattConfig.from_preset(preset)
    assert (config.video_config.classifier_dropout, config.audio_config.classifier_dropout) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("preset", "change", "message"),
    [
        ("tiny", {"temperature": -1.0}, "temperature"),
        ("tiny", {"audio_text_loss_weight": 1.0}, "head_type"),
        ("tiny", {"video_config": {"hidden_dropout_prob": 2.0}}, "hidden_dropout_prob"),
        ("tiny", {"text_config": {"hidden_act": "geglu", "pre_norm": False}}, "geglu"),
        ("mmv_tiny", {"video_config": {"drop_token_rate": 0.5}}, "drop_token_rate"),
        ("ma_tiny", {"video_config": {"hidden_dropout_prob": 0.1}}, "make them equal"),
        ("ma_tiny", {"audio_config": {"use_post_projection": False}}, "use_post_projection"),
    ],
)
def test_changed_configs_are_validated_when_a_model_is_built(preset, change, message, tmp_path):
    """By attributes as by arguments of `from_pretrained`: not at the first save, after a training."""
    kind = VattForVideoClassification if preset == "ma_tiny" else VattForPreTraining
    config = VattConfig.from_preset(preset, num_labels=2)
    config.save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name, value in change.items():
        for field, inner in value.items() if isinstance(value, dict) else [(name, value)]:
            setattr(getattr(config, name) if isinstance(value, dict) else config, field, inner)
    with torch.device("meta"), pytest.raises((ValueError, StrictDataclassError), match=message):
        kind(config)
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        kind.from_pretrained(tmp_path, **change)
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        config.save_pretrained(tmp_path)
