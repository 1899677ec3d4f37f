# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Dense layers and dropout on the fastest path of the machine, which is chosen only here.

On x86 processors not made by Intel, PyTorch's float32 products (MKL) are up to 2.1 times slower than those of
oneDNN, which every build of PyTorch has, and its dropout draws one Bernoulli number after the other. The
layers here avoid both. Everywhere else (other devices and types, autocast, quantised and sharded weights,
export, function transforms) they are ordinary `nn.Linear` and `nn.Dropout`. On a GPU several layers with one
input become one product ([`project`]).
"""

import functools
import os
import platform
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _python_dispatch


# From these sizes on the fast paths are faster (measured).
_SMALLEST_PRODUCT = 2**24  # multiplications
_SMALLEST_DROPOUT = 2**14  # elements
# From so many rows on, a GPU computes one product for several layers (measured with 50,000).
_FEWEST_ROWS_TO_PACK = 4096
# Under autocast the CPU does from so many rows per input value on: converting rows and adding gradients then
# costs more than joining weights.
_FEWEST_ROWS_OF_WIDTH = 4
_PATHS = ("products", "dropout")
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 lacks it


def _suitable() -> tuple[str, ...]:
    """The paths that are on by default, on x86 not made by Intel: dropout, and products if the processor has
    AVX-512, which MKL does not use there (with AVX2 oneDNN is slower: measured on Zen 3)."""
    asked = os.environ.get("VATT_FAST_CPU", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"The environment variable VATT_FAST_CPU is {asked!r}: set it to 0 or 1, or not.")
    if asked == "0" or not torch.backends.mkldnn.is_available():
        return ()
    if asked == "1":
        return _PATHS
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkl.is_available():
        return ()
    vendor = platform.processor()  # names it on Windows
    if platform.system() == "Linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            vendor = next((line for line in file if line.startswith("vendor_id")), "")
    if "AuthenticAMD" not in vendor and "HygonGenuine" not in vendor:
        return ()
    return _PATHS if torch.backends.cpu.get_cpu_capability() == "AVX512" else ("dropout",)


_state = {"on": _suitable()}


def fast_cpu() -> tuple[str, ...]:
    """Which fast float32 paths of the CPU are on, of "products" and "dropout"; see [`set_fast_cpu`]."""
    return _state["on"]


def set_fast_cpu(enabled: bool | None) -> None:
    """Switch the fast float32 paths of the CPU on or off.

    Results differ by rounding, and by the draws of dropout.

    Args:
        enabled: None for the default: what the environment variable `VATT_FAST_CPU` (0 or 1) says, else on
            for x86 processors not made by Intel, products only if they have AVX-512.
    """
    if enabled is None:
        _state["on"] = _suitable()
    else:
        _state["on"] = _PATHS if enabled and torch.backends.mkldnn.is_available() else ()


@functools.cache
def computes_bfloat16() -> bool:
    """Whether the processor has bfloat16 products; False where torch does not tell (before 2.7)."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _is_plain(*tensors: torch.Tensor | None) -> bool:
    """Whether this is a plain float32 computation on the CPU: no tensor subclass (quantised, sharded, fake),
    no autocast, no modes or transforms."""
    for tensor in tensors:
        if tensor is not None and not (
            type(tensor) in (torch.Tensor, nn.Parameter)
            and tensor.device.type == "cpu"
            and tensor.dtype == torch.float32
        ):
            return False
    if torch.compiler.is_compiling():
        return not _is_exporting()
    return not (torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.enabled or _is_watched())


def _is_watched() -> bool:
    """Whether dispatch modes or function transforms are active."""
    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or _python_dispatch.is_in_torch_dispatch_mode()
    )


def product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """left @ right.T + bias of matrices on the fastest path, without gradients."""
    if (
        "products" in fast_cpu()
        and _is_plain(left, right, bias)
        and left.numel() * right.shape[0] >= _SMALLEST_PRODUCT
    ):
        return _product(left, right, bias)
    return nn.functional.linear(left, right, bias)


def _product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """left @ right.T + bias of matrices, by oneDNN."""
    if torch.compiler.is_compiling():
        return _opaque_product(left, right, bias)
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


# For Inductor, which uses oneDNN's operator only with frozen weights. Named after the module, of which a
# checkpoint may have a copy.
@torch.library.custom_op(f"{re.sub(r'[^A-Za-z0-9]', '_', __name__)}::product", mutates_args=())
def _opaque_product(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")


@_opaque_product.register_fake
def _product_shape(left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return left.new_empty(left.shape[0], right.shape[0])


class _Dense(torch.autograd.Function):
    """A dense layer with oneDNN's products, backward too."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        ctx.save_for_backward(inputs, weight)  # not a view of it: second derivatives need the argument
        return _product(rows, weight, bias).view(*inputs.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        by_row = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_input = of_weight = of_bias = None
        twice = torch.is_grad_enabled()  # second derivatives need PyTorch's own operations
        if wanted[0]:
            of_input = by_row @ weight if twice else _product(by_row, weight.t(), None)
            of_input = of_input.view(*gradient.shape[:-1], weight.shape[1])
        if wanted[1]:
            of_weight = by_row.t() @ rows if twice else _product(by_row.t(), rows.t(), None)
        if wanted[2]:
            of_bias = by_row.sum(0)
        return of_input, of_weight, of_bias


class VattLinear(nn.Linear):
    """`nn.Linear` that takes the fast path of the processor."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight, self.bias
        if (
            "products" in fast_cpu()
            and _is_plain(inputs, weight, bias)
            and weight.is_contiguous()
            and inputs.numel() * self.out_features >= _SMALLEST_PRODUCT  # last: no export depends on it
        ):
            return _Dense.apply(inputs, weight, bias)
        return super().forward(inputs)


def _is_bare(layer: Any) -> bool:
    """Whether the layer only computes the product: no adapter, hook or other kind of weight."""
    return (
        type(layer) is VattLinear
        and type(layer.weight) in (torch.Tensor, nn.Parameter)
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
        and "forward" not in layer.__dict__  # Accelerate's hooks
    )


def _is_worth_packing(inputs: torch.Tensor) -> bool:
    """Whether several products of the same input are slower than one."""
    width = inputs.shape[-1]
    if inputs.is_cuda:
        return inputs.numel() >= _FEWEST_ROWS_TO_PACK * width
    converts = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _is_watched()
    return converts and inputs.numel() >= _FEWEST_ROWS_OF_WIDTH * width**2


def project(inputs: torch.Tensor, *layers: Any) -> Sequence[torch.Tensor]:
    """Outputs of several dense layers for the same input; all have a bias or none has.

    Large inputs take one product on a GPU, and on the CPU where autocast would convert them for each layer;
    generated code gains nothing from it. Results differ by rounding.
    """
    if torch.compiler.is_compiling() or not all(map(_is_bare, layers)) or not _is_worth_packing(inputs):
        return [layer(inputs) for layer in layers]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    weight = torch.cat([layer.weight for layer in layers])
    outputs = nn.functional.linear(inputs, weight, torch.cat(biases) if biases else None)
    return outputs.split([layer.out_features for layer in layers], dim=-1)


def attends_slowly(query: torch.Tensor) -> bool:
    """Whether attention is trained in half precision on the CPU, where SDPA's backward pass is several times
    slower than in float32; not in generated code."""
    return (
        query.device.type == "cpu"
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.requires_grad
        and torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def attends_short(query: torch.Tensor) -> bool:
    """Whether [`attend`] is faster than SDPA in float32 in that case, without more memory: for short
    sequences on a processor with bfloat16 products."""
    length, width = query.shape[-2:]
    return query.dtype == torch.bfloat16 and length <= 5 * width and computes_bfloat16() and not _is_watched()


class _Attention(torch.autograd.Function):
    """Attention with float32 scores and bfloat16 products, backward too."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        shape = query.shape
        query, key, value = (part.reshape(-1, *part.shape[2:]) for part in (query, key, value))
        scores = torch.bmm(query.float().mul_(scaling), key.float().mT)
        if mask is not None:
            by_head = scores.view(*shape[:3], -1)
            if mask.dtype == torch.bool:
                by_head.masked_fill_(~mask, torch.finfo(scores.dtype).min)
            else:
                by_head.add_(mask)
        weights = scores.softmax(-1).bfloat16()
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling = scaling
        return torch.bmm(weights, value).view(shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights = ctx.saved_tensors
        shape, rows = gradient.shape, gradient.reshape(query.shape)
        of_value = torch.bmm(weights.mT, rows)
        of_weights = torch.bmm(rows, value.mT)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
        of_query, of_key = torch.bmm(of_scores, key), torch.bmm(of_scores.mT, query)
        return of_query.view(shape), of_key.view(shape), of_value.view(shape), None, None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Attention of bfloat16 (batch, heads, length, head_dim), (batch, length, heads, head_dim) out; masks as
    of SDPA."""
    return _Attention.apply(query, key, value, mask, scaling).transpose(1, 2)


def drops_fast(inputs: torch.Tensor) -> bool:
    """Whether [`drop_out`] takes its fast path; generated code needs none."""
    if "dropout" not in fast_cpu() or torch.compiler.is_compiling():
        return False
    return inputs.numel() >= _SMALLEST_DROPOUT and _is_plain(inputs)


def drop_out(inputs: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """`nn.functional.dropout`; on the fast path one 64-bit draw serves four elements. 16 bits an element meet
    the rate to 2^-17, and kept values are scaled by the rate that was met."""
    threshold = round(rate * 2**16)
    if not training or not 0 < threshold < 2**16 or not drops_fast(inputs):
        return nn.functional.dropout(inputs, rate, training)
    draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape) >= threshold - 2**15
    return inputs * kept.to(inputs.dtype).mul_(2**16 / (2**16 - threshold))


class VattDropout(nn.Dropout):
    """`nn.Dropout` that takes the fast path of the processor; see [`drop_out`]."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return drop_out(inputs, self.p, self.training)
