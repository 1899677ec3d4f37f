# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers of the official code: golden data (tests/fixtures/goldens), and an independent float64 reference
for what no golden covers. Run as a script it prints the differences for docs/parity.md."""

import json

import numpy as np
import numpy_reference as reference
import pytest
import torch
from goldens import BOUND, GOLDENS, difference, golden_inputs, load_golden, random_model

from modeling_vatt.convert import open_variables
from modeling_vatt.convert.mapping import FINETUNED_PATH, HEAD_PATH, TOWER_PATHS
from modeling_vatt.models.losses import label_balanced_bce
from modeling_vatt.models.positions import resample_positions


PRETRAINED = ("tx_fac", "ut_fac", "tx_fac_spectrogram")
EXACT = 1e-9  # float64 against the float64 reference


def output_differences(case, attention):
    """Differences of everything a pretraining golden holds."""
    inputs, _ = golden_inputs(case)
    golden = np.load(GOLDENS / case / "outputs_eval.npz")
    model = load_golden(case)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        outputs = model(**inputs, return_loss=False)
    found = {}
    for modality in ("video", "audio", "text"):
        features = outputs[f"{modality}_model_output"]
        found[f"{modality}.features"] = difference(
            features.last_hidden_state[:, 1:], golden[f"{modality}.features"]
        )
        found[f"{modality}.features_pooled"] = difference(
            features.pooler_output, golden[f"{modality}.features_pooled"]
        )
    for name, ours in (
        ("video.toaud", outputs.video_va_embeds),
        ("video.totxt", outputs.video_vt_embeds),
        ("audio.tovid", outputs.audio_va_embeds),
        ("text.tovid", outputs.text_vt_embeds),
    ):
        found[name] = difference(ours, golden[f"head_stack.bridge.{name}"])
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("case", PRETRAINED)
def test_features_and_embeddings(case, attention):
    found = output_differences(case, attention)
    assert len(found) == 10
    assert max(found.values()) <= BOUND, found


def loss_differences(case):
    """Losses of the whole model, inputs to loss: every variant in the golden."""
    inputs, settings = golden_inputs(case)
    losses = settings["losses"]
    model = load_golden(case)
    found = {}
    for loss_type in ("asymmetric", "symmetric"):
        model.config.loss_type = loss_type
        for variant in ("full", "masked"):
            masks = {
                name: torch.tensor(losses[name]) if variant == "masked" else None
                for name in ("audio_mask", "text_mask")
            }
            with torch.no_grad():
                outputs = model(**inputs, **masks)
            wanted = losses[f"{loss_type}.{variant}"]
            for name, ours in (
                ("total", outputs.loss),
                ("vidtxt_loss", outputs.video_text_loss),
                ("vidaud_loss", outputs.video_audio_loss),
            ):
                found[f"{loss_type}.{variant}.{name}"] = abs(float(ours) - wanted[name])
    return found


@pytest.mark.parametrize("case", ["tx_fac", "ut_fac"])
def test_losses(case):
    found = loss_differences(case)
    assert len(found) == 12
    assert max(found.values()) <= 1e-5, found


def head_training_differences(case):
    """The head with batch statistics, and its running statistics after that step."""
    features = np.load(GOLDENS / case / "outputs_eval.npz")
    golden = np.load(GOLDENS / case / "head_training.npz")
    head = load_golden(case).vatt.head.train()
    pooled = {m: torch.from_numpy(features[f"{m}.features_pooled"]) for m in ("video", "audio", "text")}
    video_va, video_vt = head.video(pooled["video"])
    found = {
        "video.toaud": difference(video_va, golden["video.toaud"]),
        "video.totxt": difference(video_vt, golden["video.totxt"]),
        "audio.tovid": difference(head.audio(pooled["audio"])[0], golden["audio.tovid"]),
        "text.tovid": difference(head.text(pooled["text"])[1], golden["text.tovid"]),
    }
    for name in golden.files:
        if name.startswith("after."):
            norm = head.video_va_norm if "hid_to_va" in name else head.video_vt_norm
            ours = norm.running_mean if "moving_mean" in name else norm.running_var
            found[name.split("mlp_fac_")[-1]] = difference(ours, golden[name])
    return found


@pytest.mark.parametrize("case", ["tx_fac", "ut_fac"])
def test_head_in_training(case):
    found = head_training_differences(case)
    assert len(found) == 8
    assert max(found.values()) <= BOUND, found


def classification_differences(case, file, attention):
    arrays = np.load(GOLDENS / case / f"{file}.npz")
    model = load_golden(case)
    model.set_attn_implementation(attention)
    windows = json.loads((GOLDENS / case / "case.json").read_text())["windows"]
    inputs = torch.from_numpy(arrays["inputs"])
    video = case.startswith("vit")
    inputs = inputs.movedim(-1, 2) if video else inputs.squeeze(-1)
    with torch.no_grad():
        features = (model.vatt.get_video_features if video else model.vatt.get_audio_features)(inputs)
        logits = model(inputs.unflatten(0, (-1, windows))).logits
    probabilities = logits.softmax(-1) if video else logits.sigmoid()
    return {
        "pooled": difference(features.pooler_output, arrays["pooled"]),
        "logits": difference(logits, arrays["logits"]),
        "probabilities": difference(probabilities, arrays["probabilities"]),
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("vit_classification", "native"),
        ("vit_classification", "larger"),
        ("wat_classification", "native"),
        ("wat_classification", "longer"),
    ],
)
def test_classification(case, file, attention):
    found = classification_differences(case, file, attention)
    # Here the release's float32 spline (8 -> 13 rows) is off by about 7e-5, which its outputs inherit
    # (docs/parity.md); the next test holds the same case to the exact positions.
    bound = 1e-4 if file == "longer" else BOUND
    assert max(found.values()) <= bound, found


def longer_difference():
    """The golden case with resampled positions, against the float64 reference instead of the release."""
    arrays = np.load(GOLDENS / "wat_classification" / "longer.npz")
    v = reference.as_float64(open_variables(GOLDENS / "wat_classification" / "weights.npz"))
    wanted = reference.patch_tower(arrays["inputs"].astype(np.float64), v, FINETUNED_PATH, "waveform", 4, 2)
    with torch.no_grad():
        ours = load_golden("wat_classification").vatt.get_audio_features(
            torch.from_numpy(arrays["inputs"]).squeeze(-1)
        )
    return difference(ours.last_hidden_state, wanted)


def test_longer_sound_with_exact_positions():
    assert longer_difference() <= BOUND


def test_weighted_sound_loss():
    golden = np.load(GOLDENS / "wat_classification" / "loss.npz")
    ours = label_balanced_bce(torch.from_numpy(golden["logits"]), torch.from_numpy(golden["labels"]))
    assert difference(ours, golden["loss"]) <= 1e-5


RESAMPLED = (
    (8, 16, "table_8"),
    (14, 20, "table_14"),
    (14, 10, "table_14b"),
    (40, 67, "table_40"),
    (1200, 1876, "table_1200"),
)


def position_differences():
    """Differences from the golden float64 arrays, and for the longest table from the extended one."""
    golden = np.load(GOLDENS / "small" / "positions.npz")
    extended = np.load(GOLDENS / "small" / "positions_extended.npz")
    found = {}
    for source, target, name in RESAMPLED:
        key = f"{source}_{target}"
        # Condition number 1e12: float64 elimination left 1.6e-4 in the golden array, so it can not judge.
        truth = extended[key] if key in extended.files else golden[f"resampled_float64_{key}"]
        table = torch.from_numpy(golden[name])
        found[f"{source} -> {target}"] = (
            difference(resample_positions(table, target), truth),
            difference(resample_positions(table.double(), target), truth),
        )
    distance = extended["1200_1876"] - golden["resampled_float64_1200_1876"]
    assert 1e-5 < np.abs(distance).max() < 2e-4  # why the golden array is not used above
    return found


def test_resampled_positions():
    """float32 tables as in a model, and float64."""
    for single, double in position_differences().values():
        assert single <= 1e-5
        assert double <= 1e-7


@pytest.mark.parametrize(
    ("source", "target"), [(4, 6), (4, 3), (4, 1), (8, 16), (14, 24), (40, 67), (2, 5), (150, 211)]
)
def test_spline_formula(source, target):
    """The release's formula, solved in extended precision."""
    table = np.random.default_rng(source).normal(size=(source, 3))
    ours = resample_positions(torch.from_numpy(table), target)
    assert difference(ours, reference.polyharmonic_spline(table, target)) <= 1e-10


# What no golden covers, against the float64 reference ------------------------------------------------------


def random_ids(batch=3, words=8):
    ids = torch.randint(1, 30, (batch, words), generator=torch.Generator().manual_seed(1))
    ids[0, words // 2 :] = 0
    ids[1] = 0  # a caption of padding only
    return ids


@pytest.mark.parametrize("variant", [{}, {"pre_norm": False}, {"hidden_act": "geglu"}, {"use_bias": False}])
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_encoder_variants(variant, activation):
    settings = {"hidden_act": activation, **variant}
    model, v = random_model(video=settings, audio=settings)
    video = torch.randn(2, 5, 3, 13, 12, dtype=torch.float64)  # an odd frame and pixel row are left out
    sound = torch.randn(2, 51, dtype=torch.float64)
    act, pre_norm = settings["hidden_act"], settings.get("pre_norm", True)
    with torch.no_grad():
        ours = model(video, sound, return_loss=False)
    wanted = reference.patch_tower(
        video.movedim(2, -1).numpy(), v, TOWER_PATHS["video"], "video", 2, 2, act, pre_norm
    )
    assert difference(ours.video_model_output.last_hidden_state, wanted) <= EXACT
    wanted = reference.patch_tower(
        sound[..., None].numpy(), v, TOWER_PATHS["audio"], "waveform", 2, 2, act, pre_norm
    )
    assert difference(ours.audio_model_output.last_hidden_state, wanted) <= EXACT


def test_towers_of_agnostic_origin_and_resampled_positions():
    """Pre- and post-projection on one tower; larger inputs than the tables in every axis."""
    projections = {"use_pre_projection": True, "use_post_projection": True}
    model, v = random_model(video=projections, audio=projections)
    video = torch.randn(2, 8, 3, 20, 16, dtype=torch.float64)
    sound = torch.randn(2, 88, dtype=torch.float64)
    with torch.no_grad():
        ours = model(video, sound, return_loss=False)
    wanted = reference.patch_tower(video.movedim(2, -1).numpy(), v, TOWER_PATHS["video"], "video", 2, 2)
    assert wanted.shape == (2, 1 + 4 * 5 * 4, 20)
    assert difference(ours.video_model_output.last_hidden_state, wanted) <= 1e-7
    wanted = reference.patch_tower(sound[..., None].numpy(), v, TOWER_PATHS["audio"], "waveform", 2, 2)
    assert difference(ours.audio_model_output.last_hidden_state, wanted) <= 1e-7


def test_spectrogram_positions_on_an_uneven_grid():
    audio = {
        "input_type": "spectrogram",
        "spectrogram_length": 12,
        "num_mel_bins": 10,
        "spectrogram_patch_size": [4, 2],
        "drop_token_rate": 0.0,
        "use_bias": False,
    }
    model, v = random_model(audio=audio)
    mel = torch.randn(2, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        ours = model.get_audio_features(mel).last_hidden_state
    wanted = reference.patch_tower(mel[..., None].numpy(), v, TOWER_PATHS["audio"], "spectrogram", 2, 2)
    assert difference(ours, wanted) <= EXACT


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("words", [8, 16, 90])
def test_t5_tower(words, attention):
    """90 words reach the last of the relative buckets; padding, and a caption of padding only."""
    model, v = random_model()
    model.set_attn_implementation(attention)
    ids = random_ids(words=words)
    with torch.no_grad():
        ours = model.get_text_features(ids).last_hidden_state
    wanted = reference.t5_tower(ids.numpy(), v, TOWER_PATHS["text"], 2, 2)
    assert difference(ours, wanted) <= EXACT


def test_relative_buckets():
    model, _ = random_model()
    ours = model.vatt.text_model.encoder.relative_position_bias.buckets(120, torch.device("cpu"))
    wanted = [[reference.relative_bucket(key - query) for key in range(120)] for query in range(120)]
    assert torch.equal(ours, torch.tensor(wanted))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_bert_tower(pre_norm):
    model, v = random_model(text={"encoder_type": "bert", "pre_norm": pre_norm})
    ids = random_ids()
    with torch.no_grad():
        ours = model.get_text_features(ids).last_hidden_state
    wanted = reference.bert_tower(ids.numpy(), v, TOWER_PATHS["text"], 2, 2, pre_norm=pre_norm)
    assert difference(ours, wanted) <= EXACT


def test_linear_text_tower():
    model, v = random_model(text={"encoder_type": "linear", "num_hidden_layers": 0})
    ids = random_ids()
    with torch.no_grad():
        ours = model.get_text_features(ids)
    words, pooled = reference.linear_tower(ids.numpy(), v, TOWER_PATHS["text"])
    assert difference(ours.last_hidden_state, words) <= EXACT
    assert difference(ours.pooler_output, pooled) <= EXACT


@pytest.mark.parametrize("head", ["fac", "joint"])
def test_heads(head):
    model, v = random_model(
        text={"hidden_size": 12}, head_type=head, vt_projection_size=14 if head == "joint" else 9
    )
    pooled = [torch.randn(4, size, dtype=torch.float64) for size in (16, 16, 12)]
    arrays = [value.numpy() for value in pooled]
    module = model.vatt.head
    with torch.no_grad():
        (video_va, video_vt), (audio_va, _), (_, text_vt) = (
            module.video(pooled[0]),
            module.audio(pooled[1]),
            module.text(pooled[2]),
        )
    if head == "fac":
        wanted = reference.fac_head(*arrays, v, HEAD_PATH)
    else:
        video, audio, text = (
            reference.joint_head(array, v, f"{HEAD_PATH}{name}_to_vat/")
            for array, name in zip(arrays, ("vid", "aud", "txt"), strict=True)
        )
        wanted = (video, audio, video, text)
    for ours, theirs in zip((video_va, audio_va, video_vt, text_vt), wanted, strict=True):
        assert difference(ours, theirs) <= EXACT


def test_drop_token_in_training():
    """With dropout off, a training pass is the evaluation pass on the kept tokens, positions included."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "position_dropout_prob": 0.0}
    model, v = random_model(video=quiet)
    video = torch.randn(2, 4, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        ours = model.train().vatt.video_model(video)
    assert len(ours.kept_tokens) == 9  # floor(0.5 * 2 * 3 * 3)
    wanted = reference.patch_tower(
        video.movedim(2, -1).numpy(), v, TOWER_PATHS["video"], "video", 2, 2, keep=ours.kept_tokens.numpy()
    )
    assert difference(ours.last_hidden_state, wanted) <= EXACT


if __name__ == "__main__":
    for name in PRETRAINED:
        for implementation in ("eager", "sdpa"):
            print(name, implementation, output_differences(name, implementation))
    for name in ("tx_fac", "ut_fac"):
        print(name, "losses", loss_differences(name))
        print(name, "head in training", head_training_differences(name))
    for name, arrays_name in (("vit", "native"), ("vit", "larger"), ("wat", "native"), ("wat", "longer")):
        for implementation in ("eager", "sdpa"):
            found = classification_differences(f"{name}_classification", arrays_name, implementation)
            print(name, arrays_name, implementation, found)
    print("wat longer, float64 reference", longer_difference())
    print("positions (float32 table, float64 table)", position_differences())
