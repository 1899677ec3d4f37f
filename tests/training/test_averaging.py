# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Moving averages of the weights, and last steps with all tokens."""

import torch
from clip_folders import losses
from training_runs import pretrainer

from modeling_vatt.models.embeddings import VattPatchEmbeddings


FLAT = {"schedule": "constant", "log_every": 1, "save_every": 1}


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_result_is_the_average_of_the_weights(clips, tmp_path):
    """Those that training itself goes through, which it does not change; evaluated, and taken up again."""
    plain = pretrainer(clips, tmp_path / "plain", num_steps=3, **FLAT)
    expected, seen = weights_of(plain), [weights_of(plain)]
    plain.on_step = lambda step: seen.append(weights_of(plain))
    plain.train()
    for step, weights in enumerate(seen[1:]):
        decay = min(0.15, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * weights[name] for name in weights}
    evaluated = []

    def evaluate(model):
        evaluated.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return {"mean_recall": 0.5}

    for folder, lengths in (("whole", (3,)), ("parts", (2, 3))):
        for length in lengths:
            options = {"num_steps": length, "ema_decay": 0.15, **FLAT}
            trainer = pretrainer(clips, tmp_path / folder, evaluate=evaluate, **options)
            trainer.train()
        torch.testing.assert_close(weights_of(trainer), expected)
        torch.testing.assert_close(evaluated[-1], expected)
        assert losses(tmp_path / folder) == losses(tmp_path / "plain")
    assert not torch.equal(expected["vatt.head.audio_va.weight"], seen[-1]["vatt.head.audio_va.weight"])


def test_last_steps_keep_all_tokens(clips, tmp_path):
    """Also of a run that is made longer: it goes on from before them."""

    def run(folder, num_steps) -> list[bool]:
        trainer, dropped = pretrainer(clips, folder, num_steps=num_steps, all_token_steps=1, **FLAT), []
        embeddings = next(part for part in trainer.model.modules() if isinstance(part, VattPatchEmbeddings))
        embeddings.register_forward_hook(lambda *call: dropped.append("kept_tokens" in call[-1][1]))
        trainer.train()
        return dropped

    assert run(tmp_path / "long", 3) == [True, True, False]
    assert run(tmp_path / "short", 2) == [True, False]
    assert run(tmp_path / "short", 3) == [True, False]
    assert losses(tmp_path / "short") == losses(tmp_path / "long")
