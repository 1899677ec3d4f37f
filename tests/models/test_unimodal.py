# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Starting from T5, ViT and AST checkpoints made here: equal arithmetic gives equal numbers."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    ASTConfig,
    ASTModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from modeling_vatt import VattConfig, VattForPreTraining, VattForVideoClassification, VattModel
from modeling_vatt.models.unimodal import split_positions
from modeling_vatt.processors import VattProcessor


SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
TOWER = {**SMALL, "head_dim": 8}
SMALL_AUDIO = {**TOWER, "num_samples": 64, "patch_size": 8}
SMALL_TEXT = {**TOWER, "vocab_size": 20, "embedding_size": 10}
PATCHES = "embeddings.patch_embeddings.projection"
SMALL_VIDEO = {**TOWER, "num_frames": 4, "image_size": 16, "patch_size": 8}


def randomize(model):
    """Random numbers in every parameter: initial zeros and ones would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit")
    config = ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=3)
    randomize(ViTForImageClassification(config)).save_pretrained(path)
    return str(path)


def make_t5(path, act="relu"):
    sizes = {"vocab_size": 20, "d_model": 24, "d_kv": 8, "num_heads": 3, "d_ff": 40, "num_layers": 2}
    config = T5Config(**sizes, feed_forward_proj=act, decoder_start_token_id=0)
    randomize(T5ForConditionalGeneration(config)).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return make_t5(tmp_path_factory.mktemp("t5"))


def check_complete(model, report):
    """Every parameter is in one list, and only there; what sources have in vain is in the notes too."""
    names = [name for name, _ in model.named_parameters()]
    assert sorted([*report.taken, *report.adapted, *report.random]) == sorted(names)
    unused = {name for names in report.unused.values() for name in names}
    assert not unused & set(report.taken.values())
    assert bool(unused) == any("no place for these parameters" in note for note in report.notes)


def start(model_class=VattModel, **sources):
    """A model with these sources and small towers beside them, and the report, which is complete."""
    if "config" not in sources:
        small = {"video": SMALL_VIDEO, "audio": SMALL_AUDIO, "text": SMALL_TEXT}
        sources |= {f"{name}_config": fields for name, fields in small.items() if name not in sources}
    model, report = model_class.from_unimodal_pretrained(**sources, output_loading_info=True)
    check_complete(model, report)
    return model, report


def test_text_from_t5(t5):
    torch.manual_seed(0)
    model, report = start(text=t5)
    source = T5EncoderModel.from_pretrained(t5).eval()
    encoder, stack = model.text_model.encoder, source.encoder
    hidden = torch.randn(2, 90, 24)  # long enough for every bucket, T5 reaches 128
    with torch.no_grad():
        bias = encoder.relative_position_bias(90, torch.device("cpu"))
        wanted = stack.block[0].layer[0].SelfAttention.compute_bias(90, 90)
        torch.testing.assert_close(bias, wanted, atol=1e-6, rtol=0)
        for ours, block in zip(encoder.layers, stack.block, strict=True):
            normed = ours.layer_norm1(hidden)
            torch.testing.assert_close(normed, block.layer[0].layer_norm(hidden), atol=1e-6, rtol=1e-6)
            attended = ours.self_attn(normed, position_bias=bias)[0]
            expected = block.layer[0].SelfAttention(normed, position_bias=wanted)[0]
            torch.testing.assert_close(attended, expected, atol=1e-4, rtol=1e-5)
            inner = block.layer[1].DenseReluDense(normed)
            torch.testing.assert_close(ours.mlp(normed), inner, atol=1e-4, rtol=1e-5)
        final = stack.final_layer_norm(hidden)
        torch.testing.assert_close(encoder.final_layer_norm(hidden), final, atol=1e-6, rtol=1e-6)
    assert torch.equal(model.text_model.embeddings.word_embeddings.weight, source.shared.weight)
    assert not model.text_model.embeddings.word_embeddings.weight.requires_grad
    # what T5 does otherwise is not called taken
    norms = [
        f"text_model.encoder.layers.{i}.layer_norm2.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    ]
    assert sorted(name for name in report.adapted) == sorted(norms)
    assert {"text_model.embeddings.agg_token", "text_model.embeddings.pre_projection.weight"} <= set(
        report.random
    )
    assert not [name for name in report.random if name.startswith("text_model.encoder")]
    assert any("tokenizer" in note for note in report.notes)
    assert report.unused == {"text": []}


def test_gated_t5(tmp_path):
    path = make_t5(tmp_path, "gated-gelu")
    model, report = start(text=path)
    source = T5EncoderModel.from_pretrained(path).eval()
    hidden = torch.randn(2, 5, 24)
    with torch.no_grad():
        ours = model.text_model.encoder.layers[1].mlp(hidden)
        wanted = source.encoder.block[1].layer[1].DenseReluDense(hidden)
    torch.testing.assert_close(ours, wanted, atol=5e-3, rtol=0)  # exact GELU against its tanh approximation
    assert any("tanh" in note for note in report.notes)


def test_video_from_vit(vit, caplog):
    model, report = start(VattForPreTraining, video=vit)
    source = ViTModel.from_pretrained(vit, add_pooling_layer=False).eval()
    tower = model.vatt.video_model
    picture = torch.randn(2, 3, 32, 32)
    clip = picture.unsqueeze(1).expand(-1, 4, -1, -1, -1)
    with torch.no_grad():
        # a still clip gives the patch embeddings of its picture
        patches = tower.embeddings.patchify(clip).flatten(1, 3).flatten(2)
        ours = tower.embeddings.patch_projection(patches)
        torch.testing.assert_close(ours, source.embeddings.patch_embeddings(picture), atol=1e-5, rtol=1e-5)
        # one encoder: the same input gives the same output, layer by layer
        hidden = source.embeddings(picture)
        wanted = source(picture, output_hidden_states=True)
        output, states, _ = tower.encoder(hidden, output_hidden_states=True)
        for mine, theirs in zip(states[:-1], wanted.hidden_states[:-1], strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output, wanted.last_hidden_state, atol=1e-4, rtol=1e-4)
        class_token = source.embeddings.cls_token[0, 0] + source.embeddings.position_embeddings[0, 0]
        torch.testing.assert_close(tower.embeddings.agg_token, class_token)
    assert not [name for name in report.random if name.startswith("vatt.video_model")]
    assert report.taken["vatt.video_model.encoder.final_layer_norm.weight"] == "layernorm.weight"
    assert report.unused == {"video": []}
    text = str(report)
    assert "vatt.video_model.encoder.layers.0-1.self_attn.q_proj.weight" in text
    assert "divided by 4" in text and "least squares" in text
    # a resampled table is no obstacle
    model(pixel_values_videos=torch.randn(1, 8, 3, 48, 48), return_loss=False)


@pytest.mark.parametrize(
    "settings",
    [{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}, {"do_normalize": False}],
)
def test_pixels_of_the_source_s_processor(vit, settings, tmp_path):
    """What the source sees of a picture, the tower sees through VATT's processor."""
    shutil.copytree(vit, tmp_path, dirs_exist_ok=True)
    own = ViTImageProcessor(size={"height": 32, "width": 32}, **settings)
    own.save_pretrained(tmp_path)
    model, report = start(video=str(tmp_path), dtype=torch.float64)
    assert model.dtype == torch.float64 and not [note for note in report.notes if "processor beside" in note]
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    _, videos = VattProcessor.media_parts_from_config(model.config)
    pixels = videos([picture], num_frames=4, return_tensors="pt")["pixel_values_videos"].double()
    embeddings = model.video_model.embeddings
    source = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).double()
    with torch.no_grad():
        ours = embeddings.patch_projection(embeddings.patchify(pixels).flatten(1, 3).flatten(2))
        theirs = own(Image.fromarray(picture), return_tensors="pt")["pixel_values"].double()
        wanted = source.embeddings.patch_embeddings(theirs)
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)
    _, report = start(video=vit)
    assert [note for note in report.notes if "no processor beside" in note]


def test_separable_positions_survive():
    """Positions that are a sum of axis terms come out of table, sum and norm nearly as they were."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(7, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    offset = 3 * torch.randn(64, generator=generator, dtype=torch.float64)
    fit = split_positions(offset + rows[:, None] + columns[None])
    assert fit["explained"] > 0.97
    # least squares: every other additive fit is worse
    noise = torch.randn(7, 7, 64, generator=generator, dtype=torch.float64)
    grid = offset + rows[:, None] + columns[None] + noise
    fit = split_positions(grid)
    residual = (fit["vertical"][:, None] + fit["horizontal"][None] - grid).square().sum()
    assert residual < (offset + rows[:, None] + columns[None] - grid).square().sum()
    other = (fit["vertical"][:, None] + 0.01 * rows[:, None] + fit["horizontal"][None] - grid).square().sum()
    assert residual < other


def test_sound_from_ast_and_vit(vit, tmp_path):
    config = ASTConfig(
        **SMALL, patch_size=4, max_length=32, num_mel_bins=16, frequency_stride=4, time_stride=4
    )
    source = randomize(ASTModel(config))
    source.save_pretrained(tmp_path)
    model, report = start(audio=str(tmp_path))
    embeddings = model.audio_model.embeddings
    mel = torch.randn(2, 32, 16)
    with torch.no_grad():
        ours = embeddings.patch_projection(embeddings.patchify(mel).flatten(1, 2).flatten(2))
        wanted = source.embeddings.patch_embeddings(mel)  # frequency slowest
        torch.testing.assert_close(
            ours.view(2, 8, 4, 24).transpose(1, 2).flatten(1, 2), wanted, atol=1e-5, rtol=1e-5
        )
    fresh = ("tables.spectral.weight", "tables.temporal.weight", "layer_norm.weight", "layer_norm.bias")
    assert {name for name in report.random if name.startswith("audio_model.")} == {
        f"audio_model.embeddings.position_embeddings.{name}" for name in fresh
    }
    _, report = start(audio=vit)
    assert "audio_model.embeddings.patch_projection.weight" in report.random
    assert "audio_model.encoder.layers.1.mlp.fc2.weight" in report.taken


@pytest.fixture(scope="module")
def ast():
    """An AST of its usual 1024 frames."""
    return randomize(ASTModel(ASTConfig(**SMALL, patch_size=8, num_mel_bins=16)))


def test_sound_from_ast_has_an_ordinary_sampling_rate(ast):
    """Sound and pictures cover the same 3.2 s, so AST's 1024 frames would be sound at 327,680 Hz."""
    model = VattModel.from_unimodal_pretrained(audio=ast, text_config=SMALL_TEXT)
    extractor, _ = VattProcessor.media_parts_from_config(model.config)
    assert (extractor.sampling_rate, extractor.window_seconds) == (48_000, 3.2)
    mel = extractor(np.zeros(extractor.num_samples), return_tensors="pt")["input_values"]
    assert model(input_values=mel).audio_va_embeds.shape == (1, 512)


@pytest.mark.parametrize(
    ("fields", "unused"),
    [
        ({"use_bias": True, "spectrogram_patch_size": [8, 8]}, []),
        (
            {"use_bias": False, "spectrogram_patch_size": [8, 8]},
            [
                f"layers.{i}.{name}.bias"
                for i in (0, 1)
                for name in (*(f"attention.{part}_proj" for part in "qkvo"), "mlp.fc1", "mlp.fc2")
            ],
        ),
        ({"use_bias": True, "spectrogram_patch_size": [16, 5]}, [PATCHES + ".weight", PATCHES + ".bias"]),
    ],
)
def test_what_of_a_source_is_not_used_is_told(ast, fields, unused):
    """Parameters without a place in the given config are listed, and no others."""
    audio = {**TOWER, "input_type": "spectrogram", "num_mel_bins": 16, "drop_token_rate": 0, **fields}
    config = VattConfig(video_config=SMALL_VIDEO, audio_config=audio, text_config=SMALL_TEXT)
    _, report = start(audio=ast, config=config)
    always = {"embeddings.distillation_token", "embeddings.position_embeddings"}
    assert set(report.unused["audio"]) - always == set(unused)
    assert any("epsilon" in note for note in report.notes)  # 1e-12 in the source


def test_pooling_layers_and_other_vocabularies_are_told(t5):
    vit = randomize(ViTModel(ViTConfig(**SMALL, image_size=[16, 24], patch_size=8)))
    config = VattConfig(
        video_config=SMALL_VIDEO, audio_config=SMALL_AUDIO, text_config={**SMALL_TEXT, "vocab_size": 30}
    )
    model, report = start(video=vit, text=t5, config=config)
    assert report.unused == {"video": ["pooler.dense.weight", "pooler.dense.bias"], "text": ["shared.weight"]}
    # positions of a picture that is not square are a grid of its rows and columns
    fit = split_positions(vit.embeddings.position_embeddings[0, 1:].detach().view(2, 3, -1))
    found = model.video_model.embeddings.position_embeddings.tables["vertical"].weight
    torch.testing.assert_close(found, fit["vertical"].float())
    with pytest.raises(ValueError, match="squares"):
        VattModel.from_unimodal_pretrained(video=vit)


def test_shared_encoder_and_classifier(vit):
    config = VattConfig(
        modality_agnostic=True, video_config=SMALL_VIDEO, audio_config=SMALL_AUDIO, text_config=SMALL_TEXT
    )
    _, report = start(video=vit, config=config)
    assert "encoder.layers.0.mlp.fc1.weight" in report.taken
    with pytest.raises(ValueError, match="one encoder"):
        VattModel.from_unimodal_pretrained(video=vit, audio=vit, config=config)
    classifier, report = VattForVideoClassification.from_unimodal_pretrained(
        video=vit, num_labels=3, output_loading_info=True
    )
    assert report.random == ["classifier.weight", "classifier.bias"]
    assert classifier(torch.zeros(1, 4, 3, 32, 32)).logits.shape == (1, 3)
    with pytest.raises(ValueError, match="no audio tower"):
        VattForVideoClassification.from_unimodal_pretrained(audio=vit, num_labels=3)


def test_model_objects_and_saving(vit, t5, tmp_path):
    source = T5EncoderModel.from_pretrained(t5)
    model = VattModel.from_unimodal_pretrained(
        video=ViTForImageClassification.from_pretrained(vit), text=source, audio_config=SMALL_AUDIO
    )
    model.save_pretrained(tmp_path)
    again = VattModel.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "at least one"),
        ({"text": "vit"}, "text tower starts from t5"),
        ({"video": "t5"}, "video tower starts from vit"),
        ({"video": "vit", "config": {}, "num_labels": 3}, "in `config`"),
        (
            {"video": "vit", "config": {"video_config": {**SMALL_VIDEO, "num_hidden_layers": 3}}},
            "num_hidden_layers",
        ),
        ({"text": "t5", "config": {"text_config": {**SMALL_TEXT, "encoder_type": "bert"}}}, "encoder_type"),
        ({"video": "vit", "config": {"video_config": {**SMALL_VIDEO, "head_dim": 16}}}, "`head_dim` is 16"),
        ({"video": "vit", "config": {"video_config": {**SMALL_VIDEO, "pre_norm": False}}}, "pre_norm"),
        ({"video": "vit", "config": {"video_config": {**SMALL_VIDEO, "hidden_act": "geglu"}}}, "gate"),
        ({"text": "t5", "config": {"text_config": {**SMALL_TEXT, "hidden_act": "geglu"}}}, "gate"),
    ],
)
def test_what_does_not_fit(arguments, message, vit, t5):
    paths = {"vit": vit, "t5": t5}
    arguments = {
        name: paths.get(value, value) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    if "config" in arguments:
        small = {"video_config": SMALL_VIDEO, "audio_config": SMALL_AUDIO, "text_config": SMALL_TEXT}
        arguments["config"] = VattConfig(**{**small, **arguments["config"]})
    with pytest.raises(ValueError, match=message):
        VattModel.from_unimodal_pretrained(**arguments)


def test_checkpoints_without_a_block_are_refused(vit, tmp_path):
    """Its weights would be random, and be reported as taken."""
    shutil.copytree(vit, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if ".layer.1." not in key}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 16 weights of a ViTModel, such as layers"):
        VattModel.from_unimodal_pretrained(
            video=str(tmp_path), audio_config=SMALL_AUDIO, text_config=SMALL_TEXT
        )
