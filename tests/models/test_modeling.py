# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Behaviour of the towers, `VattModel` and `VattForPreTraining`. Numbers of the official code are compared in
test_parity.py, what every model class and variant owes to a user of transformers is in test_ecosystem.py."""

import itertools
import math
import sys
import warnings
from collections import Counter
from fractions import Fraction

import pytest
import reference_losses as reference
import torch
from small_models import (
    AUDIO,
    NUM_WORDS,
    SPECTROGRAM,
    VARIANTS,
    VIDEO,
    seeded,
    small_config,
    small_inputs,
)
from torch import nn

from modeling_vatt import VattAudioConfig, VattConfig, VattForPreTraining, VattModel, VattVideoConfig
from modeling_vatt.models.embeddings import VattPatchEmbeddings, drop_token_count
from modeling_vatt.models.modeling_vatt import INPUT_NAMES, MODALITIES
from modeling_vatt.models.positions import resample_positions


TOKENS = {"video": 16, "audio": 12, "text": NUM_WORDS}
OTHER_TOKENS = {("spectrogram", "audio"): 6, ("mmv", "video"): 1, ("mmv", "audio"): 1}
WITHOUT_AGG = ("linear", "i3d", "resnet50")


def evaluated(variant: str = "specific", model_class: type = VattModel, **overrides):
    return seeded(model_class, small_config(variant, **overrides)).eval()


def features(model, modality: str, inputs, **kwargs):
    return getattr(model, f"get_{modality}_features")(inputs[INPUT_NAMES[modality]], **kwargs)


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(first, second, **tolerance) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance
        )


# --- shapes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [None, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes(variant, candidates):
    """Every output of every variant, for one text per clip and for several."""
    config = small_config(variant)
    output = evaluated(variant)(**small_inputs(config, 2, candidates))
    joint = config.head_type == "joint"
    va, vt = config.va_projection_size, config.vt_projection_size
    texts = (2,) if candidates is None else (2, candidates)
    assert output.video_va_embeds.shape == output.audio_va_embeds.shape == (2, va)
    assert output.video_vt_embeds.shape == (2, vt)
    assert output.text_vt_embeds.shape == (*texts, vt)
    for modality in MODALITIES:
        tower = getattr(config, f"{modality}_config")
        result = output[f"{modality}_model_output"]
        rows = math.prod(texts) if modality == "text" else 2
        tokens = OTHER_TOKENS.get((variant, modality), TOKENS[modality])
        agg = 0 if tower.encoder_type in WITHOUT_AGG else 1
        assert result.last_hidden_state.shape == (rows, agg + tokens, tower.output_size)
        assert result.pooler_output.shape == (rows, tower.output_size)
        if agg:
            assert torch.equal(result.pooler_output, result.last_hidden_state[:, 0])
        assert result.kept_tokens is None
        assert result.masked_tokens is None
        lead = texts if modality == "text" else (2,)
        expects_va, expects_vt = joint or modality != "text", joint or modality != "audio"
        assert (result.va_embeds is not None) == expects_va
        assert (result.vt_embeds is not None) == expects_vt
        assert result.va_embeds is None or result.va_embeds.shape == (*lead, va)
        assert result.vt_embeds is None or result.vt_embeds.shape == (*lead, vt)


@pytest.mark.parametrize("variant", ["specific", "agnostic", "joint"])
@pytest.mark.parametrize(
    "subset", [s for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)], ids="+".join
)
def test_any_subset_of_modalities(variant, subset):
    """Each modality is embedded the same whether it comes alone or with others; the rest is None."""
    model = evaluated(variant)
    inputs = small_inputs(model.config)
    everything = model(**inputs)
    output = model(**{INPUT_NAMES[name]: inputs[INPUT_NAMES[name]] for name in subset})
    for key, modality in (
        ("video_va_embeds", "video"),
        ("video_vt_embeds", "video"),
        ("audio_va_embeds", "audio"),
        ("text_vt_embeds", "text"),
    ):
        if modality in subset:
            torch.testing.assert_close(output[key], everything[key])
        else:
            assert getattr(output, key) is None
    for modality in MODALITIES:
        assert (getattr(output, f"{modality}_model_output") is not None) == (modality in subset)


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_candidates_are_clip_major(variant):
    """(batch, candidates, words) gives what the texts give one by one, in their places."""
    model = evaluated(variant)
    ids = small_inputs(model.config, 2, 3)["input_ids"]
    together = model.get_text_features(ids).vt_embeds
    for clip, candidate in itertools.product(range(2), range(3)):
        alone = model.get_text_features(ids[clip, candidate][None]).vt_embeds[0]
        torch.testing.assert_close(together[clip, candidate], alone)


def test_agnostic_encoder_is_shared():
    """One encoder for three towers, which own none; its parameters are stored and counted once."""
    model = evaluated("agnostic")
    assert all(getattr(model, f"{name}_model").encoder is None for name in MODALITIES)
    assert not any("_model.encoder" in name for name in model.state_dict())
    model(**small_inputs(model.config)).text_vt_embeds.sum().backward()
    assert model.encoder.layers[0].mlp.fc1.weight.grad.any()


# --- patches and positions -------------------------------------------------------------------------------


def test_resampling_to_the_same_size_is_the_identity():
    """No numerical noise where nothing changes."""
    table = torch.randn(5, 3)
    assert resample_positions(table, 5) is table


def test_resampling_is_differentiable():
    """Position tables train through the resampling; float64 stays float64."""
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: resample_positions(values, 8), (table,))


@pytest.mark.parametrize("variant", ["specific", "agnostic", "spectrogram", "bert_text"])
def test_other_sizes_than_the_reference(variant):
    """Longer, shorter, larger and non-square inputs run, and all tables receive gradients."""
    model = seeded(VattModel, small_config(variant)).train()
    spectrogram = variant == "spectrogram"
    output = model(
        pixel_values_videos=torch.randn(2, 12, 3, 12, 16),
        input_values=torch.randn(2, 8, 10) if spectrogram else torch.randn(2, 64),
        input_ids=torch.randint(1, 40, (2, 9)),
    )
    assert output.text_model_output.last_hidden_state.shape[1] == 10
    assert output.video_model_output.kept_tokens.shape == (6 * 3 * 4 // 2,)
    pooled = [output[f"{modality}_model_output"].pooler_output for modality in MODALITIES]
    sum(values.square().sum() for values in pooled).backward()
    for name, parameter in model.named_parameters():
        if ".tables." in name:
            assert parameter.grad.any(), name


def test_image_uses_the_first_temporal_row():
    """A clip of one patch in time (an image) is at temporal row 0."""
    positions = seeded(VattModel, small_config()).video_model.embeddings.position_embeddings
    torch.testing.assert_close(positions((1, 2, 2)), positions((4, 2, 2))[:4])


# --- DropToken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 7, 10, 784, 1200, 1568])
@pytest.mark.parametrize("rate", ["0.1", "0.25", "0.3", "0.5", "0.75", "0.9", "0.99"])
def test_drop_token_count(tokens, rate):
    """floor(kept share * tokens) exactly, in spite of binary fractions; never zero."""
    assert drop_token_count(tokens, float(rate)) == max(1, math.floor((1 - Fraction(rate)) * tokens))


@pytest.mark.parametrize("rate", [0.5, 0.3])
@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize("variant", ["specific", "agnostic"])
@pytest.mark.parametrize("left_over", [0, 1])
def test_drop_token_keeps_exactly_the_drawn_tokens(variant, modality, rate, left_over):
    """Dropping before the projection (which saves its cost) gives what dropping after it gives: the kept rows
    of the full sequence. The AGG token is never dropped and stands first. Nothing is taken of incomplete
    patches at the ends."""
    config = small_config(variant, **{modality: {"drop_token_rate": rate}})
    embeddings = getattr(seeded(VattModel, config).double(), f"{modality}_model").embeddings
    values = small_inputs(config, dtype=torch.float64)[INPUT_NAMES[modality]]
    ends = (0, left_over, 0, left_over, 0, 0, 0, left_over)  # width, height, channels, frames
    values = torch.nn.functional.pad(values, ends if modality == "video" else ends[:2], value=torch.nan)
    full, info = embeddings.eval()(values)
    assert not info
    kept_embeddings, info = embeddings.train()(values)
    kept = info["kept_tokens"]
    assert kept.shape == (math.floor((1 - rate) * TOKENS[modality] + 1e-9),)
    assert kept.unique().numel() == kept.numel()
    torch.testing.assert_close(kept_embeddings, torch.cat([full[:, :1], full[:, 1:][:, kept]], dim=1))
    assert torch.equal(kept_embeddings[:, 0], embeddings.agg_token.expand(3, -1))


def test_drop_token_reaches_every_token():
    """No token is always or never kept."""
    embeddings = seeded(VattModel, small_config()).train().audio_model.embeddings
    sound = torch.randn(1, 96)
    counts = torch.zeros(12)
    for _ in range(200):
        counts[embeddings(sound)[1]["kept_tokens"]] += 1
    assert counts.sum() == 200 * 6
    assert counts.min() > 60
    assert counts.max() < 140


def test_drop_token_is_for_training_on_video_and_waveform_only():
    """Evaluation, text and spectrograms use every token."""
    model = seeded(VattModel, small_config("spectrogram")).train()
    output = model(**small_inputs(model.config))
    assert output.video_model_output.last_hidden_state.shape[1] == 1 + 8
    assert output.audio_model_output.last_hidden_state.shape[1] == 1 + 6
    assert output.text_model_output.last_hidden_state.shape[1] == 1 + NUM_WORDS
    assert output.audio_model_output.kept_tokens is None
    assert output.text_model_output.kept_tokens is None
    assert model.eval()(**small_inputs(model.config)).video_model_output.kept_tokens is None


# --- input masking ---------------------------------------------------------------------------------------


def test_input_masking_shares():
    """Of the chosen 20 %: 80 % mask vector, 10 % a token of the batch, 10 % unchanged; others untouched."""
    config = VattVideoConfig(**VIDEO, use_input_masking=True, mask_rate=0.2)
    embeddings = VattPatchEmbeddings(config)
    nn.init.constant_(embeddings.mask_token, 7.0)
    tokens = torch.randn(80, 100, 16)
    masked, chosen = embeddings.mask_inputs(tokens)
    assert chosen.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(masked[~chosen], tokens[~chosen])
    is_vector = (masked == 7.0).all(-1)
    is_same = (masked == tokens).all(-1) & chosen
    is_other = chosen & ~is_vector & ~is_same
    total = chosen.sum()
    assert (is_vector.sum() / total).item() == pytest.approx(0.8, abs=0.03)
    assert (is_same.sum() / total).item() == pytest.approx(0.1, abs=0.03)
    assert (is_other.sum() / total).item() == pytest.approx(0.1, abs=0.03)
    known = {tuple(row.tolist()) for row in tokens.flatten(0, 1)}
    assert all(tuple(row.tolist()) in known for row in masked[is_other])


def test_input_masking_passes_no_gradient_to_swapped_tokens():
    """Random tokens come without gradient (release); the mask vector learns."""
    config = VattVideoConfig(**VIDEO, use_input_masking=True, mask_rate=0.9)
    embeddings = VattPatchEmbeddings(config)
    tokens = torch.randn(20, 16, 16, requires_grad=True)
    masked, _ = embeddings.mask_inputs(tokens)
    masked.sum().backward()
    same = (masked == tokens).all(-1)
    assert torch.equal(tokens.grad, same[..., None].float().expand_as(tokens))
    assert embeddings.mask_token.grad.any()


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_input_masking_in_the_model(modality):
    """Reported for all tokens also when DropToken takes some away; off in evaluation."""
    config = small_config(**{modality: {"use_input_masking": True, "mask_rate": 0.5}})
    model = seeded(VattModel, config)
    inputs = small_inputs(config)
    output = features(model.train(), modality, inputs)
    assert output.masked_tokens.shape == (3, TOKENS[modality])
    assert output.masked_tokens.dtype == torch.bool
    assert output.last_hidden_state.shape[1] == 1 + TOKENS[modality] // 2
    assert features(model.eval(), modality, inputs).masked_tokens is None


# --- text padding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", ["specific", "agnostic", "bert_text", "geglu"])
def test_padding_words_do_not_count(variant, implementation):
    """Whatever ids stand under a zero of the attention mask, the embedding stays."""
    model = evaluated(variant)
    model.set_attn_implementation(implementation)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    ids = torch.randint(1, 40, (3, 5))
    embeds = model.get_text_features(ids, mask).vt_embeds
    other = torch.where(mask.bool(), ids, torch.randint(1, 40, (3, 5)))
    torch.testing.assert_close(model.get_text_features(other, mask).vt_embeds, embeds)
    torch.testing.assert_close(model.get_text_features(other, mask.bool()).vt_embeds, embeds)
    assert not torch.allclose(model.get_text_features(ids).vt_embeds, embeds)


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_padding_id_is_masked_by_default(variant):
    """Without an attention mask, everything but the padding id counts, in 2-D and 3-D."""
    model = evaluated(variant)
    ids = small_inputs(model.config, 2, 3)["input_ids"]
    expected = model.get_text_features(ids, (ids != 0).long()).vt_embeds
    torch.testing.assert_close(model.get_text_features(ids).vt_embeds, expected)
    torch.testing.assert_close(model.get_text_features(ids[:, 0]).vt_embeds, expected[:, 0])


@pytest.mark.parametrize("variant", ["specific", "agnostic", "bert_text", "linear_text"])
def test_text_depends_on_no_padding_and_no_neighbours(variant):
    """Shorter than the table, as long, and longer: alone it has the embedding that it has in any batch."""
    model = evaluated(variant)
    rows = model.config.text_config.max_position_embeddings
    lengths = [1, rows - 1, rows, rows + 1, rows + 4]
    texts = [torch.randint(1, 40, (length,)) for length in lengths]
    alone = [model.get_text_features(text[None]).vt_embeds[0] for text in texts]
    for width in (rows, rows + 1, rows + 4, rows + 9):
        fitting = [(text, one) for text, one in zip(texts, alone, strict=True) if len(text) <= width]
        ids = torch.stack([torch.nn.functional.pad(text, (0, width - len(text))) for text, _ in fitting])
        embeds = model.get_text_features(ids).vt_embeds
        torch.testing.assert_close(embeds, torch.stack([one for _, one in fitting]), atol=1e-5, rtol=1e-5)
        ids = torch.stack([torch.nn.functional.pad(text, (width - len(text), 0)) for text, _ in fitting])
        torch.testing.assert_close(model.get_text_features(ids).vt_embeds, embeds, atol=1e-5, rtol=1e-5)


def test_positions_of_words():
    """Rows of the table in their order; of a longer text the resampled table, as the release has it."""
    embeddings = evaluated("bert_text").text_model.embeddings.position_embeddings
    table = embeddings.tables["temporal"].weight
    rows = len(table)
    mask = (torch.arange(rows + 3) < torch.tensor([[2], [rows], [rows + 2]])).long()
    positions = embeddings(mask)
    for words, row in ((2, 0), (rows, 1), (rows + 2, 2)):
        expected = table[:words] if words <= rows else resample_positions(table, words)
        torch.testing.assert_close(positions[row, :words], embeddings.layer_norm(expected))
    torch.testing.assert_close(embeddings(mask[:2, :2]), embeddings.layer_norm(table[:2]))


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_empty_caption(variant):
    """Only padding: AGG attends to itself, the result is finite and the same for every such text."""
    model = evaluated(variant)
    embeds = model.get_text_features(torch.zeros(2, 5, dtype=torch.long)).vt_embeds
    assert embeds.isfinite().all()
    torch.testing.assert_close(embeds[0], embeds[1])
    model.set_attn_implementation("eager")
    for weights in model.get_text_features(
        torch.zeros(1, 5, dtype=torch.long), output_attentions=True
    ).attentions:
        torch.testing.assert_close(weights[..., 0], torch.ones(1, 2, 6))


# --- loss of the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss_type", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("variant", ["specific", "joint", "agnostic"])
def test_loss_equals_reference_loops(variant, loss_type, reduction):
    """Embeddings, masks, weights and temperature meet in the right places."""
    joint = variant == "joint"
    model = seeded(
        VattForPreTraining,
        small_config(
            variant,
            loss_type=loss_type,
            loss_reduction=reduction,
            temperature=0.2,
            video_text_loss_weight=2.0,
            video_audio_loss_weight=0.5,
            audio_text_loss_weight=0.7 if joint else 0.0,
        ),
    )
    model = model.double().eval()
    audio_mask, text_mask = torch.tensor([1, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    inputs = small_inputs(model.config, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        output = model(**inputs, audio_mask=audio_mask, text_mask=text_mask)
    loss = reference.pair_loss
    video_audio = loss(output.video_va_embeds, output.audio_va_embeds, 0.2, loss_type, audio_mask)
    video_text = loss(output.video_vt_embeds, output.text_vt_embeds, 0.2, loss_type, text_mask)
    assert output.video_audio_loss.item() == pytest.approx(video_audio, rel=1e-9)
    assert output.video_text_loss.item() == pytest.approx(video_text, rel=1e-9)
    total, weights = 0.5 * video_audio + 2.0 * video_text, 2.5
    if joint:
        pair = (output.audio_va_embeds, output.text_vt_embeds)
        audio_text = loss(*pair, 0.2, loss_type, text_mask, audio_mask)
        assert output.audio_text_loss.item() == pytest.approx(audio_text, rel=1e-9)
        total, weights = total + 0.7 * audio_text, 3.2
    assert output.loss.item() == pytest.approx(total / (weights if reduction == "mean" else 1), rel=1e-9)


def test_loss_of_two_modalities():
    """Sound or text may be missing altogether: the remaining term is the loss."""
    model = evaluated(model_class=VattForPreTraining)
    inputs = small_inputs(model.config)
    for name, term in (("input_values", "video_audio_loss"), ("input_ids", "video_text_loss")):
        output = model(pixel_values_videos=inputs["pixel_values_videos"], **{name: inputs[name]})
        torch.testing.assert_close(output.loss, output[term])


def test_logits():
    """Cosine / temperature, over all texts of the batch; by default in evaluation only."""
    model = evaluated(model_class=VattForPreTraining)
    inputs = small_inputs(model.config, 3, 2)
    output = model(**inputs)
    assert output.logits_video_text.shape == (3, 6)
    cosine = nn.functional.cosine_similarity
    expected = cosine(output.video_va_embeds[1], output.audio_va_embeds[2], dim=0) / 0.07
    torch.testing.assert_close(output.logits_video_audio[1, 2], expected)
    expected = cosine(output.video_vt_embeds[2], output.text_vt_embeds[1, 0], dim=0) / 0.07
    torch.testing.assert_close(output.logits_video_text[2, 2], expected)
    assert model(**inputs, return_logits=False).logits_video_text is None
    assert model.train()(**inputs).logits_video_text is None
    assert model(**inputs, return_logits=True).logits_video_audio.shape == (3, 3)


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_absent_clips_do_not_train(variant):
    """What an absent sound or text holds changes neither the loss nor any gradient (FAC head)."""
    model = seeded(VattForPreTraining, small_config(variant)).double().train()
    inputs = small_inputs(model.config, 4, 2, dtype=torch.float64)
    masks = {"audio_mask": torch.tensor([1, 1, 0, 1]), "text_mask": torch.tensor([1, 0, 1, 1])}
    results = []
    for seed in (1, 2):
        changed = {name: value.clone() for name, value in inputs.items()}
        other = small_inputs(model.config, 4, 2, seed=seed, dtype=torch.float64)
        changed["input_values"][2] = other["input_values"][2] * 10
        changed["input_ids"][1] = other["input_ids"][1]
        torch.manual_seed(0)
        model.zero_grad()
        loss = model(**changed, **masks).loss
        loss.backward()
        results.append({"loss": loss.detach(), **gradients(model)})
    assert_same(*results)


def test_everything_absent():
    """A batch without any sound and text has loss 0 and zero gradients, not NaN."""
    model = seeded(VattForPreTraining, small_config()).train()
    nothing = torch.zeros(3)
    loss = model(**small_inputs(model.config), audio_mask=nothing, text_mask=nothing).loss
    loss.backward()
    assert loss.item() == 0
    assert not any(grad.any() for grad in gradients(model).values())


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pixel_values_videos": torch.zeros(8, 3, 8, 8)}, "`pixel_values_videos` must be .batch, frames, 3"),
        (
            {"pixel_values_videos": torch.zeros(3, 3, 8, 8, 8)},
            "`pixel_values_videos` must be .batch, frames, 3",
        ),
        (
            {"pixel_values_videos": torch.zeros(3, 1, 3, 8, 8)},
            "`pixel_values_videos` .* smaller than one patch",
        ),
        (
            {"pixel_values_videos": torch.zeros(3, 8, 3, 8, 3)},
            "`pixel_values_videos` .* smaller than one patch",
        ),
        ({"input_values": torch.zeros(3, 96, 1)}, "`input_values` must be .batch, samples"),
        ({"input_values": torch.zeros(96)}, "`input_values` must be .batch, samples"),
        ({"input_values": torch.zeros(3, 7)}, "`input_values` .* smaller than one patch"),
        ({"input_ids": torch.ones(5, dtype=torch.long)}, "`input_ids` must be"),
        ({"input_ids": torch.ones(1, 1, 1, 5, dtype=torch.long)}, "`input_ids` must be"),
        ({"attention_mask": torch.ones(3, 4)}, "`attention_mask` .* must have the shape of `input_ids`"),
        ({"audio_mask": torch.ones(3, 1)}, "`audio_mask` must be of shape"),
        ({"audio_mask": torch.ones(2)}, "'audio_mask': 2"),
        ({"text_mask": torch.ones(3, 5)}, "`text_mask` must be of shape"),
        ({"text_mask": torch.tensor(1)}, "`text_mask` must be of shape"),
        ({"input_values": torch.zeros(2, 96)}, "one row per clip.*'input_values': 2"),
        ({"input_ids": torch.ones(6, 5, dtype=torch.long)}, "'input_ids': 6.*batch, candidates, words"),
    ],
)
def test_errors_name_the_argument(wrong, message):
    """A wrong shape is refused with the argument's name, its shape, and what it should be."""
    model = evaluated(model_class=VattForPreTraining)
    with pytest.raises(ValueError, match=message):
        model(**{**small_inputs(model.config), **wrong})


def test_errors_of_missing_inputs():
    """No modality, no partner for the loss, no tower: each says what to do."""
    model = evaluated(model_class=VattForPreTraining)
    inputs = small_inputs(model.config)
    with pytest.raises(ValueError, match="at least one of `pixel_values_videos`, `input_values`"):
        model()
    with pytest.raises(ValueError, match="return_loss=False"):
        model(input_ids=inputs["input_ids"])
    assert model(input_ids=inputs["input_ids"], return_loss=False).loss is None
    with pytest.raises(ValueError, match="without its audio tower"):
        VattModel(small_config(), modalities=("video",)).get_audio_features(inputs["input_values"])
    with pytest.raises(ValueError, match="`modalities`"):
        VattModel(small_config(), modalities=("vision",))


def test_spectrogram_model_refuses_waveforms():
    """A tower for spectrograms says so when it gets a waveform, or other mel bins than its own."""
    for variant in ("spectrogram", "mmv"):
        with pytest.raises(ValueError, match=r"\(batch, frames, 10 mel bins\), got \(2, 12, 20\)"):
            evaluated(variant).get_audio_features(torch.zeros(2, 12, 20))
    with pytest.raises(ValueError, match=r"`input_values` must be \(batch, frames, 10 mel bins\)"):
        evaluated("spectrogram").get_audio_features(torch.zeros(2, 96))


# --- initialisation --------------------------------------------------------------------------------------


@pytest.mark.support("Initialisation, also of weights missing from a checkpoint", "VattModel")
def test_initialisation():
    """The release's, Keras' defaults among them. Dense layers: Glorot uniform. Positions: truncated normal of
    std d^-0.5, cut at two sigma. AGG and mask vectors: truncated normal of variance 1 / width. Relative bias:
    uniform in +-0.05. Words: standard normal (T5). Norms: 1 and 0. Everything else: 0."""
    torch.manual_seed(5)
    wide = {"hidden_size": 512, "num_hidden_layers": 1, "head_dim": 16, "intermediate_size": 64}
    text = {"vocab_size": 2000, "embedding_size": 300}
    model = VattModel(small_config(every=wide, video={"use_input_masking": True}, text=text))
    dense = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    counts = Counter()
    for name, values in model.state_dict().items():
        if name in dense:
            kind, bound, tolerance = "dense", math.sqrt(6 / sum(values.shape)), 0.15
            std = bound / math.sqrt(3)
        elif ".tables." in name:
            kind, std, bound, tolerance = "positions", 0.8796 * 512**-0.5, 2 * 512**-0.5, 0.1
        elif name.endswith(("agg_token", "mask_token")):
            kind, std, tolerance = "vectors", values.numel() ** -0.5, 0.15
            bound = 2 * std / 0.8796 + 1e-6
        elif name.endswith("relative_position_bias.bias.weight"):
            kind, std, bound, tolerance = "bias", 0.05 / math.sqrt(3), 0.05, 0.25
        elif name.endswith("word_embeddings.weight"):
            kind, std, bound, tolerance = "words", 1, math.inf, 0.02
            assert values.mean().item() == pytest.approx(0, abs=0.01)
        else:
            is_one = "norm" in name and name.endswith(("weight", "running_var"))
            assert (values == is_one).all(), name
            continue
        assert values.abs().max() <= bound, name
        assert values.std().item() == pytest.approx(std, rel=tolerance), name
        counts[kind] += 1
    assert counts.pop("dense") > 20
    assert counts == {"positions": 4, "vectors": 4, "bias": 1, "words": 1}


# --- saving and loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["specific", "agnostic", "joint"])
@pytest.mark.support("Save and load (safetensors)", "VattModel", "VattForPreTraining")
def test_base_and_pretraining_model_exchange_checkpoints(variant, tmp_path):
    """`VattModel` loads what `VattForPreTraining` saved, and the other way round, without a missing key."""
    model = evaluated(variant, VattForPreTraining)
    model.save_pretrained(tmp_path / "pretraining")
    base, info = VattModel.from_pretrained(tmp_path / "pretraining", output_loading_info=True)
    assert not any(info.values())
    assert_same(base.state_dict(), model.vatt.state_dict(), rtol=0, atol=0)
    base.save_pretrained(tmp_path / "base")
    again, info = VattForPreTraining.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not any(info.values())
    assert_same(again.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["specific", "agnostic", "linear_text"])
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("model_class", [VattModel, VattForPreTraining])
def test_frozen_word_table_stays_frozen(variant, trainable, model_class, tmp_path):
    """transformers makes every loaded parameter trainable; the word table follows the config."""
    model = seeded(model_class, small_config(variant, text={"trainable_embeddings": trainable}))
    assert model.get_input_embeddings().weight.requires_grad == trainable
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().weight.requires_grad == trainable
    others = [p for p in loaded.parameters() if p is not loaded.get_input_embeddings().weight]
    assert all(p.requires_grad for p in others)
    loaded, _ = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.get_input_embeddings().weight.requires_grad == trainable


@pytest.mark.parametrize("model_class", [VattModel, VattForPreTraining])
@pytest.mark.parametrize("variant", ["specific", "agnostic", "linear_text"])
@pytest.mark.support("`resize_token_embeddings`")
def test_resize_token_embeddings(variant, model_class):
    """A larger vocabulary: old rows stay, the config follows, a frozen table stays frozen, new ids work."""
    model = evaluated(variant, model_class)
    old = model.get_input_embeddings().weight.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(50)
    table = model.get_input_embeddings().weight
    assert table.shape == (50, 10)
    assert torch.equal(table[:40], old)
    assert not table.requires_grad
    assert model.config.text_config.vocab_size == 50
    assert model.get_text_features(torch.tensor([[49, 3, 0]])).vt_embeds.isfinite().all()


def test_word_table_can_be_replaced():
    """`set_input_embeddings` (pretrained vectors) takes effect."""
    model = evaluated()
    ids = torch.tensor([[3, 4, 0]])
    before = model.get_text_features(ids).vt_embeds
    model.set_input_embeddings(nn.Embedding(40, 10))
    assert not torch.allclose(model.get_text_features(ids).vt_embeds, before)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_model_without_text_has_no_word_table(modality):
    """Quantisation and adapters find the patch projection instead; a word table cannot be put there."""
    model = VattModel(small_config(), modalities=(modality,))
    patches = getattr(model, f"{modality}_model").embeddings.patch_projection
    assert model.get_input_embeddings() is patches
    with pytest.raises(NotImplementedError, match="no text tower"):
        model.set_input_embeddings(nn.Embedding(3, 4))


# --- outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in ("linear_text", "mmv")])
@pytest.mark.support("`output_hidden_states`, `output_attentions`", "VattModel", "VattForPreTraining")
def test_hidden_states_and_attentions(variant):
    """Input and output of every block, and softmax weights of every block; the last state normalised is the
    output. They pass through from the base model."""
    whole = evaluated(variant, VattForPreTraining)
    model = whole.vatt
    whole.set_attn_implementation("eager")
    inputs = small_inputs(model.config, 2)
    output = whole(**inputs, output_hidden_states=True, output_attentions=True)
    for modality in MODALITIES:
        result = output[f"{modality}_model_output"]
        length = result.last_hidden_state.shape[1]
        assert len(result.hidden_states) == 3
        assert all(state.shape == (2, length, 16) for state in result.hidden_states)
        assert len(result.attentions) == 2
        for weights in result.attentions:
            assert weights.shape == (2, 2, length, length)
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, length))
        tower = getattr(model, f"{modality}_model")
        final = (tower.encoder or model.encoder).final_layer_norm(result.hidden_states[-1])
        if tower.post_projection is not None:
            final = tower.activation(tower.post_projection(final))
        torch.testing.assert_close(final, result.last_hidden_state)
    padding = (inputs["input_ids"] == 0)[:, None, None, :].expand(2, 2, 1 + NUM_WORDS, NUM_WORDS)
    assert not output.text_model_output.attentions[0][..., 1:][padding].any()


def test_hidden_states_only_when_asked_for():
    """Nothing by default; the config's switch works as the argument does."""
    model = evaluated()
    inputs = small_inputs(model.config)
    assert model(**inputs).video_model_output.hidden_states is None
    assert model(**inputs).video_model_output.attentions is None
    model.config.output_hidden_states = True
    assert len(model(**inputs).video_model_output.hidden_states) == 3
    assert model(**inputs, output_hidden_states=False).video_model_output.hidden_states is None


@pytest.mark.support("Tuples (`return_dict=False`)", "VattModel", "VattForPreTraining")
def test_tuples():
    """`return_dict=False` gives the same values as tuples; the loss comes first, as Trainer expects it."""
    model = evaluated(model_class=VattForPreTraining)
    inputs = small_inputs(model.config)
    output, values = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(values, tuple)
    assert torch.equal(values[0], output.loss)
    assert len(values) == len(output)
    flat = [value for value in values if isinstance(value, torch.Tensor)]
    assert torch.equal(flat[-1], output.text_vt_embeds)
    assert all(isinstance(value, (torch.Tensor, tuple)) for value in values)
    base = model.vatt(**inputs, return_dict=False)
    assert torch.equal(base[0], output.video_va_embeds)
    assert torch.equal(base[4][0], output.video_model_output.last_hidden_state)
    for modality in MODALITIES:
        tower = features(model, modality, inputs, return_dict=False)
        assert isinstance(tower, tuple)
        assert torch.equal(tower[1], output[f"{modality}_model_output"].pooler_output)
    model.config.return_dict = False
    assert torch.equal(model(**inputs)[0], output.loss)


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("video", "position_dropout_prob"),
        ("video", "hidden_dropout_prob"),
        ("video", "attention_probs_dropout_prob"),
        ("text", "hidden_dropout_prob"),
    ],
)
def test_each_dropout_acts(place, field):
    """Every dropout rate of the config reaches the computation, in training only."""
    config = small_config(**{place: {field: 0.5, **({"drop_token_rate": 0.0} if place == "video" else {})}})
    model = seeded(VattModel, config).train()
    inputs = small_inputs(config)
    first, second = (features(model, place, inputs).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)


# --- attention implementations, precision, checkpointing -------------------------------------------------


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_attention_implementation_reaches_every_tower(variant, tmp_path):
    """Chosen when loading or later, it holds for the encoders that compute, not only for the outer config."""
    seeded(VattModel, small_config(variant)).save_pretrained(tmp_path)
    loaded = VattModel.from_pretrained(tmp_path, attn_implementation="eager")
    for implementation in ("eager", "sdpa"):
        loaded.set_attn_implementation(implementation)
        used = {
            module.config._attn_implementation
            for module in loaded.modules()
            if type(module).__name__ == "VattAttention"
        }
        assert used == {implementation}


# --- compilation and export ------------------------------------------------------------------------------


def compiled(function, backend: str, **kwargs):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend, **kwargs)


@pytest.mark.slow
def test_video_compiles_at_other_sizes():
    """Resampled positions are constants of the graph, on several axes at once and after a change of size."""
    model = evaluated()
    run = compiled(model.get_video_features, "aot_eager")
    for shape in ((2, 12, 3, 12, 16), (2, 8, 3, 16, 12)):
        video = torch.randn(shape)
        expected = model.get_video_features(video).pooler_output
        torch.testing.assert_close(run(video).pooler_output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_loss_can_be_left_out_of_the_graph(monkeypatch):
    """As on a GPU: the graph breaks around it, loss and gradients stay."""
    every_token = {"drop_token_rate": 0.0}
    config = small_config(every={"num_hidden_layers": 1}, video=every_token, audio=every_token)
    model = seeded(VattForPreTraining, config).train()
    inputs = {**small_inputs(config, 3, 2), "audio_mask": torch.tensor([1, 0, 1])}
    module = sys.modules[VattForPreTraining.__module__]
    results = []
    for run in (model, torch.compile(model, backend="eager")):
        model.zero_grad()
        loss = run(**inputs).loss
        loss.backward()
        results.append({"loss": loss.detach(), **gradients(model)})
        monkeypatch.setattr(module, "contrastive_loss", module._uncompiled_loss)
    assert_same(*results, rtol=1e-3, atol=1e-4)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(model, "eager")(**inputs)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_drop_token_compiles(modality):
    """Its draw has a fixed size, so it does not break the graph."""
    model = seeded(VattModel, small_config(every={"num_hidden_layers": 1})).train()
    run = compiled(getattr(model, f"get_{modality}_features"), "eager")
    output = run(small_inputs(model.config)[INPUT_NAMES[modality]])
    assert output.kept_tokens.shape == (TOKENS[modality] // 2,) and output.pooler_output.isfinite().all()


# --- odds and ends ---------------------------------------------------------------------------------------


def test_spectrogram_of_reference_size():
    """The official spectrogram (150 x 80) gives 9 x 16 tokens, its last 6 frames being cut."""
    config = VattAudioConfig(
        **{**SPECTROGRAM, "spectrogram_length": 150, "num_mel_bins": 80, "spectrogram_patch_size": [16, 5]}
    )
    model = VattModel(VattConfig(audio_config=config), modalities=("audio",)).eval()
    assert model.get_audio_features(torch.zeros(1, 150, 80)).last_hidden_state.shape == (1, 145, 16)


def test_models_do_not_share_state():
    """Two models of one config are independent, and building one leaves the config as it was."""
    config = small_config()
    before = config.to_dict()
    first, second = VattModel(config), VattModel(config)
    assert config.to_dict() == before
    assert not torch.equal(first.audio_model.embeddings.agg_token, second.audio_model.embeddings.agg_token)
    assert VattModel(small_config(audio=AUDIO), modalities=("audio",)).head is None
