# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""torch.compile, torch.export and ONNX for every model class. The pretraining step: test_loss_types.py."""

from collections.abc import Callable

import pytest
import torch
from every_model import CLASSIFIERS, EMBEDDINGS, MODELS, answer_of, inputs_of, loss_of, shallow
from small_models import OneTower, needs_compiler
from torch import nn

from modeling_vatt import VattForPreTraining, VattModel
from modeling_vatt.models.modeling_vatt import INPUT_NAMES


class Embeddings(nn.Module):
    """All embeddings of a pretraining model."""

    def __init__(self, model: VattForPreTraining) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: torch.Tensor, audio: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
        output = self.model(video, audio, text, return_loss=False, return_logits=False)
        return [output[name] for name in EMBEDDINGS]


class Logits(nn.Module):
    """The logits of a classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.model(values).logits


TOWERS = [("specific", "video"), ("agnostic", "audio"), ("specific", "text")]
WHOLE = [pytest.param(model, "specific", None, marks=pytest.mark.slow) for model in MODELS[1:]]
every_export = pytest.mark.parametrize(
    ("model_class", "variant", "modality"), [*((VattModel, *tower) for tower in TOWERS), *WHOLE]
)


def exportable(model_class: type, variant: str, modality: str | None) -> tuple[nn.Module, Callable]:
    """What a user exports, tensors to tensors: a tower of `VattModel`, all embeddings of a pretraining
    model, the logits of a classifier; and its inputs for a batch size."""
    model = shallow(model_class, variant)
    names = list(inputs_of(model)) if modality is None else [INPUT_NAMES[modality]]
    if modality is not None:
        module = OneTower(model, modality)
    else:
        module = Logits(model) if model_class in CLASSIFIERS else Embeddings(model)

    def inputs(batch: int) -> dict[str, torch.Tensor]:
        some = inputs_of(model, batch, seed=batch)
        return {name: some[name] for name in names}

    return module.eval(), inputs


def free_batch(values: tuple[torch.Tensor, ...]) -> tuple[dict, ...]:
    batch = torch.export.Dim("batch", min=1)
    return tuple({0: batch} for _ in values)


@pytest.mark.parametrize(("variant", "modality"), TOWERS)
@pytest.mark.support("`torch.compile(fullgraph=True)`", "VattModel")
def test_towers_compile(variant, modality):
    """One graph without breaks per tower in evaluation (tracing; no code generation)."""
    module, inputs = exportable(VattModel, variant, modality)
    torch._dynamo.reset()
    found = torch.compile(module, fullgraph=True, backend="eager")(*inputs(3).values())
    torch.testing.assert_close(found, module(*inputs(3).values()))


@pytest.mark.slow
@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.support("`torch.compile(fullgraph=True)`")
def test_fine_tuning_step_compiles(model_class):
    """Forward with loss and backward are one graph: same loss and gradients."""
    model = shallow(model_class).train()
    model.dropout.p = 0.0
    inputs = inputs_of(model, labels=True)
    torch._dynamo.reset()
    results = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        loss = loss_of(run, inputs)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@needs_compiler
@every_export
@pytest.mark.support("`torch.compile` with inductor")
@torch.no_grad()
def test_evaluation_compiles_with_inductor(model_class, variant, modality):
    """Generated code gives the same answers."""
    module, inputs = exportable(model_class, variant, modality)
    torch._dynamo.reset()
    found = torch.compile(module, fullgraph=True)(*inputs(3).values())
    torch.testing.assert_close(found, module(*inputs(3).values()), rtol=1e-4, atol=1e-5)


@every_export
@pytest.mark.support("`torch.export`, free batch size")
def test_export(model_class, variant, modality):
    module, inputs = exportable(model_class, variant, modality)
    values = tuple(inputs(3).values())
    program = torch.export.export(module, values, dynamic_shapes=free_batch(values)).module()
    for batch in (1, 5):
        some = inputs(batch).values()
        torch.testing.assert_close(program(*some), module(*some), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every_export
@pytest.mark.support("ONNX, free batch size")
@torch.no_grad()  # with gradients torch picks another attention kernel, whose export has wrong strides
def test_onnx(model_class, variant, modality, tmp_path):
    """Export at one batch size, run in onnxruntime at others."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    module, inputs = exportable(model_class, variant, modality)
    values, names = tuple(inputs(2).values()), list(inputs(2))
    program = torch.onnx.export(
        module, values, input_names=names, dynamic_shapes=free_batch(values), dynamo=True, verbose=False
    )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [inputs.name for inputs in session.get_inputs()] == names
    for batch in (1, 2, 5):
        some = inputs(batch)
        found = session.run(None, {name: value.numpy() for name, value in some.items()})
        expected = module(*some.values())
        for first, second in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
            torch.testing.assert_close(torch.from_numpy(first), second, rtol=1e-4, atol=1e-5)


def test_answers_are_what_is_exported():
    """The wrappers above return what the models return."""
    model = shallow(VattForPreTraining)
    inputs = inputs_of(model)
    torch.testing.assert_close(torch.cat(Embeddings(model)(*inputs.values()), -1), answer_of(model(**inputs)))
