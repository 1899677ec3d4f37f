# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: the paper's recipes, the steps that VattTrainer makes, runs that are stopped and resumed."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_folders import small_processor, write_rows
from media_factory import write_media
from sklearn.metrics import average_precision_score
from small_models import small_config
from training_runs import StopAfter, arguments, classifier, tones, weights

from modeling_vatt.data import LabelledDataset, load_labelled
from modeling_vatt.evaluation import classification_metrics
from modeling_vatt.processors import VattAugmentation
from modeling_vatt.training import (
    RECIPES,
    FinetuningArguments,
    VattTrainer,
    collate_labelled,
    finetuning_config,
    finetuning_learning_rate,
    last_checkpoint,
    mixup,
)


RANDOM = {"classifier_dropout": 0.3, "drop_token_rate": 0.5}


# --- recipes ---


def test_recipes_are_those_of_the_paper():
    """Paper A.2 and 4.2; the numbers are written down here from there again."""
    assert {name: recipe.media for name, recipe in RECIPES.items()} == {
        "kinetics400": "video",
        "kinetics600": "video",
        "kinetics700": "video",
        "moments_in_time": "video",
        "audioset": "audio",
        "imagenet": "image",
    }
    schedule = ("batch_size", "learning_rate", "warmup_steps", "max_steps")
    fields = (*schedule, "label_smoothing_factor", "mixup_alpha")
    assert {name: [getattr(RECIPES[name], field) for field in fields] for name in RECIPES} == {
        "kinetics400": [64, 0.005, 2500, 100_000, 0.1, 0],
        "kinetics600": [64, 0.005, 2500, 100_000, 0.1, 0],
        "kinetics700": [64, 0.005, 2500, 100_000, 0.1, 0],
        "moments_in_time": [64, 0.005, 2500, 150_000, 0.1, 0],
        "audioset": [1024, 0.2, 5000, 50_000, 0, 5],
        "imagenet": [512, 0.08, 2500, -1, 0.1, 0],
    }
    assert RECIPES["imagenet"].num_train_epochs == 50
    sizes = [(recipe.image_size, recipe.sampling_rate) for recipe in RECIPES.values()]
    assert sizes == 4 * [(320, None)] + [(None, 24_000), (384, None)]
    views = [(recipe.eval_windows, recipe.eval_crops) for recipe in RECIPES.values()]
    assert views == 4 * [(4, 3)] + [(4, 1), (1, 1)]
    for recipe in RECIPES.values():
        assert recipe.drop_token_rate == 0
        assert (recipe.max_grad_norm, recipe.classifier_max_grad_norm) == (0.75, 0)
        assert recipe.label_balancing == (recipe.media == "audio")


def test_optimizer_and_schedule_of_a_recipe(sounds, tmp_path):
    """SGD with momentum 0.9, and the release's warm-up and half cosine, step for step."""
    data = tones(sounds, several=True)
    options = RECIPES["audioset"].options(num_processes=64)
    assert options["per_device_train_batch_size"] == 16
    known = FinetuningArguments.__dataclass_fields__
    options = {name: value for name, value in options.items() if name in known}
    args = arguments(tmp_path, **{**options, "max_steps": 9, "warmup_steps": 3})
    trainer = VattTrainer(classifier(data, label_balancing=True), args, train_dataset=data)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([finetuning_learning_rate(step, 9, 3, 0.2) for step in range(9)])
    optimizer = trainer.optimizer.optimizer
    assert type(optimizer) is torch.optim.SGD
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, False, 0)


def test_drop_token_in_a_convolutional_tower_is_refused():
    with pytest.raises(ValueError, match="convolutional tower has no tokens"):
        finetuning_config(small_config("mmv"), ["a", "b"], "video", drop_token_rate=0.5)


def test_config_of_a_classifier():
    config = finetuning_config(
        small_config("agnostic"),
        ["a", "b"],
        "audio",
        True,
        0.25,
        0.5,
        freeze_backbone=True,
        label_balancing=True,
    )
    assert config.num_labels == 2 and config.label2id == {"a": 0, "b": 1}
    assert config.problem_type == "multi_label_classification" and config.label_balancing
    tower = config.audio_config
    assert (tower.drop_token_rate, tower.classifier_dropout, tower.freeze_backbone) == (0.25, 0.5, True)
    assert config.video_config.freeze_backbone is False
    with pytest.raises(ValueError, match="two classes or more"):
        finetuning_config(small_config(), ["a"], "video")
    with pytest.raises(ValueError, match="several labels"):
        finetuning_config(small_config(), ["a", "b"], "video", label_balancing=True)


# --- what a step is made of ---


def test_mixup():
    """Clip and target are mixed in the same shares, which are those of Beta(5, 5), one per clip."""
    inputs = torch.arange(4000.0).view(-1, 1).expand(-1, 3)
    mixed, targets = mixup(inputs, inputs[:, :2], alpha=5.0)
    torch.testing.assert_close(mixed[:, :2], targets)
    assert torch.equal(mixed[:, 0], mixed[:, 2])
    rows = torch.eye(4000)
    shares = mixup(rows, rows, alpha=5.0)[0]
    torch.testing.assert_close(shares.sum(1), torch.ones(4000))
    own = shares.diagonal()[(shares > 0).sum(1) == 2]
    assert own.mean().item() == pytest.approx(0.5, abs=0.01)
    assert own.var().item() == pytest.approx(1 / (4 * 11), rel=0.1)  # variance of Beta(5, 5)
    assert ((shares > 0).sum(0) <= 2).all()  # every clip is a partner once: a shuffle


@pytest.mark.parametrize("settings", [{"label_smoothing_factor": 0.1}, {"mixup_alpha": 5.0}, {}])
def test_loss_on_soft_targets(sounds, tmp_path, settings):
    """The loss of training is the cross-entropy with the soft targets; evaluation takes the true labels."""
    data = tones(sounds, several=False)
    model = classifier(data, classifier_dropout=0.0)
    trainer = VattTrainer(model, arguments(tmp_path, **settings), train_dataset=data)
    batch = collate_labelled([data[index] for index in range(8)])
    assert batch.pop("skipped") == []
    values, labels = batch["input_values"], batch["labels"]
    targets = torch.eye(3)[labels]
    if settings.get("label_smoothing_factor"):
        targets = 0.9 * targets + 0.1 / 3
    torch.manual_seed(5)
    if settings.get("mixup_alpha"):
        share = torch.distributions.Beta(5.0, 5.0).sample((8,))[:, None]
        partner = torch.randperm(8)
        values = share * values + (1 - share) * values[partner]
        targets = share * targets + (1 - share) * targets[partner]
    expected = -(targets * model(values).logits.log_softmax(-1)).sum(1).mean()
    torch.manual_seed(5)
    torch.testing.assert_close(trainer.compute_loss(model.train(), batch), expected)
    model.eval()
    true = torch.nn.functional.cross_entropy(model(batch["input_values"]).logits, labels)
    torch.testing.assert_close(trainer.compute_loss(model, batch), true)


def test_settings_that_do_not_fit(sounds, tmp_path):
    data = tones(sounds, several=True)
    with pytest.raises(ValueError, match="one label per clip"):
        VattTrainer(classifier(data), arguments(tmp_path, label_smoothing_factor=0.1))
    model = classifier(data)
    model.config.problem_type = None
    with pytest.raises(ValueError, match="`problem_type`"):
        VattTrainer(model, arguments(tmp_path, mixup_alpha=1.0))
    with pytest.raises(ValueError, match="`mixup_alpha` must not be negative"):
        arguments(tmp_path, mixup_alpha=-1.0)
    with pytest.raises(ValueError, match="needs `max_grad_norm`"):
        arguments(tmp_path, max_grad_norm=0.0, classifier_max_grad_norm=1.0)


@pytest.mark.parametrize(("backbone", "head"), [(1e-3, 0.0), (1e6, 1e-3), (1e-3, 2e-3)])
def test_backbone_and_classifier_are_clipped_apart(sounds, tmp_path, backbone, head):
    data = tones(sounds, several=False)
    model = classifier(data)
    args = arguments(tmp_path, max_grad_norm=backbone, classifier_max_grad_norm=head)
    trainer = VattTrainer(model, args)
    batch = collate_labelled([data[index] for index in range(4)])
    model(batch["input_values"], labels=batch["labels"]).loss.backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def norm(grads: dict[str, torch.Tensor], classifier: bool) -> float:
        chosen = [g.flatten() for name, g in grads.items() if name.startswith("classifier.") == classifier]
        return torch.cat(chosen).norm().item()

    total = trainer._clip_grad_norm(model)
    after = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert total.item() == pytest.approx(math.hypot(norm(before, False), norm(before, True)), rel=1e-5)
    for part, limit in ((False, backbone), (True, head or math.inf)):
        assert norm(after, part) == pytest.approx(min(norm(before, part), limit), rel=1e-3)


# --- runs ---


@pytest.mark.parametrize("several", [False, True])
def test_a_resumed_run_ends_with_the_same_weights(sounds, tmp_path, several):
    """Stopped in the middle of an epoch (7 batches of 2, the last of 1; two make a step), with dropout,
    DropToken, mixup, random windows and momentum. The global random state has no say."""

    def run(folder: str, seed: int, stop: int | None = None, resume: bool = False) -> VattTrainer:
        data = tones(sounds, several, random_window=True, seed=4)
        args = arguments(
            tmp_path / folder,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=10,
            warmup_steps=2,
            save_strategy="steps",
            save_steps=3,
            mixup_alpha=5.0,
            label_smoothing_factor=0.0 if several else 0.1,
            seed=7,
        )
        callbacks = [] if stop is None else [StopAfter(stop)]
        trainer = VattTrainer(classifier(data, **RANDOM), args, train_dataset=data, callbacks=callbacks)
        torch.manual_seed(seed)
        trainer.train(resume_from_checkpoint=last_checkpoint(tmp_path / folder) if resume else None)
        return trainer

    whole = run("whole", seed=1)
    run("parts", seed=2, stop=7)
    rest = run("parts", seed=3, resume=True)
    assert rest.state.global_step == whole.state.global_step == 10
    expected = weights(whole.model)
    for name, values in weights(rest.model).items():
        assert torch.equal(values, expected[name]), name
    losses = [
        {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
        for trainer in (whole, rest)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 10
    again = run("parts", seed=4, resume=True)  # finished: nothing more is trained
    assert again.state.global_step == 10
    for name, values in weights(again.model).items():
        assert torch.equal(values, expected[name]), name


def test_other_seeds_give_other_weights(sounds, tmp_path):
    """So that the test above can fail."""
    data = tones(sounds, several=False, random_window=True)
    ends = []
    for seed in (1, 2):
        model = classifier(data, **RANDOM)
        VattTrainer(model, arguments(tmp_path, max_steps=2, seed=seed), train_dataset=data).train()
        ends.append(weights(model)["classifier.weight"])
    assert not torch.equal(*ends)


def test_half_written_checkpoints_are_passed_over(tmp_path):
    assert last_checkpoint(tmp_path / "nothing") is None
    for name, text in (
        ("checkpoint-9", "{}"),
        ("checkpoint-10", "{}"),
        ("checkpoint-11", '{"a'),
        ("checkpoint-x", "{}"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(text)
    (tmp_path / "checkpoint-12").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_broken_files_do_not_stop_a_run(sounds, tmp_path):
    """They are left out of their batches, even where a batch holds nothing else, and remembered by a resumed
    run."""
    folder = tmp_path / "some"
    folder.mkdir()
    names = [f"{number}.wav" for number in range(5)]
    for place, name in enumerate(names):
        good = (sounds / name).read_bytes()
        (folder / name).write_bytes(good if place < 3 else b"broken")
    rows = [{"file_name": name, "label": "ab"[place % 2]} for place, name in enumerate(names)]
    write_rows(folder, rows)
    data = LabelledDataset(load_labelled(folder, "train", "audio"), small_processor(), "audio")
    settings = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "save_steps": 5}
    args = arguments(tmp_path / "run", num_train_epochs=1, save_strategy="steps", **settings)
    trainer = VattTrainer(
        classifier(data), args, train_dataset=data, eval_dataset=data, compute_metrics=classification_metrics
    )
    trainer.train()
    assert trainer.state.global_step == 5
    assert {Path(name).name for name in trainer.skipped} == {"3.wav", "4.wav"}
    found = trainer.predict(data)
    assert found.predictions.shape == (3, 2) and found.label_ids.tolist() == [0, 1, 0]
    with (tmp_path / "run" / "skipped.jsonl").open("a") as file:
        file.write('{"name": "a", "reas')  # killed while it wrote
    again = VattTrainer(classifier(data), args, train_dataset=data)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path / "run"))
    assert again.skipped == trainer.skipped
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {line["name"]: line["reason"] for line in lines} == trainer.skipped


def test_mean_average_precision_on_mixtures_of_tones(sounds, tmp_path):
    """The Trainer's mAP is scikit-learn's on the same scores, and training raises it."""
    data = tones(sounds, several=True, windows=4)
    training = tones(sounds, several=True, random_window=True)
    model = classifier(data)
    trainer = VattTrainer(
        model,
        arguments(tmp_path, max_steps=60, learning_rate=0.02, optim="adamw_torch", optim_args=None),
        train_dataset=training,
        eval_dataset=data,
        compute_metrics=classification_metrics,
    )
    before = trainer.evaluate()["eval_mAP"]
    trainer.train()
    found = trainer.predict(data)
    assert found.label_ids.shape == (13, 3) and not found.label_ids.all(axis=0).any()
    expected = [average_precision_score(found.label_ids[:, k], found.predictions[:, k]) for k in range(3)]
    assert found.metrics["test_mAP"] == pytest.approx(np.mean(expected))
    assert found.metrics["test_mAP"] > before


def test_views_are_averaged_and_larger_inputs_fit(tmp_path):
    """Logits of 4 windows of 3 crops are averaged, at twice the size of the position tables."""
    folder = tmp_path / "videos"
    random = np.random.default_rng(0)
    rows = []
    for number in range(4):
        (folder / "x").mkdir(parents=True, exist_ok=True)
        frames = [random.integers(0, 255, (24, 32, 3), dtype=np.uint8) for _ in range(14)]
        write_media(folder / "x" / f"{number}.mp4", frames=frames, fps=10)
        rows.append({"file_name": f"x/{number}.mp4", "label": number % 2})
    write_rows(folder, rows)
    processor = small_processor()
    processor.video_processor.size = {"shortest_edge": 16}
    processor.video_processor.crop_size = {"height": 16, "width": 16}
    table = load_labelled(folder, "train", "video")
    data = LabelledDataset(table, processor, "video", windows=4, crops=3)
    training = LabelledDataset(table, processor, "video", True, VattAugmentation("Inception"))
    model = classifier(data, drop_token_rate=0.5)
    trainer = VattTrainer(model, arguments(tmp_path / "run", max_steps=1), train_dataset=training)
    trainer.train()
    found = trainer.predict(data).predictions
    model.eval()
    for row in range(4):
        views = data[row]["pixel_values_videos"][0]
        assert views.shape == (12, 8, 3, 16, 16)
        with torch.no_grad():
            logits = torch.stack([model(view[None]).logits[0] for view in views])
        assert logits.std(0).max() > 1e-4
        np.testing.assert_allclose(found[row], logits.mean(0), rtol=1e-4, atol=1e-5)
