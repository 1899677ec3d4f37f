# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses that a config can name, in the pretraining model: learned numbers, false negatives, compiling."""

import pytest
import reference_losses as reference
import torch
from small_models import EVERY_TOKEN, seeded, small_config, small_inputs
from torch._dynamo.testing import CompileCounterWithBackend

from modeling_vatt import VattForPreTraining, VattModel
from modeling_vatt.models.losses import LOSSES, caption_ids, contrastive_loss


LEARNED = [name for name, loss in LOSSES.items() if loss.is_learned]
JOINT = {"variant": "joint", "audio_text_loss_weight": 0.7}


@pytest.mark.parametrize("loss_type", LEARNED)
def test_learned_numbers(loss_type, tmp_path):
    """A temperature for each pair that has a loss, trained, saved, and in the logits; the bias of sigmoid."""
    config = small_config(**JOINT, **EVERY_TOKEN, loss_type=loss_type, temperature=0.2, loss_bias=-3.0)
    config.video_audio_loss_weight = 0.0
    model = VattForPreTraining(config).double()
    names = {name for name, _ in model.named_parameters() if name.startswith("loss_scales.")}
    kinds = ("log_scale", "bias") if loss_type == "sigmoid" else ("log_scale",)
    assert names == {f"loss_scales.{pair}.{kind}" for pair in ("video_text", "audio_text") for kind in kinds}
    inputs = small_inputs(config, 4, 2, dtype=torch.float64)
    masks = {"audio_mask": torch.tensor([1, 1, 0, 1]), "text_mask": torch.tensor([0, 1, 1, 1])}
    output = model(**inputs, **masks)
    output.loss.backward()
    bias = -3.0 if loss_type == "sigmoid" else 0.0
    pair = output.audio_va_embeds.detach(), output.text_vt_embeds.detach()
    expected = reference.pair_loss(*pair, 0.2, loss_type, masks["text_mask"], masks["audio_mask"], bias)
    assert output.audio_text_loss.item() == pytest.approx(expected, rel=1e-6)
    assert all(model.get_parameter(name).grad.abs() > 0 for name in names)
    with torch.no_grad():
        model.loss_scales["video_text"].log_scale.fill_(1.0)
    model.save_pretrained(tmp_path)
    again = VattForPreTraining.from_pretrained(tmp_path, dtype=torch.float64).eval()
    output = again(**inputs)
    cosine = torch.nn.functional.cosine_similarity(
        output.video_vt_embeds[1], output.text_vt_embeds[2, 0], dim=0
    )
    torch.testing.assert_close(output.logits_video_text[1, 4], cosine * torch.e + bias)


@pytest.mark.parametrize("loss_type", LEARNED)
def test_models_of_the_release_can_be_trained_further_with_a_learned_loss(loss_type, tmp_path):
    """What their files lack begins as the config says; a model with it is still a base model."""
    seeded(VattForPreTraining, small_config()).save_pretrained(tmp_path / "nce")
    model = VattForPreTraining.from_pretrained(tmp_path / "nce", loss_type=loss_type, temperature=0.1)
    for scale in model.loss_scales.values():
        temperature, bias = scale()
        assert temperature.item() == pytest.approx(0.1)
        assert bias is None if loss_type != "sigmoid" else bias == -10
    assert model(**small_inputs(model.config)).loss.isfinite()
    model.save_pretrained(tmp_path / "learned")
    assert torch.equal(
        VattModel.from_pretrained(tmp_path / "learned").head.audio_va.weight, model.vatt.head.audio_va.weight
    )


def test_a_learned_loss_is_chosen_before_the_model_is_built():
    model = seeded(VattForPreTraining, small_config())
    model.config.loss_type = "sigmoid"
    with pytest.raises(ValueError, match="before it is built"):
        model(**small_inputs(model.config))


@pytest.mark.parametrize("loss_type", LOSSES)
def test_equal_captions_and_clips_of_a_video_are_no_negatives(loss_type):
    """Captions are compared word for word, padding on either side left out; only where that is asked for."""
    config = small_config(
        **JOINT,
        **EVERY_TOKEN,
        loss_type=loss_type,
        temperature=0.2,
        loss_bias=-1.0,
        mask_false_negatives=True,
    )
    model = VattForPreTraining(config).double().eval()
    inputs = small_inputs(config, 4, 2, dtype=torch.float64)
    inputs["input_ids"][:2, 0] = torch.tensor([[0, 0, 0, 5, 6], [5, 6, 0, 0, 0]])
    inputs["video_ids"] = torch.tensor([1, 2, 3, 1])
    plain = {**inputs, "input_ids": inputs["input_ids"].clone()}
    plain["input_ids"][0, 0] = plain["input_ids"][1, 0]
    words = caption_ids(plain["input_ids"], plain["input_ids"] != 0)
    assert words[0, 0] == words[1, 0]
    with torch.no_grad():
        output = model(**inputs)
    bias = -1.0 if loss_type == "sigmoid" else 0.0
    for pair, sides, ids in (
        ("video_audio", (output.video_va_embeds, output.audio_va_embeds), {}),
        ("video_text", (output.video_vt_embeds, output.text_vt_embeds), {"caption_ids": words.tolist()}),
        ("audio_text", (output.audio_va_embeds, output.text_vt_embeds), {"caption_ids": words.tolist()}),
    ):
        expected = reference.pair_loss(*sides, 0.2, loss_type, bias=bias, video_ids=[1, 2, 3, 1], **ids)
        assert output[f"{pair}_loss"].item() == pytest.approx(expected, rel=1e-6)
    model.config.mask_false_negatives = False
    with torch.no_grad():
        assert not torch.isclose(model(**inputs).loss, output.loss)


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize(("dynamic", "backend"), [(None, "aot_eager"), (True, "eager")])
def test_compiled_losses(loss_type, dynamic, backend):
    """Value and gradients of the uncompiled loss at every batch size, of two graphs at most."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(contrastive_loss, fullgraph=True, dynamic=dynamic, backend=counter)
    for clips in (4, 3, 5, 7):
        sides = [torch.randn(clips, 8).requires_grad_(), torch.randn(clips, 2, 8).requires_grad_()]
        mask = torch.arange(clips) > 0
        ids = torch.arange(clips) % 2
        outcomes = []
        for function in (contrastive_loss, compiled):
            loss = function(*sides, mask, loss_type=loss_type, video_ids=ids, alike=0.3)
            outcomes.append([loss, *torch.autograd.grad(loss, sides)])
        torch.testing.assert_close(*outcomes, rtol=1e-5, atol=1e-6)
    assert counter.frame_count <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "loss_type", "backend", "dynamic"),
    [
        ("specific", "sigmoid", "eager", True),
        ("specific", "asymmetric", "aot_eager", None),
        ("agnostic", "sigmoid", "eager", None),
    ],
)
@pytest.mark.support("`torch.compile(fullgraph=True)`", "VattForPreTraining")
def test_compiled_pretraining_has_one_graph_for_all_batch_sizes(variant, loss_type, backend, dynamic):
    """Two where the first size was taken for a fixed one; losses and gradients are those without.

    With `dynamic=True` the first call may trace twice, as PyTorch takes floats for variables at first.
    """
    config = small_config(
        variant, every={"num_hidden_layers": 1}, **EVERY_TOKEN, loss_type=loss_type, mask_false_negatives=True
    )
    torch._dynamo.reset()
    model = seeded(VattForPreTraining, config).train()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=counter)
    first = 0
    for clips in (4, 3, 5):
        inputs = {**small_inputs(config, clips, 2), "audio_mask": torch.arange(clips) % 2}
        losses, grads = [], []
        for run in (model, compiled):
            model.zero_grad()
            loss = run(**inputs).loss
            loss.backward()
            losses.append(loss.detach())
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)
        first = first or counter.frame_count
    assert counter.frame_count <= (first if dynamic else 2)
