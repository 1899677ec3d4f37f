# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Gradients of a batch that is computed in parts are those of the batch as a whole; in float64."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from small_models import EVERY_TOKEN, seeded, small_config, small_inputs

from modeling_vatt import VattForPreTraining
from modeling_vatt.models.losses import LOSSES
from modeling_vatt.training import cached_backward
from modeling_vatt.training.gradient_cache import _features


MASKS = {"audio_mask": [1, 1, 0, 1, 1], "text_mask": [0, 1, 1, 1, 0]}


def build(candidates: int | None = 2, masks: bool = True, **config: Any) -> tuple[VattForPreTraining, dict]:
    model = seeded(VattForPreTraining, small_config(**config)).double().train()
    inputs = small_inputs(model.config, 5, candidates, dtype=torch.float64)
    if masks:
        inputs |= {name: torch.tensor(mask) for name, mask in MASKS.items()}
    return model, inputs


def cut(inputs: dict[str, torch.Tensor], *sizes: int) -> list[dict[str, torch.Tensor]]:
    split = {name: value.split(sizes) for name, value in inputs.items()}
    return [{name: value[part] for name, value in split.items()} for part in range(len(sizes))]


def state(model: VattForPreTraining) -> dict[str, torch.Tensor]:
    grads = {name: values.grad for name, values in model.named_parameters() if values.grad is not None}
    return {**grads, **dict(model.named_buffers())}


def check(model: VattForPreTraining, expected: VattForPreTraining, without: str = "") -> None:
    found, wanted = state(model), state(expected)
    assert found.keys() == wanted.keys() and len(wanted) > 50
    assert not without or not any(without in name for name in found)
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("sizes", [(5,), (2, 2, 1), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("options", [{}, {"masks": False}, {"candidates": None}])
@pytest.mark.parametrize("variant", ["specific", "agnostic", "joint", "linear_text"])
def test_parts_equal_the_whole(variant, options, sizes):
    """Losses, gradients and batch-norm statistics, however the batch is cut; the statistics move once."""
    whole, inputs = build(variant=variant, **options, **EVERY_TOKEN)
    output = whole(**inputs)
    output.loss.backward()
    model, inputs = build(variant=variant, **options, **EVERY_TOKEN)
    cached = cached_backward(model, cut(inputs, *sizes), range(len(sizes)))
    torch.testing.assert_close(cached.loss, output.loss)
    torch.testing.assert_close(cached.video_audio_loss, output.video_audio_loss)
    check(model, whole)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_parts_equal_the_whole_in_every_loss(loss_type):
    """Temperatures and biases have their gradients, and false negatives are found among all parts."""
    fields = {"loss_type": loss_type, "mask_false_negatives": True, "false_negative_similarity": 0.5}
    outcomes = []
    for sizes in (None, (2, 2, 1)):
        model, inputs = build(variant="joint", **fields, **EVERY_TOKEN)
        inputs["input_ids"][4, 1] = inputs["input_ids"][0, 0]
        inputs["video_ids"] = torch.tensor([7, 8, 9, 7, 8])
        if sizes is None:
            output = model(**inputs)
            output.loss.backward()
        else:
            output = cached_backward(model, cut(inputs, *sizes), range(3))
        outcomes.append((model, output.loss))
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1])
    check(outcomes[1][0], outcomes[0][0])


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_random_decisions_are_replayed(variant):
    """Dropout and DropToken of a part are the same in both of its passes: the gradients equal those of one
    graph in which every part was computed once."""
    dropout = {"every": {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}}
    seeds = (11, 12, 13)
    whole, inputs = build(variant=variant, **dropout)
    pooled: dict[str, list[torch.Tensor]] = {"video": [], "audio": [], "text": []}
    for part, seed in zip(cut(inputs, 2, 2, 1), seeds, strict=True):
        torch.manual_seed(seed)
        inside = {name: value for name, value in part.items() if name not in MASKS}
        features = whole(**inside, return_loss=False, return_embeds=False)
        assert features.video_va_embeds is None
        for name, values in pooled.items():
            values.append(features[f"{name}_model_output"].pooler_output)
    joined = {name: torch.cat(values) for name, values in pooled.items()}
    joined["text"] = joined["text"].view(5, 2, -1)
    masks = {name: inputs[name] for name in MASKS}
    output = whole(pooler_outputs=joined, **masks)
    output.loss.backward()

    model, inputs = build(variant=variant, **dropout)
    parts = [partial(dict, part) for part in cut(inputs, 2, 2, 1)]  # fetched when they are needed
    cached = cached_backward(model, parts, seeds)
    torch.testing.assert_close(cached.loss, output.loss)
    check(model, whole)
    other, inputs = build(variant=variant, **dropout)
    assert cached_backward(other, cut(inputs, 2, 2, 1), (1, 2, 3)).loss != output.loss


@pytest.mark.slow
def test_random_decisions_are_replayed_in_generated_code():
    """Code for the pass without gradients and code for that with them draw the same numbers."""
    every = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    model = seeded(VattForPreTraining, small_config("agnostic", every=every)).train()
    inputs = small_inputs(model.config, 6, 2)
    model.compile()
    found = []
    for seed in (7, 8):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                found.append(_features(model, inputs, seed, nullcontext))
    for name in ("video", "audio", "text"):
        torch.testing.assert_close(found[0][name], found[1][name])
        torch.testing.assert_close(found[2][name], found[3][name])
        assert not torch.allclose(found[0][name], found[2][name])


@pytest.mark.parametrize("without", ["video_model", "audio_model"])
def test_a_tower_that_does_not_train(without):
    """Frozen, or without weight in the loss: it gets no gradient; the others get theirs."""
    models = []
    for _ in range(2):
        weight = {"video_audio_loss_weight": 0.0} if without == "audio_model" else {}
        model, inputs = build(**weight, **EVERY_TOKEN)
        model.vatt.video_model.requires_grad_(without == "audio_model")
        models.append(model)
    models[0](**inputs).loss.backward()
    cached_backward(models[1], cut(inputs, 3, 2), (0, 0))
    check(models[1], models[0], without=without)


def test_batch_norms_in_a_tower_are_refused():
    model, inputs = build(variant="mmv")
    with pytest.raises(ValueError, match="video tower normalises over the batch"):
        cached_backward(model, cut(inputs, 3, 2), (0, 0))


def test_projecting_pooled_features_is_what_the_model_does():
    model, inputs = build()
    model.eval()
    output = model(**inputs)
    pooled = {name: output[f"{name}_model_output"].pooler_output for name in ("video", "audio", "text")}
    pooled["text"] = pooled["text"].view(5, 2, -1)
    again = model(pooler_outputs=pooled, **{name: inputs[name] for name in MASKS})
    assert torch.equal(again.loss, output.loss)
    assert torch.equal(again.text_vt_embeds, output.text_vt_embeds)
