# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""torch.compile, torch.export and ONNX for every model class. What test_modeling.py shows for the towers and
the pretraining step is marked there and not repeated here."""

import pytest
import torch
from every_model import CLASSIFIERS, EMBEDDINGS, answer_of, inputs_of, loss_of, shallow
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


def exportable(model) -> nn.Module:
    return Logits(model) if isinstance(model, CLASSIFIERS) else Embeddings(model)


def free_batch(values: tuple[torch.Tensor, ...]) -> tuple[dict, ...]:
    batch = torch.export.Dim("batch", min=1)
    return tuple({0: batch} for _ in values)


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
@pytest.mark.parametrize("model_class", [VattForPreTraining, *CLASSIFIERS])
@pytest.mark.support("`torch.compile` with inductor")
def test_evaluation_compiles_with_inductor(model_class):
    """Generated code gives the same answers."""
    model = shallow(model_class)
    inputs = inputs_of(model)
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True)(**inputs)
        torch.testing.assert_close(answer_of(found), answer_of(model(**inputs)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [VattForPreTraining, *CLASSIFIERS])
@pytest.mark.support("`torch.export`, free batch size")
def test_export(model_class):
    model = shallow(model_class)
    module = exportable(model)
    values = tuple(inputs_of(model, batch=3).values())
    program = torch.export.export(module, values, dynamic_shapes=free_batch(values)).module()
    for batch in (1, 5):
        some = tuple(inputs_of(model, batch, seed=batch).values())
        torch.testing.assert_close(program(*some), module(*some), rtol=1e-4, atol=1e-5)


@torch.no_grad()  # with gradients torch picks another attention kernel, whose export has wrong strides
def check_onnx(module: nn.Module, model, names: list[str], path) -> None:
    """Export at one batch size, run in onnxruntime at others."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    def values_of(batch: int) -> tuple[torch.Tensor, ...]:
        inputs = inputs_of(model, batch, seed=batch)
        return tuple(inputs[name] for name in names)

    module.eval()
    values = values_of(2)
    program = torch.onnx.export(
        module, values, input_names=names, dynamic_shapes=free_batch(values), dynamo=True, verbose=False
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [inputs.name for inputs in session.get_inputs()] == names
    for batch in (1, 2, 5):
        some = values_of(batch)
        found = session.run(None, {name: value.numpy() for name, value in zip(names, some, strict=True)})
        expected = module(*some)
        for first, second in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
            torch.testing.assert_close(torch.from_numpy(first), second, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "modality"), [("specific", "video"), ("agnostic", "audio"), ("specific", "text")]
)
@pytest.mark.support("ONNX, free batch size", "VattModel")
def test_onnx_of_towers(variant, modality, tmp_path):
    model = shallow(VattModel, variant)
    check_onnx(OneTower(model, modality), model, [INPUT_NAMES[modality]], tmp_path / "tower.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [VattForPreTraining, *CLASSIFIERS])
@pytest.mark.support("ONNX, free batch size")
def test_onnx(model_class, tmp_path):
    """Embeddings of all modalities in one graph, or logits."""
    model = shallow(model_class)
    check_onnx(exportable(model), model, list(inputs_of(model)), tmp_path / "model.onnx")


def test_answers_are_what_is_exported():
    """The wrappers above return what the models return."""
    model = shallow(VattForPreTraining)
    inputs = inputs_of(model)
    torch.testing.assert_close(torch.cat(Embeddings(model)(*inputs.values()), -1), answer_of(model(**inputs)))
