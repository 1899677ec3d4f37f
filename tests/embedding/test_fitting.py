# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Projections in closed form: the formulas in NumPy, what is saved, and what training leaves alone."""

from typing import Any

import numpy as np
import pytest
import torch
from small_models import seeded, small_config, small_inputs

from modeling_vatt import VattForPreTraining
from modeling_vatt.embedding.fitting import fit_projections
from modeling_vatt.embedding.locked_features import LockedFeatures


CAPTIONS = [["a dog"], ["rain", "a dog"], [], ["a car"], ["", "roof"], ["a cat"]]
WORDS = ["", "a car", "a cat", "a dog", "rain", "roof"]


@pytest.fixture
def model() -> VattForPreTraining:
    return seeded(VattForPreTraining, small_config("joint")).double().train()


def _features(model: VattForPreTraining) -> LockedFeatures:
    """Two windows of six clips, of which the fifth cannot be read."""
    generator = torch.Generator().manual_seed(3)

    def draw(name: str, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, model.config.output_size(name), generator=generator, dtype=torch.float64)

    return LockedFeatures(
        media={"video": draw("video", len(CAPTIONS), 2)},
        captions={text: row for row, text in enumerate(WORDS)},
        text=draw("text", len(WORDS)),
        text_mask=torch.tensor([0, 1, 1, 1, 1, 1]),
        skipped={3: Any},
    )


def _embeds(model: VattForPreTraining, name: str, pooled: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model.vatt.project({name: pooled})[f"{name}_vt_embeds"].numpy()


def _unit(rows: Any) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.exp(-2 * ((first[:, None] - second[None]) ** 2).sum(-1))


def test_closed_form(model):
    """Captions are alike as their kernel says; a video, even a new one, is the mean of a Gaussian process."""
    features = _features(model)
    fit_projections(model, features, CAPTIONS, noise=0.3)
    text = _unit(features.text[1:])
    used = text[[1, 2, 3, 4]]  # the car's clip cannot be read
    mean = used.mean(0)
    used = _unit(used - mean)
    found = _embeds(model, "text", features.text[[2, 3, 4, 5]])
    np.testing.assert_allclose(found @ found.T, _kernel(used, used), atol=1e-6)
    clips, weights = [0, 1, 4, 5], [[0, 1, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
    video = _unit(features.media["video"][clips].flatten(0, 1))
    middle = video.mean(0)
    video = _unit(video - middle)
    new = torch.randn(3, features.media["video"].shape[-1], dtype=torch.float64)
    likeness = _kernel(_unit(_unit(new) - middle), video)
    factors = (
        likeness @ np.linalg.inv(_kernel(video, video) + 0.3 * np.eye(8)) @ np.repeat(weights, 2, axis=0)
    )
    np.testing.assert_allclose(_embeds(model, "video", new), factors @ found, atol=1e-6)


def test_fewer_centres_than_clips(model):
    """Least squares over the centres that were drawn, with the norm of the kernel's space."""
    features = _features(model)
    fit_projections(model, features, CAPTIONS, most=3, noise=0.2)
    assert {name: model.config.use(name).centres for name in ("video", "text")} == {"video": 3, "text": 3}
    kernel = model.vatt.feature_kernels["video"]
    rows = features.media["video"][[0, 1, 4, 5]]
    likeness = kernel(rows.flatten(0, 1)).detach()
    texts = torch.from_numpy(_embeds(model, "text", features.text))
    targets = torch.stack([texts[3], (texts[3] + texts[4]) / 2, texts[5], texts[2]]).repeat_interleave(2, 0)
    root = torch.linalg.cholesky(0.2 * kernel.likeness(kernel.centres)).T
    stacked = torch.cat([likeness, root]), torch.cat([targets, torch.zeros(3, targets.shape[1])])
    best = torch.linalg.lstsq(*stacked).solution
    torch.testing.assert_close(model.vatt.head.projections["video"].weight.T, best, atol=1e-5, rtol=1e-4)


def test_saved_and_not_trained(model, tmp_path):
    """A step moves nothing of what was fitted, and the saved model gives the same embeddings."""
    features = _features(model)
    fit_projections(model, features, CAPTIONS)
    parts = [*model.vatt.feature_kernels.parameters(), *model.vatt.head.projections["video"].parameters()]
    before = [part.clone() for part in parts]
    model.requires_grad_(True)
    model.lock("video", "text")  # locks again what was fitted, as loading does
    optimizer = torch.optim.AdamW(
        [part for part in model.parameters() if part.requires_grad], weight_decay=0.1
    )
    model(**small_inputs(model.config, dtype=torch.float64)).loss.backward()
    optimizer.step()
    assert all(torch.equal(part, old) and part.grad is None for part, old in zip(parts, before, strict=True))
    model.save_pretrained(tmp_path)
    again = VattForPreTraining.from_pretrained(tmp_path, dtype=torch.float64)
    for name, pooled in (("video", features.media["video"]), ("text", features.text)):
        np.testing.assert_array_equal(_embeds(again, name, pooled), _embeds(model, name, pooled))
    kept = {name for name, part in again.named_parameters() if part.requires_grad}
    assert not any("feature_kernels" in name or "projections.text" in name for name in kept)
    assert any("projections.audio" in name for name in kept)


def test_what_cannot_be_fitted(model):
    features = _features(model)
    with pytest.raises(ValueError, match='set `head_type="joint"`'):
        fit_projections(seeded(VattForPreTraining, small_config()), features, CAPTIONS)
    with pytest.raises(ValueError, match="video and text: lock both"):
        fit_projections(model, LockedFeatures(media=features.media), CAPTIONS)
    with pytest.raises(ValueError, match="needs clips with both"):
        fit_projections(model, features, [[] for _ in CAPTIONS])
    with pytest.raises(ValueError, match="`centres`"):
        model.config.set_use("video", projection="kernel")
