# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Towers that are other models: each against the wrapped model called directly."""

import json
import shutil
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from small_models import AUDIO, TEXT, VIDEO, seeded
from torch import nn
from tower_folders import (
    BERT,
    CLIP,
    PICTURE,
    REMOTE,
    SMALL,
    TEXT_FIELDS,
    WAV2VEC,
    WHISPER,
    remote_folder,
    small_tokenizer,
)
from transformers import (
    AlignConfig,
    AlignModel,
    ASTConfig,
    ASTModel,
    AutoModel,
    AutoTokenizer,
    BertModel,
    BlipConfig,
    BlipModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    ClapConfig,
    ClapModel,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    Siglip2Config,
    Siglip2Model,
    T5Config,
    T5EncoderModel,
    VideoMAEConfig,
    VideoMAEModel,
    VJEPA2Config,
    VJEPA2Model,
    Wav2Vec2Model,
    WhisperModel,
)

from modeling_vatt import (
    VattConfig,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)
from modeling_vatt.models.adapters import add_lora, merged_state_dict
from modeling_vatt.models.locking import find_blocks
from modeling_vatt.processors import VattProcessor
from modeling_vatt.training import cached_backward, finetuning_config


CLAP_AUDIO = {
    "hidden_size": 8,
    "num_mel_bins": 8,
    "spec_size": 32,
    "patch_size": 2,
    "patch_stride": [2, 2],
    "patch_embeds_hidden_size": 4,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "num_hidden_layers": 2,
    "window_size": 4,
    "enable_fusion": False,
}
VJEPA = {
    **{key: SMALL[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")},
    "crop_size": 8,
    "patch_size": 4,
    "frames_per_clip": 4,
    "pred_hidden_size": 16,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "pred_num_mask_tokens": 2,
}
SIGLIP2 = Siglip2Config(
    text_config={**TEXT_FIELDS, "projection_size": 16},
    vision_config={**SMALL, "patch_size": 4, "num_patches": 4},
)
CLAP = ClapConfig(text_config=TEXT_FIELDS, audio_config=CLAP_AUDIO, projection_dim=12)
MAE = VideoMAEConfig(**PICTURE, num_frames=4, tubelet_size=2)
T5 = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0)
MODERN = ModernBertConfig(**TEXT_FIELDS, cls_token_id=2, sep_token_id=3)


def _pixels() -> torch.Tensor:
    return torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _ids() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 5, 9, 3, 0, 0], [2, 7, 8, 6, 4, 3]])
    return ids, (ids != 0).long()


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.stack([row[keep.bool()].mean(0) for row, keep in zip(hidden, mask, strict=True)])


def _clip_video(model: Any) -> torch.Tensor:
    frames = [model.vision_model(frame).pooler_output for frame in _pixels().unbind(1)]
    return torch.stack(frames).mean(0)


def _dino(model: Any) -> torch.Tensor:
    frames = [model(frame).last_hidden_state[:, 0] for frame in _pixels().unbind(1)]
    return torch.stack(frames).mean(0)


def _siglip2_video(model: Any) -> torch.Tensor:
    found = []
    for frame in _pixels().unbind(1):
        patches = [
            frame[:, :, y : y + 4, x : x + 4].permute(0, 2, 3, 1).flatten(1) for y in (0, 4) for x in (0, 4)
        ]
        shapes, mask = torch.tensor([[2, 2]] * 2), torch.ones(2, 4, dtype=torch.int32)
        found.append(model.vision_model(torch.stack(patches, 1), mask, shapes).pooler_output)
    return torch.stack(found).mean(0)


def _words(model: Any) -> torch.Tensor:
    ids, mask = _ids()
    return _mean(model(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


SOUND = {
    "ast": torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(2)),
    "clap": torch.randn(2, 1, 40, 8, generator=torch.Generator().manual_seed(2)),
    "whisper": torch.randn(2, 8, 200, generator=torch.Generator().manual_seed(2)),
    "wav2vec2": torch.randn(2, 400, generator=torch.Generator().manual_seed(2)),
}
AST = ASTConfig(**SMALL, patch_size=4, frequency_stride=4, time_stride=4, max_length=24, num_mel_bins=8)

# name -> modality, class, config, inputs, the right pooled feature, the pooling that is chosen
MODELS: dict[str, tuple[str, type[PreTrainedModel], Any, Any, Any, str]] = {
    "clip_video": ("video", CLIPModel, CLIP, _pixels(), _clip_video, "pooler"),
    "siglip2_video": ("video", Siglip2Model, SIGLIP2, _pixels(), _siglip2_video, "pooler"),
    "dinov2": ("video", Dinov2Model, Dinov2Config(**PICTURE), _pixels(), _dino, "pooler"),
    "videomae": ("video", VideoMAEModel, MAE, _pixels(), lambda m: m(_pixels())[0].mean(1), "mean"),
    "vjepa2": (
        "video",
        VJEPA2Model,
        VJEPA2Config(**VJEPA),
        _pixels(),
        lambda m: m.get_vision_features(_pixels()).mean(1),
        "mean",
    ),
    "ast": ("audio", ASTModel, AST, SOUND["ast"], lambda m: m(SOUND["ast"]).pooler_output, "pooler"),
    "clap_audio": (
        "audio",
        ClapModel,
        CLAP,
        SOUND["clap"],
        lambda m: m.audio_model(SOUND["clap"], is_longer=torch.zeros(2, 1).bool()).pooler_output,
        "pooler",
    ),
    "whisper": (
        "audio",
        WhisperModel,
        WHISPER,
        SOUND["whisper"],
        lambda m: m.encoder(SOUND["whisper"])[0].mean(1),
        "mean",
    ),
    "wav2vec2": (
        "audio",
        Wav2Vec2Model,
        WAV2VEC,
        SOUND["wav2vec2"],
        lambda m: m(SOUND["wav2vec2"])[0].mean(1),
        "mean",
    ),
    "clip_text": (
        "text",
        CLIPModel,
        CLIP,
        _ids(),
        lambda m: m.text_model(_ids()[0], attention_mask=_ids()[1]).pooler_output,
        "pooler",
    ),
    "siglip2_text": (
        "text",
        Siglip2Model,
        SIGLIP2,
        _ids(),
        lambda m: m.text_model(_ids()[0]).pooler_output,
        "pooler",
    ),
    "bert": ("text", BertModel, BERT, _ids(), _words, "mean"),
    "modernbert": ("text", ModernBertModel, MODERN, _ids(), _words, "mean"),
    "t5": ("text", T5EncoderModel, T5, _ids(), _words, "mean"),
}


def _whole(**options: Any) -> VattForPreTraining:
    own = {"video": VIDEO, "audio": AUDIO, "text": TEXT}
    fields = {f"{name}_config": dict(value) for name, value in own.items() if name not in options}
    sizes = {"va_projection_size": 12, "vt_projection_size": 6}
    return VattForPreTraining.from_video_audio_text_pretrained(**options, **fields, **sizes)


def _features(model: Any, name: str, inputs: Any) -> Any:
    return getattr(model, f"get_{name}_features")(*(inputs if isinstance(inputs, tuple) else (inputs,)))


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_features_are_the_wrapped_models(kind, tmp_path):
    """From a folder, and again after a save."""
    name, model_class, config, inputs, right, pooling = MODELS[kind]
    source = seeded(model_class, config).eval()
    source.save_pretrained(tmp_path / "source")
    model = _whole(**{name: str(tmp_path / "source")})
    assert model.config.use(name).pooling == pooling
    found = _features(model, name, inputs)
    torch.testing.assert_close(found.pooler_output, right(source), rtol=1e-5, atol=1e-6)
    model.save_pretrained(tmp_path / "saved")
    again, info = VattModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for key in ("pooler_output", "va_embeds", "vt_embeds"):
        left, kept = found.get(key), _features(again.eval(), name, inputs).get(key)
        assert (left is None and kept is None) or torch.equal(left, kept)
    assert again.config.to_dict()["towers"] == model.config.to_dict()["towers"]


@torch.no_grad()
def test_mean_over_the_places_with_sound():
    """Of AST too, whose tokens are first of one mel band, then of the next."""
    models = {"ast": seeded(ASTModel, AST), "whisper": seeded(WhisperModel, WHISPER)}
    for kind, source in models.items():
        use = {"audio": {"pooling": "mean", "filled": 0.5}}
        found = _whole(audio=source, towers=use).eval().get_audio_features(SOUND[kind])
        tokens = found.last_hidden_state
        if kind == "ast":
            bands = tokens[:, 2:].unflatten(1, (2, 6))
            tokens = torch.cat([tokens[:, :2], bands[:, :, :3].flatten(1, 2)], 1)
        else:
            tokens = tokens[:, : tokens.shape[1] // 2]
        torch.testing.assert_close(found.pooler_output, tokens.mean(1))


def _others(rows: int) -> dict[str, torch.Tensor]:
    return {"input_values": torch.randn(rows, 96), "input_ids": _ids()[0][:rows]}


def _step(model: VattForPreTraining) -> None:
    batch = {"pixel_values_videos": _pixels(), **_others(2)}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    model(**batch).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("projection", ["none", "mlp"])
def test_locked_towers_stay_bit_equal(projection, tmp_path):
    towers = {name: {"projection": projection} for name in ("video", "text")}
    model = _whole(video=seeded(CLIPModel, CLIP), text=seeded(BertModel, BERT))
    for name in towers:
        model.config.set_use(name, **towers[name])
    model = VattForPreTraining(VattConfig(**model.config.to_dict()))
    model.lock("video", "text")
    model.save_pretrained(tmp_path)
    model = VattForPreTraining.from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _step(model)
    assert not model.vatt.video_model.model.training and not model.vatt.text_model.model.training
    assert model.vatt.audio_model.training
    after = model.state_dict()
    for name, value in after.items():
        locked = name.startswith(("vatt.video_model", "vatt.text_model"))
        assert not locked or torch.equal(value, before[name]), name
    assert not torch.equal(after["vatt.head.text_vt.weight"], before["vatt.head.text_vt.weight"])
    model.unlock("video", "text")
    assert all(p.requires_grad for p in model.vatt.video_model.parameters())


def test_a_locked_shared_encoder_stays_locked(tmp_path):
    """Of a modality-agnostic model after loading; classifiers train it."""
    model = VattForPreTraining(VattConfig.from_preset("ma_tiny"))
    model.lock("video", "audio", "text")
    model.save_pretrained(tmp_path)
    again = VattForPreTraining.from_pretrained(tmp_path).train()
    trained = {name.split(".")[1] for name, p in again.named_parameters() if p.requires_grad}
    assert trained == {"head"} and not again.vatt.encoder.training
    config = finetuning_config(VattConfig.from_pretrained(tmp_path), ["a", "b"], "video")
    classifier = VattForVideoClassification.from_pretrained(tmp_path, config=config).train()
    assert all(p.requires_grad for p in classifier.parameters()) and classifier.vatt.encoder.training
    again.unlock("video", "audio", "text")
    assert all(p.requires_grad for p in again.vatt.encoder.parameters()) and again.vatt.encoder.training
    with pytest.raises(StrictDataclassError, match="lock all three or none"):
        VattConfig.from_preset("ma_tiny", towers={"video": {"locked": True}})
    pytest.importorskip("peft", reason="peft is not installed")
    with pytest.raises(ValueError, match="LoRA is for modality-specific"):
        add_lora(again, "video", 2)


def test_first_blocks_are_locked():
    model = _whole(video=seeded(CLIPModel, CLIP), text=seeded(BertModel, BERT))
    model.lock("text", "audio", blocks=1)
    model.train()
    text, audio = model.vatt.text_model.model, model.vatt.audio_model
    assert not any(p.requires_grad for p in text.embeddings.parameters())
    assert not any(p.requires_grad for p in text.encoder.layer[0].parameters())
    assert all(p.requires_grad for p in text.encoder.layer[1].parameters())
    assert not text.encoder.layer[0].training and text.encoder.layer[1].training
    assert not any(p.requires_grad for p in audio.encoder.layers[0].parameters())
    assert all(p.requires_grad for p in audio.encoder.layers[1].parameters())
    with pytest.raises(ValueError, match="has 2 blocks"):
        model.lock("text", blocks=3)
    network = nn.Module()  # EfficientNets of others
    network._blocks = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    assert find_blocks(network) == list(network._blocks)


RESNET = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")


def test_batch_norms_keep_the_statistics_of_the_checkpoint():
    """A trained tower sees in training what it sees in evaluation, in whole batches and in parts of them."""
    source = seeded(ResNetModel, RESNET)
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model = _whole(video=source, towers={"video": {"output_size": 16}})
    right = _pooled(model)
    before = {name: value.clone() for name, value in model.vatt.video_model.named_buffers()}
    torch.testing.assert_close(_pooled(model.train()), right)
    cached_backward(model, [{"pixel_values_videos": _pixels()[:1], **_others(1)}] * 2, [0, 1])
    assert all(p.grad is not None for p in model.vatt.video_model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.vatt.video_model.named_buffers())
    model.config.set_use("video", train_batch_norm=True)  # a tower that begins at random
    assert not torch.allclose(_pooled(model.train()), right)
    with pytest.raises(ValueError, match="video tower normalises over the batch"):
        cached_backward(model, [{"pixel_values_videos": _pixels(), **_others(2)}], [0])
    model.lock("video")
    torch.testing.assert_close(_pooled(model.eval()), _pooled(model.train()))


def test_frames_through_a_temporal_transformer():
    use = {"video": {"kind": "image", "pooling": "pooler", "temporal_layers": 1, "num_frames": 4}}
    model = VattModel(
        VattConfig(video_config=CLIP.vision_config, audio_config=AUDIO, text_config=TEXT, towers=use)
    )
    model.lock("video")
    model.train()
    order = model.get_video_features(_pixels()).pooler_output
    other = model.get_video_features(_pixels().flip(1)).pooler_output
    assert not torch.allclose(order, other)
    order.sum().backward()
    assert all(p.grad is None for p in model.video_model.model.parameters())
    assert any(p.grad is not None for p in model.video_model.temporal.parameters())


def test_what_cannot_serve_is_refused_with_the_reason(tmp_path):
    bert = seeded(BertModel, BERT)
    with pytest.raises(ValueError, match="BertModel cannot be the video tower: it takes `input_ids`"):
        _whole(video=bert)
    with pytest.raises(ValueError, match=r"video tower: .*missing: no such folder"):
        _whole(video=str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="Give at least one of"):
        VattModel.from_video_audio_text_pretrained()
    with pytest.raises(ValueError, match=r"`towers\['text'\]`: `pooling` must be one of"):
        _whole(text=bert, towers={"text": {"pooling": "best"}})
    with pytest.raises(ValueError, match=r"`towers\['text'\]`: `temporal_layers` must be int, got '4'"):
        _whole(text=bert, towers={"text": {"temporal_layers": "4"}})
    bert.save_pretrained(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    tensors = {key: value for key, value in load_file(weights).items() if not key.startswith("pooler.")}
    save_file(tensors, weights, metadata={"format": "pt"})  # as of masked language models
    assert _whole(text=str(tmp_path / "cut")).config.use("text").pooling == "mean"
    save_file({key: value for key, value in tensors.items() if "layer.1." not in key}, weights)
    with pytest.raises(ValueError, match=r"cut lacks 16 weights of a BertModel, such as encoder\.layer\.1\."):
        _whole(text=str(tmp_path / "cut"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"text tower: .*cut: it cannot be loaded \("):
        _whole(text=str(tmp_path / "cut"))
    weights.unlink()
    with pytest.raises(ValueError, match=r"text tower: .*cut: it cannot be loaded \(Error no file"):
        _whole(text=str(tmp_path / "cut"))
    for load in ("from_video_audio_text_pretrained", "from_unimodal_pretrained"):
        with pytest.raises(TypeError, match="no field token, revision"):  # it would be saved in config.json
            getattr(VattForPreTraining, load)(text=str(tmp_path), token="secret", revision="1")
    with pytest.raises(ValueError, match="share an encoder"):
        VattConfig(video_config=CLIP.vision_config, modality_agnostic=True)


def _pooled(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.get_video_features(_pixels()).pooler_output


def test_a_tower_with_code_of_its_own(tmp_path):
    """Its code runs only where it is trusted, and travels with the saved model."""
    source = remote_folder(tmp_path / "source")
    with pytest.raises(ValueError, match=r"code of the video tower .*source comes with its checkpoint"):
        _whole(video=str(source))
    code = source / "tiny_pictures.py"
    right = code.read_text()
    code.write_text(f"import no_such_package\n{right}")
    with pytest.raises(ValueError, match=r"video tower: .*packages .* not found .*: no_such_package"):
        _whole(video=str(source), trust_remote_code=True)
    code.write_text(right)
    model = _whole(video=str(source), trust_remote_code=True)
    tensors = load_file(source / "model.safetensors")
    places = torch.conv2d(_pixels().flatten(0, 1), tensors["layer.weight"], tensors["layer.bias"], stride=4)
    right = places.amax((2, 3)).view(2, 4, 6).mean(1)
    torch.testing.assert_close(_pooled(model), right)
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(source)
    with pytest.raises(ValueError, match="code of the video tower comes with its checkpoint"):
        VattModel.from_pretrained(tmp_path / "saved")
    for loader in (VattModel, VattForPreTraining, AutoModel):
        again = loader.from_pretrained(tmp_path / "saved", trust_remote_code=True)
        assert torch.equal(_pooled(again.eval()), _pooled(model))
    inner = {"subfolder": "saved", "temperature": 0.5, "dtype": torch.float64}
    found = VattModel.from_pretrained(tmp_path, trust_remote_code=True, **inner)
    assert found.config.temperature == 0.5
    torch.testing.assert_close(_pooled(found).float(), _pooled(model))
    again.save_pretrained(tmp_path / "twice")
    assert sorted(path.name for path in (tmp_path / "twice").glob("*.py")) == ["tiny_pictures.py"]


def test_precision_and_blocks_of_a_tower_are_its_class_s(tmp_path):
    """T5 overflows in float16 where its class keeps float32; devices are not to split its blocks."""
    source = seeded(T5EncoderModel, T5)
    source.save_pretrained(tmp_path / "source")
    plain = T5EncoderModel.from_pretrained(tmp_path / "source", dtype=torch.float16)
    kept = {name for name, value in plain.named_parameters() if value.dtype == torch.float32}
    assert kept
    model = _whole(text=str(tmp_path / "source"))
    assert "T5Block" in model._no_split_modules
    model.save_pretrained(tmp_path / "saved")
    for found in (
        VattForPreTraining.from_pretrained(tmp_path / "saved", dtype=torch.float16),
        _whole(text=str(tmp_path / "source"), dtype=torch.float16),
    ):
        wide = {name for name, value in found.named_parameters() if value.dtype == torch.float32}
        assert wide == {f"vatt.text_model.model.{name}" for name in kept}
    found = _whole(text=source, dtype=torch.bfloat16)  # a loaded model
    assert {value.dtype for value in found.parameters()} == {torch.bfloat16}


def test_code_of_two_towers_under_one_name(tmp_path):
    video = remote_folder(tmp_path / "video")
    audio = remote_folder(tmp_path / "audio")
    text = REMOTE.replace('"pixel_values"', '"input_values"').replace("tiny_pictures", "tiny_sound")
    (audio / "tiny_pictures.py").write_text(text)
    config = (audio / "config.json").read_text()
    (audio / "config.json").write_text(config.replace('"tiny_pictures"', '"tiny_sound"'))
    model = _whole(video=str(video), audio=str(audio), trust_remote_code=True)
    with pytest.raises(ValueError, match=r"files called tiny_pictures\.py"):
        model.save_pretrained(tmp_path / "saved")


def test_how_towers_are_used_changes_piece_by_piece(tmp_path):
    """`from_pretrained(towers=...)` leaves what it does not name; the pooling would be chosen anew."""
    towers = {"text": {"pooling": "first"}, "video": {"projection": "mlp"}}
    _whole(text=BertModel(BERT), towers=towers).save_pretrained(tmp_path)
    change = {"text": {"locked": True}, "audio": {"locked": 1}}
    model = VattForPreTraining.from_pretrained(tmp_path, towers=change)
    uses = {name: model.config.use(name) for name in ("video", "audio", "text")}
    assert uses["text"].pooling == "first" and uses["video"].projection == "mlp"
    assert [use.locked for use in uses.values()] == [False, 1, True]
    ids, mask = _ids()
    found = model.get_text_features(ids, mask)
    assert torch.equal(found.pooler_output, found.last_hidden_state[:, 0])


def test_classifiers_refuse_other_models():
    config = _whole(video=CLIPModel(CLIP)).config
    for kind in (VattForVideoClassification, VattForImageClassification):
        with pytest.raises(ValueError, match=r"video tower of VATT's own.* clip_vision_model: fit a linear"):
            kind(config)


def test_a_linear_projection():
    """A dense layer alone; FAC, which is more than that, refuses it."""
    linear = {"towers": {"text": {"projection": "linear"}}, "text": BertModel(BERT)}
    sizes = {"va_projection_size": 6, "vt_projection_size": 6}
    own = {"video_config": dict(VIDEO), "audio_config": dict(AUDIO)}
    model = VattForPreTraining.from_video_audio_text_pretrained(**linear, **own, **sizes, head_type="joint")
    found = model.train().get_text_features(torch.tensor([[5, 6, 7]]))
    right = found.pooler_output @ model.vatt.head.projections["text"].weight.T
    torch.testing.assert_close(found.vt_embeds, right)
    with pytest.raises(StrictDataclassError, match="of text needs `head_type"):
        VattForPreTraining.from_video_audio_text_pretrained(**linear, **own, **sizes)


def test_every_addition_of_lora_trains():
    """Also beside attention of PyTorch, which SigLIP pools by; DDP waits for gradients of all."""
    pytest.importorskip("peft", reason="peft is not installed")
    model = _whole(video=seeded(Siglip2Model, SIGLIP2)).train()
    add_lora(model, "video", 2)
    model.get_video_features(_pixels()).va_embeds.square().sum().backward()
    trained = {n: p for n, p in model.vatt.video_model.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())


@pytest.mark.parametrize(
    ("stated", "pooling"),
    [
        ({"pooling_mode": "cls"}, "first"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode": "lasttoken"}, None),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
    ],
)
def test_pooling_of_sentence_encoders(stated, pooling, tmp_path):
    """As sentence-transformers 6 and earlier versions write it; what is not offered is refused."""
    seeded(BertModel, BERT).save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 16, **stated}))
    if pooling is None:
        with pytest.raises(ValueError, match=r"pools by .*, which is not offered here"):
            _whole(text=str(tmp_path))
        model = _whole(text=str(tmp_path), towers={"text": {"pooling": "mean"}})
    else:
        model = _whole(text=str(tmp_path))
    assert model.config.use("text").pooling == (pooling or "mean")


def test_steps_around_a_sentence_encoder(tmp_path):
    """What sentence-transformers puts after the pooling or before the words would be missing."""
    seeded(BertModel, BERT).save_pretrained(tmp_path)
    pooling = tmp_path / "pool"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    kinds = {"Transformer": "", "Pooling": "pool", "Normalize": "2_Normalize"}

    def state(kinds: dict[str, str], **settings: Any) -> VattForPreTraining:
        rows = [
            {"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()
        ]
        (tmp_path / "modules.json").write_text(json.dumps(rows))
        return _whole(text=str(tmp_path), **settings)

    assert state(kinds).config.use("text").pooling == "first"
    dense = {**kinds, "Dense": "2_Dense"}
    with pytest.raises(ValueError, match=r"sentence-transformers runs .* with `Dense`, which is not offered"):
        state(dense)
    assert state(dense, towers={"text": {"pooling": "mean"}}).config.use("text").pooling == "mean"
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with pytest.raises(ValueError, match="with the prompt 'query', which is not offered"):
        state(kinds)


@torch.no_grad()
def test_captions_of_models_that_read_padding(tmp_path):
    """However far they are padded, they are filled up as in training."""
    source = seeded(Siglip2Model, SIGLIP2).eval()
    source.save_pretrained(tmp_path)
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "right"})  # another id than the config's
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = _whole(text=str(tmp_path)).eval()
    processor = VattProcessor.from_video_audio_text_pretrained(model.config, text=str(tmp_path), max_words=6)
    captions = ["a red square", "green"]
    options = {"padding": "max_length", "padding_side": "right", "max_length": 12}
    whole = tokenizer(captions, return_tensors="pt", **options)["input_ids"]
    right = source.text_model(whole).pooler_output
    model.save_pretrained(tmp_path / "saved")
    for each in (model, VattModel.from_pretrained(tmp_path / "saved").eval()):
        for padding in ("longest", "max_length"):
            inputs = processor(text=captions, padding=padding)
            found = each.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
            torch.testing.assert_close(found, right)
    model.config.set_use("text", pooling="mean")
    found = model.get_text_features(inputs["input_ids"], inputs["attention_mask"])
    torch.testing.assert_close(found.pooler_output[1], source.text_model(whole)[0][1, :3].mean(0))


PARTS = {
    "clap": (ClapModel, CLAP),
    "blip": (BlipModel, BlipConfig(text_config=TEXT_FIELDS, vision_config=PICTURE, projection_dim=12)),
    "align": (
        AlignModel,
        AlignConfig(
            text_config=TEXT_FIELDS,
            vision_config={"hidden_dim": 4, "width_coefficient": 0.1, "depth_coefficient": 0.1},
            projection_dim=12,
        ),
    ),
    "chinese_clip": (
        ChineseCLIPModel,
        ChineseCLIPConfig(text_config=TEXT_FIELDS, vision_config=PICTURE, projection_dim=12),
    ),
}


@pytest.mark.parametrize("kind", PARTS)
@torch.no_grad()
def test_text_of_models_of_two_encoders(kind):
    """The feature is the one that their own projection takes."""
    model_class, config = PARTS[kind]
    source = seeded(model_class, config).eval()
    ids, mask = _ids()
    found = _whole(text=source).eval().get_text_features(ids, mask).pooler_output
    theirs = source.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
    ours = source.text_projection(found)
    torch.testing.assert_close(nn.functional.normalize(ours), nn.functional.normalize(theirs))


@pytest.mark.parametrize("foreign", [True, False])
def test_lora_on_one_tower(foreign, tmp_path):
    """Only the additions and what is outside of the tower train; what is saved is a plain model."""
    pytest.importorskip("peft", reason="peft is not installed")
    model = _whole(text=BertModel(BERT)) if foreign else _whole(video=CLIPModel(CLIP))
    before = {key: value.clone() for key, value in model.vatt.text_model.state_dict().items()}
    add_lora(model, "text", 2)
    parameters = dict(model.vatt.text_model.named_parameters())
    assert {name for name, p in parameters.items() if p.requires_grad} == {
        n for n in parameters if "lora_" in n
    }
    assert model.vatt.head.text_vt.weight.requires_grad
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 1, 2]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model.get_text_features(ids).vt_embeds.square().sum().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right = model.get_text_features(ids).vt_embeds
    for state in (None, merged_state_dict(model)):
        model.save_pretrained(tmp_path, state_dict=state)
        again, info = VattForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        with torch.no_grad():
            found = again.eval().get_text_features(ids).vt_embeds
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    # A run of transformers' Trainer continues from such a folder.
    _, unexpected = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    with torch.no_grad():
        found = model.get_text_features(ids).vt_embeds
    torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)
    assert not unexpected
    after = again.vatt.text_model.state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    with pytest.raises(ValueError, match="tower is locked: leave out either"):
        model.lock("video")
        add_lora(model, "video", 2)
