# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer, unchanged, around the classifiers and the pretraining model."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import training_runs
from every_model import CLASSES, CLASSIFIERS, EVERY_TOKEN, build, inputs_of, loss_of
from small_models import seeded, small_config
from training_runs import best_kept
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from modeling_vatt import VattForPreTraining, VattModel
from modeling_vatt.data import collate_clips
from modeling_vatt.evaluation import TopKAccuracy, pretraining_metrics


LABELS = 2


def arguments(tmp_path, **overrides: Any) -> TrainingArguments:
    fields = {"optim": "adamw_torch", "optim_args": None, "learning_rate": 3e-3, **overrides}
    return training_runs.arguments(tmp_path, TrainingArguments, **fields)


def rows_of(inputs: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """A data set: one dict per clip."""
    batch = len(next(iter(inputs.values())))
    return [{name: values[row] for name, values in inputs.items()} for row in range(batch)]


def two_classes(model) -> list[dict[str, torch.Tensor]]:
    """Clips whose brightness or offset tells their class."""
    inputs = inputs_of(model, batch=12)
    labels = torch.arange(12) % LABELS
    (name, values), *_ = inputs.items()
    shift = (2.0 * labels - 1).view(-1, *(1,) * (values.ndim - 1))
    return rows_of({name: 0.1 * values + shift, "labels": labels})


def losses_of(trainer: Trainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("model_class", CLASSIFIERS)
@pytest.mark.support("`Trainer`")
def test_fine_tuning(model_class, tmp_path):
    """Loss falls, metrics are computed, the best checkpoint is loaded, and training stops early."""
    model = build(model_class, num_labels=LABELS)
    data, metric = two_classes(model), TopKAccuracy(top_k=(1,))
    trainer = Trainer(
        model,
        arguments(tmp_path, max_steps=40, **best_kept(5, "top1")),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda p: metric.compute(predictions=p.predictions, references=p.label_ids),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0] / 2
    assert trainer.state.global_step < 40  # perfect before that, so no better one came
    found = trainer.evaluate()
    assert found["eval_top1"] == 1.0
    assert math.isfinite(found["eval_loss"])
    assert trainer.predict(data).predictions.shape == (12, LABELS)


@pytest.mark.parametrize("model_class", [VattForPreTraining, *CLASSIFIERS])
@pytest.mark.support("`Trainer` with gradient accumulation")
def test_gradient_accumulation(model_class, tmp_path):
    """A step from two half batches is a step along the mean of their gradients."""
    model, same = build(model_class).train(), build(model_class).train()
    for some in (model, same):
        if model_class in CLASSIFIERS:
            some.dropout.p = 0.0
    data = inputs_of(model, batch=4, labels=True)
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    trainer = Trainer(
        model,
        arguments(
            tmp_path,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=1,
            max_grad_norm=0.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="sequential",
        ),
        train_dataset=rows_of(data),
        optimizers=(sgd, None),
    )
    trainer.train()
    halves = [loss_of(same, {k: v[rows] for k, v in data.items()}) for rows in (slice(0, 2), slice(2, 4))]
    (sum(halves) / 2).backward()
    expected = {name: p - 0.1 * p.grad for name, p in same.named_parameters() if p.grad is not None}
    trained = dict(model.named_parameters())
    for name, values in expected.items():
        torch.testing.assert_close(trained[name], values, rtol=1e-4, atol=1e-5, msg=name)
    assert losses_of(trainer)[0] == pytest.approx(sum(half.item() for half in halves) / 2, rel=1e-4)


NO_LOSS = {"no": "no loss: `VattForPreTraining` has it"}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.support("`Trainer`", "VattModel", **NO_LOSS)
@pytest.mark.support("`Trainer` with gradient accumulation", "VattModel", **NO_LOSS)
def test_base_model_has_no_loss(tmp_path, steps):
    model = build(VattModel)
    args = arguments(tmp_path, max_steps=1, gradient_accumulation_steps=steps)
    with pytest.raises(ValueError, match="did not return a loss"):
        Trainer(model, args, train_dataset=rows_of(inputs_of(model))).train()


def clips(model) -> list[dict[str, torch.Tensor]]:
    """What the processor makes of ten clips, one of them silent and one without caption."""
    inputs = inputs_of(model, batch=10)
    inputs["audio_mask"] = torch.tensor([1, 0] + [1] * 8)
    inputs["text_mask"] = torch.tensor([1] * 9 + [0])
    return [{name: values[row : row + 1] for name, values in inputs.items()} for row in range(10)]


def pretraining(tmp_path, compute_metrics=pretraining_metrics, **overrides: Any) -> Trainer:
    model = build(VattForPreTraining)
    data = clips(model)
    return Trainer(
        model,
        arguments(tmp_path, **overrides),
        data_collator=lambda items: collate_clips(items).inputs,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=compute_metrics,
    )


@pytest.mark.support("`Trainer`", "VattForPreTraining")
def test_pretraining(tmp_path):
    """The loss falls; evaluation returns loss and retrieval over the whole set, of clips that have the
    modality; early stopping watches the loss."""
    trainer = pretraining(
        tmp_path, max_steps=12, label_names=["audio_mask", "text_mask"], **best_kept(4, "loss")
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=5))
    trainer.train()
    losses = losses_of(trainer)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    evaluated = losses_of(trainer, "eval_loss")
    assert len(evaluated) == 3
    assert trainer.state.best_metric == min(evaluated)
    found = trainer.evaluate()
    assert found["eval_loss"] == pytest.approx(min(evaluated))
    assert found["eval_gallery_size"] == 10
    assert 0 <= found["eval_txt2vid_R1"] <= found["eval_txt2vid_R10"] == 1.0
    loaded = VattForPreTraining.from_pretrained(trainer.state.best_model_checkpoint)
    saved = trainer.model.state_dict()
    assert all(torch.equal(values, saved[name]) for name, values in loaded.state_dict().items())


def test_evaluation_of_pretraining_without_settings(tmp_path):
    """Trainer's defaults: the loss is the clip-weighted mean over batches, predictions are the embeddings."""
    trainer = pretraining(tmp_path)
    found = trainer.evaluate()
    model, batches = trainer.model.eval(), list(trainer.get_eval_dataloader())
    sizes = [len(batch["input_ids"]) for batch in batches]
    assert sizes == [4, 4, 2]
    with torch.no_grad():
        outputs = [model(**batch) for batch in batches]
    expected = sum(size * o.loss.item() for size, o in zip(sizes, outputs, strict=True)) / 10
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["eval_aud2vid_R10"] == 1.0
    predictions = trainer.predict(clips(model)).predictions
    names = ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds")
    for name, values in zip(names, predictions, strict=True):
        together = torch.cat([output[name] for output in outputs])
        np.testing.assert_allclose(values, together, rtol=1e-5, atol=1e-6)


def test_hidden_states_are_not_gathered_with_the_logits_of_classifiers():
    """Keys left out of predictions are those of the pretraining output; a classifier keeps its logits."""
    config = small_config(num_labels=CLASSES, **EVERY_TOKEN)
    assert "logits" not in config.keys_to_ignore_at_inference
    output = seeded(VattForPreTraining, config).eval()
    fields = output(**inputs_of(output)).keys()
    assert set(config.keys_to_ignore_at_inference) - set(fields) == {"audio_text_loss"}
