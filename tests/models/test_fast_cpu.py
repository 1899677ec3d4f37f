# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense layers and dropout on the fast path of the CPU, switched on here whatever the processor: the same
values and gradients as PyTorch's, and PyTorch's own path where more than a float32 product is asked for."""

import copy
import io

import pytest
import torch
from small_models import seeded, small_config, small_inputs
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from modeling_vatt import VattForPreTraining
from modeling_vatt import fast_cpu as layers
from modeling_vatt.fast_cpu import (
    VattDropout,
    VattLinear,
    attend,
    attends_short,
    attends_slowly,
    drop_out,
    project,
    set_fast_cpu,
)
from modeling_vatt.models.encoder import VattAttention


needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
pytestmark = needs_onednn


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """All sizes, and calls of the products counted."""
    monkeypatch.setattr(layers, "_SMALLEST_PRODUCT", 1)
    monkeypatch.setattr(layers, "_SMALLEST_DROPOUT", 1)
    calls = []
    original = layers._product
    monkeypatch.setattr(layers, "_product", lambda *args: (calls.append(args), original(*args))[1])
    set_fast_cpu(True)
    yield calls
    set_fast_cpu(None)


def layer_and_input(*shape: int, bias: bool = True) -> tuple[VattLinear, torch.Tensor]:
    torch.manual_seed(0)
    return VattLinear(shape[-1], 9, bias=bias), torch.randn(shape, requires_grad=True)


def values_and_gradients(layer, inputs, function=None):
    """Of a loss whose gradient differs everywhere."""
    output = layer(inputs) if function is None else function(inputs, layer.weight, layer.bias)
    wanted = [t for t in (inputs, layer.weight, layer.bias) if t is not None and t.requires_grad]
    loss = (output * torch.arange(output.numel()).view_as(output).cos()).sum()
    return [output, *torch.autograd.grad(loss, wanted)]


def check(layer, inputs, count: int, calls) -> None:
    calls.clear()
    found = values_and_gradients(layer, inputs)
    assert len(calls) == count
    for ours, expected in zip(found, values_and_gradients(layer, inputs, nn.functional.linear), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7), (2, 3, 5, 7), (1, 1, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients(shape, bias, fast):
    check(*layer_and_input(*shape, bias=bias), 3, fast)


def test_frozen_parts(fast):
    layer, inputs = layer_and_input(5, 7)
    layer.weight.requires_grad_(False)
    check(layer, inputs, 2, fast)
    layer.bias.requires_grad_(False)
    check(layer, inputs, 2, fast)
    layer.weight.requires_grad_(True)
    check(layer, inputs.detach(), 2, fast)


def test_inputs_and_gradients_in_any_layout(fast):
    layer, _ = layer_and_input(7)
    for inputs in (
        torch.randn(7, 5).t(),
        torch.randn(3, 9, 7)[:, ::2],
        torch.randn(5, 14)[:, ::2],
        torch.randn(7).expand(4, 7),
    ):
        check(layer, inputs.requires_grad_(), 3, fast)
    inputs = torch.randn(5, 7, requires_grad=True)
    layer(inputs).sum().backward()  # an expanded gradient
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(5, 7))


def test_gradients_of_gradients(fast):
    layer, inputs = layer_and_input(4, 7)
    results = []
    for run in (layer, lambda x: nn.functional.linear(x, layer.weight, layer.bias)):
        first = torch.autograd.grad(run(inputs).pow(3).sum(), (inputs, layer.weight), create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in first)
        results.append(torch.autograd.grad(penalty, (inputs, layer.weight, layer.bias)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_plain_path_wherever_more_is_asked_for(fast):
    layer, inputs = layer_and_input(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.bfloat16
    assert copy.deepcopy(layer).double()(inputs.double()).dtype == torch.float64
    assert layer(inputs[:0]).shape == (0, 9)
    with torch.device("meta"):
        assert VattLinear(7, 9)(torch.randn(5, 7)).device.type == "meta"
    per_row = torch.func.vmap(torch.func.grad(lambda row: layer(row).sum()))(inputs)
    torch.testing.assert_close(per_row, layer.weight.sum(0).expand(5, 7))
    _, tangent = torch.func.jvp(layer, (inputs,), (torch.ones(5, 7),))
    torch.testing.assert_close(tangent, layer.weight.sum(1).expand(5, 9))
    with FlopCounterMode(display=False) as counter:
        layer(inputs)
    assert counter.get_total_flops() == 2 * 5 * 7 * 9
    with torch.backends.mkldnn.flags(enabled=False):
        layer(inputs)
    set_fast_cpu(False)
    layer(inputs)
    assert fast == []


def test_copies_and_checkpointing(fast):
    layer, inputs = layer_and_input(5, 7)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    for other in (copy.deepcopy(layer), torch.load(saved, weights_only=False)):
        assert torch.equal(other(inputs), layer(inputs))
    expected = values_and_gradients(layer, inputs)
    for reentrant in (True, False):
        inputs.grad = layer.weight.grad = None
        output = checkpoint(layer, inputs, use_reentrant=reentrant)
        (output * torch.arange(output.numel()).view_as(output).cos()).sum().backward()
        assert torch.equal(inputs.grad, expected[1])
        assert torch.equal(layer.weight.grad, expected[2])


def test_compiled_and_exported(fast):
    """One graph, with our products in it; an exported program has none of ours."""
    layer, inputs = layer_and_input(5, 7)
    expected = values_and_gradients(layer, inputs)
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    set_fast_cpu(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "_product", layers._opaque_product)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for ours, same in zip(values_and_gradients(compiled, inputs), expected, strict=True):
            torch.testing.assert_close(ours, same)
        torch.compile(layer, fullgraph=True, backend=backend)(inputs)
        assert "autograd_function_apply" in str(graphs[0].graph)
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(layer, (inputs.detach(),), dynamic_shapes=({0: batch},))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert names == {"aten.linear.default"}


def test_attention_trains_in_float32_under_autocast(monkeypatch):
    """SDPA gets float32 where there is a backward pass; values and gradients are those of float32 up to the
    products in bfloat16."""
    kinds, original = [], nn.functional.scaled_dot_product_attention

    def attention(query, *args, **kwargs):
        kinds.append(query.dtype)
        return original(query, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(layers, "computes_bfloat16", lambda: False)
    config = small_config().video_config
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    layer = VattAttention(config, use_bias=True, scaling=config.head_dim**-0.5).train()
    inputs = torch.randn(2, 5, config.hidden_size, requires_grad=True)

    def found() -> list[torch.Tensor]:
        output = layer(inputs)[0]
        return [output.float(), *torch.autograd.grad(output.float().square().sum(), inputs)]

    plain = found()
    with torch.autocast("cpu", torch.bfloat16):
        half = found()
        with torch.no_grad():
            layer(inputs)
    assert kinds == [torch.float32, torch.float32, torch.bfloat16]
    for ours, expected in zip(half, plain, strict=True):
        largest = expected.detach().abs().max().item()
        torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.02 * largest)


@pytest.mark.parametrize("mask", [None, "bool", "additive"])
def test_short_sequences_attend_in_bfloat16(mask, monkeypatch):
    """With scores in float32, where the processor multiplies in bfloat16; as exact as the products are."""
    monkeypatch.setattr(layers, "computes_bfloat16", lambda: True)
    torch.manual_seed(0)
    parts = [torch.randn(2, 5, 3, 8).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)]
    exact = [part.detach().double().requires_grad_() for part in parts]
    given = None if mask is None else torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]).bool()[:, None, None]
    plain = nn.functional.scaled_dot_product_attention(*exact, attn_mask=given, scale=0.3).transpose(1, 2)
    if mask == "additive":
        given = torch.where(given, 0.0, -1e9)
    with torch.autocast("cpu", torch.bfloat16):
        assert attends_slowly(parts[0]) and attends_short(parts[0])
        assert not attends_short(torch.randn(1, 1, 41, 8).bfloat16())
    ours = attend(*parts, given, 0.3)
    weights = torch.randn(ours.shape).bfloat16()
    results = [
        [value, *torch.autograd.grad((value * weights).sum(), of)]
        for value, of in ((ours, parts), (plain, exact))
    ]
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert (found.double() - expected).norm() <= 0.01 * expected.norm()


def test_one_product_of_query_key_and_value_under_autocast(monkeypatch):
    """The same values and gradients as three up to rounding; adapters and hooks keep theirs."""
    torch.manual_seed(0)
    several = [VattLinear(8, size) for size in (4, 4, 6)]
    inputs = torch.randn(2, 20, 8, requires_grad=True)
    trained = [inputs, *(p for layer in several for p in layer.parameters())]

    def found() -> list[torch.Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = project(inputs, *several)
        loss = sum((output.float() * (place + 1)).sin().sum() for place, output in enumerate(outputs))
        return [*outputs, *torch.autograd.grad(loss, trained)]

    together = found()
    shared = together[0]._base
    assert shared is not None and shared.shape[-1] == 14
    monkeypatch.setattr(layers, "_FEWEST_ROWS_OF_WIDTH", 6)
    for ours, expected in zip(together, found(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0.02, atol=0.02)
    assert all(output._base is None or output._base.shape[-1] != 14 for output in found()[:3])


def test_dropout_statistics():
    torch.manual_seed(0)
    inputs = torch.full((1000, 999), 2.0, requires_grad=True)  # an odd number of elements
    for rate in (0.1, 0.5, 0.9):
        output = drop_out(inputs, rate, True)
        kept = output != 0
        assert abs(kept.float().mean().item() - (1 - rate)) < 0.002
        assert abs(output.mean().item() - 2) < 0.02
        scale = output[kept].unique()
        torch.testing.assert_close(scale, torch.tensor([2 / (1 - rate)]), rtol=1e-3, atol=0.0)
        (gradient,) = torch.autograd.grad(output.sum(), inputs)
        torch.testing.assert_close(gradient, output / 2)
        # Neighbours, which share a draw, are independent.
        flat = kept.flatten().float()
        for step in (1, 2, 3, 4):
            both = (flat[:-step] * flat[step:]).mean().item()
            assert abs(both - (1 - rate) ** 2) < 0.003


def test_dropout_follows_the_seed_and_the_mode():
    layer, inputs = VattDropout(0.3), torch.randn(64, 64)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(layer(inputs))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(layer.eval()(inputs), inputs)
    for rate, expected in ((0.0, inputs), (1.0, torch.zeros_like(inputs))):
        assert torch.equal(drop_out(inputs, rate, True), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert drop_out(inputs.bfloat16(), 0.5, True).dtype == torch.bfloat16


@pytest.mark.parametrize("variant", ["specific", "agnostic", "bert_text"])
def test_training_step_equals_the_plain_one(variant, fast):
    """Masks and position bias included; the dropout in attention is too small to drop anything, but takes
    SDPA's replacement."""
    every_token = {"drop_token_rate": 0.0}
    rate = {"attention_probs_dropout_prob": 2e-5}
    config = small_config(variant, every=rate, video=every_token, audio=every_token)
    model = seeded(VattForPreTraining, config).train()
    inputs = small_inputs(config, 3, 2)
    inputs["attention_mask"] = inputs["input_ids"].ne(0).long()
    results = []
    for on in (True, False):
        set_fast_cpu(on)
        torch.manual_seed(3)
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(fast) > 30
    for ours, plain in zip(*results, strict=True):
        # As a whole: single gradients may be small differences of large numbers.
        assert (ours - plain).norm() <= 5e-3 * plain.norm() + 2e-3


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", ("products", "dropout")),
        ("AuthenticAMD", "AVX2", ("dropout",)),
        ("HygonGenuine", "AVX2", ("dropout",)),
        ("GenuineIntel", "AVX512", ()),
    ],
)
def test_choice_by_processor(vendor, capability, expected, monkeypatch):
    with monkeypatch.context() as patch:  # over before the default is chosen again
        patch.delenv("VATT_FAST_CPU", raising=False)
        patch.setattr("platform.machine", lambda: "AMD64")
        patch.setattr("platform.system", lambda: "Windows")
        patch.setattr("platform.processor", lambda: f"AMD64 Family 1 Model 2 Stepping 3, {vendor}")
        patch.setattr(torch.backends.mkl, "is_available", lambda: True)
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        set_fast_cpu(None)
        assert layers.fast_cpu() == expected


def test_environment_variable(monkeypatch):
    for value, expected in (("0", ()), ("1", ("products", "dropout"))):
        monkeypatch.setenv("VATT_FAST_CPU", value)
        set_fast_cpu(None)
        assert layers.fast_cpu() == expected
    monkeypatch.setenv("VATT_FAST_CPU", "yes")
    with pytest.raises(ValueError, match="set it to 0 or 1"):
        set_fast_cpu(None)
    monkeypatch.delenv("VATT_FAST_CPU")
