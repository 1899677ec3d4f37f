# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Recomputing activations changes memory, not gradients."""

import pytest
import torch
from small_models import seeded, small_config, small_inputs
from torch.utils.flop_counter import FlopCounterMode

from modeling_vatt import VattForPreTraining
from modeling_vatt.training import recompute_activations


def step(what: str, variant: str) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients, and bytes that were kept for the backward pass."""
    config = small_config(variant, every={"hidden_dropout_prob": 0.2})
    model = seeded(VattForPreTraining, config).train()
    recompute_activations(model, what)
    torch.manual_seed(0)
    kept = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = small_inputs(config, 16, 2)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = model(**inputs).loss
    loss.backward()
    grads = {name: values.grad for name, values in model.named_parameters() if values.grad is not None}
    return grads, sum(kept.values())


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
def test_gradients_stay_and_memory_shrinks(variant):
    expected, everything = step("no", variant)
    for what in ("full", "selective"):
        grads, kept = step(what, variant)
        assert kept < everything
        assert grads.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(grads[name], value, rtol=1e-4, atol=1e-6)


def test_products_are_not_computed_again():
    """Selective recomputation multiplies as often as none; full recomputation more often."""
    flops = {}
    for what in ("no", "full", "selective"):
        with FlopCounterMode(display=False) as counter:
            step(what, "specific")
        flops[what] = counter.get_total_flops()
    assert flops["selective"] == flops["no"] < flops["full"]


def test_other_values_are_named():
    with pytest.raises(ValueError, match="some"):
        recompute_activations(seeded(VattForPreTraining, small_config()), "some")
