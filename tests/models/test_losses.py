# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses against slow float64 loops written from the description of the release."""

import pytest
import reference_losses as reference
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_vatt.models.losses import (
    LOSSES,
    VattLossScale,
    caption_ids,
    contrastive_loss,
    label_balanced_bce,
    tiles,
)


# Three clips with two candidates each; expected losses are those of the official formulas in float64.
VIDEO = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
TEXTS = torch.tensor(
    [[[1.0, 0.0], [1.0, 0.5]], [[0.0, 1.0], [-0.5, 1.0]], [[1.0, 1.0], [0.0, 1.0]]], dtype=torch.float64
)


def embeddings(clips: int, candidates: int, dim: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(clips, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(clips, candidates, dim, generator=generator, dtype=torch.float64)
    return video, video[:, None] + noise


@pytest.mark.parametrize(
    ("loss_type", "tau", "mask", "candidates", "expected"),
    [
        ("asymmetric", 1.0, None, 2, 1.53639807),
        ("asymmetric", 0.07, None, 2, 1.06213787),
        # The specification prints 1.27748376, but the clips it lists beside it average to this:
        ("asymmetric", 1.0, (1, 1, 0), 2, (1.96521379 + 1.86723733) / 3),
        ("asymmetric", 1.0, None, 1, 1.49658496),
        ("symmetric", 1.0, None, 2, 1.67882428),
        ("symmetric", 1.0, (1, 1, 0), 2, 1.11539671),
        ("symmetric", 1.0, None, 1, 1.60687556),
    ],
)
def test_published_vectors(loss_type, tau, mask, candidates, expected):
    """The numbers of the specification, by our loss and by the reference loops alike."""
    texts = TEXTS[:, :candidates]
    tensor_mask = None if mask is None else torch.tensor(mask)
    ours = contrastive_loss(VIDEO, texts, tensor_mask, tau, loss_type)
    assert ours.item() == pytest.approx(expected, abs=1e-8)
    assert reference.pair_loss(VIDEO, texts, tau, loss_type, mask) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_single_clip(loss_type):
    """A batch of one has no negatives but its own candidates, and must not divide by zero."""
    video, other = embeddings(1, 3)
    ours = contrastive_loss(video, other, None, 0.07, loss_type, bias=-1.0)
    expected = reference.pair_loss(video, other, 0.07, loss_type, bias=-1.0)
    assert ours.item() == pytest.approx(expected, rel=1e-10)


def test_one_candidate_may_lack_its_axis():
    """(batch, dim) means (batch, 1, dim): sound and text go through the same code."""
    video, other = embeddings(4, 1)
    assert torch.equal(contrastive_loss(video, other), contrastive_loss(video, other[:, 0]))


@pytest.mark.parametrize("mask", [torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 1.0])])
def test_mask_dtypes(mask):
    """Collators may give bool, integer or float masks."""
    expected = contrastive_loss(VIDEO, TEXTS, torch.tensor([1, 0, 1]))
    assert torch.equal(contrastive_loss(VIDEO, TEXTS, mask), expected)


def test_similarities_are_never_stored_whole(monkeypatch):
    """No tensor of the loss, forward or backward, has more elements than a tile or the inputs."""
    monkeypatch.setitem(tiles._TILE, "cpu", 4096)
    largest, made = 0, []
    cut = tiles._tiles

    def watched(*arguments, **options):
        for down, across, scores in cut(*arguments, **options):
            made.append(scores.numel())
            yield down, across, scores

    class Watch(TorchDispatchMode):  # sees what is around the sums over tiles
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else [result]:
                if isinstance(value, torch.Tensor):
                    largest = max(largest, value.numel())
            return result

    monkeypatch.setattr(tiles, "_tiles", watched)
    video, other = (part.requires_grad_() for part in embeddings(300, 5, dim=4))
    for loss_type in LOSSES:
        with Watch():
            contrastive_loss(video, other, torch.ones(300), loss_type=loss_type).backward()
    assert 4096 / 2 < max(made) <= 4096 and sum(made) >= len(LOSSES) * 2 * 300 * 300 * 5
    assert largest <= 300 * 5 * 4


def test_zero_vectors_are_finite():
    """A dead projection gives zero vectors; normalising them must not yield NaN, forwards or backwards."""
    video, other = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 2, 4, requires_grad=True)
    loss = contrastive_loss(video, other)
    loss.backward()
    assert loss.isfinite()
    assert video.grad.isfinite().all()
    assert other.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.001, 0.07])
def test_float32_does_not_overflow(temperature):
    """Scores of +-1000 go through logsumexp, never through exp alone."""
    video, other = embeddings(6, 2)
    mask = torch.tensor([1, 1, 0, 1, 1, 1])
    ours = contrastive_loss(video.float(), other.float(), mask, temperature)
    expected = reference.pair_loss(video, other, temperature, "asymmetric", mask)
    assert ours.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"loss_type": "triplet"}, "loss_type"),
        ({"candidates": torch.randn(4, 2, 2)}, "candidates"),
        ({"candidates": torch.randn(2)}, "candidates"),
        ({"candidate_mask": torch.ones(3, 1)}, "candidate_mask"),
        ({"candidate_mask": torch.ones(2)}, "candidate_mask"),
        ({"anchor_mask": torch.ones(3, 2)}, "anchor_mask"),
        ({"video_ids": torch.ones(2)}, "video_ids"),
        ({"caption_ids": torch.ones(3)}, "caption_ids"),
    ],
)
def test_errors_name_the_argument(kwargs, name):
    """A mask of shape (batch, 1) would broadcast to a wrong number; it is refused instead."""
    with pytest.raises(ValueError, match=f"`{name}`"):
        contrastive_loss(**{"anchors": VIDEO, "candidates": TEXTS, **kwargs})


def test_old_names_of_arguments():
    """As saved in programs of earlier versions."""
    masks = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 0])
    expected = contrastive_loss(VIDEO, TEXTS, masks[0], anchor_mask=masks[1])
    with pytest.warns(FutureWarning, match="is now `candidates`"):
        found = contrastive_loss(video_embeds=VIDEO, other_embeds=TEXTS, mask=masks[0], video_mask=masks[1])
    assert torch.equal(found, expected)
    with pytest.raises(TypeError, match="`mask` is now"), pytest.warns(FutureWarning):
        contrastive_loss(VIDEO, other_embeds=TEXTS, mask=masks[0], candidate_mask=masks[0])


# --- every loss by name ----------------------------------------------------------------------------------

MASKS = [
    ((1, 1, 1, 1), (1, 1, 1, 1)),
    ((1, 1, 0, 1), (1, 0, 1, 1)),
    ((1, 0, 0, 0), (0, 1, 1, 1)),
    ((1, 1, 0, 1), ((1, 0, 0), (0, 0, 0), (1, 1, 1), (0, 1, 1))),
    ((1, 1, 1, 1), (0, 0, 0, 0)),
]
VIDEO_IDS, CAPTION_IDS = (
    torch.tensor([3, 5, 3, -3]),
    torch.tensor([[1, 2, 2], [2, 4, 5], [6, 7, 8], [9, 9, 8]]),
)


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize(
    "masked", [(), ("video_ids",), ("caption_ids", "alike"), ("video_ids", "caption_ids"), ("alike",)]
)
def test_every_loss_equals_reference_loops(loss_type, masks, candidates, masked):
    """Any name, masks on both sides and of single candidates, any kind of false negatives."""
    anchors, others = embeddings(4, candidates)
    ids = {"video_ids": VIDEO_IDS, "caption_ids": CAPTION_IDS[:, :candidates], "alike": 0.1}
    ids = {name: ids[name] for name in masked}
    masks = [torch.tensor(mask) for mask in masks]
    masks = [mask[:, :candidates] if mask.ndim == 2 else mask for mask in masks]
    first, second = masks
    ours = contrastive_loss(anchors, others, second, 0.2, loss_type, first, bias=-1.5, **ids)
    lists = {name: values if name == "alike" else values.tolist() for name, values in ids.items()}
    expected = reference.pair_loss(anchors, others, 0.2, loss_type, second, first, bias=-1.5, **lists)
    assert ours.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize(("masked", "masks"), [(False, MASKS[1]), (True, MASKS[3])])
def test_gradients_of_every_loss_by_gradcheck(loss_type, masked, masks):
    """Embeddings, temperature and bias (float64 finite differences of our own function)."""
    anchors, others = embeddings(4, 3, dim=3)
    first, second = map(torch.tensor, masks)
    ids = {"video_ids": VIDEO_IDS, "caption_ids": CAPTION_IDS, "alike": 0.1} if masked else {}

    def loss(anchors, others, temperature, bias):
        return contrastive_loss(anchors, others, second, temperature, loss_type, first, bias, **ids)

    temperature, bias = (torch.tensor([value], dtype=torch.float64) for value in (0.3, -1.0))
    inputs = [tensor.requires_grad_() for tensor in (anchors, others, temperature, bias)]
    assert torch.autograd.gradcheck(loss, inputs)
    grads = torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)
    assert sum(grad is not None for grad in grads) == 3 + LOSSES[loss_type].has_bias


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("clips", "candidates", "tile"), [(23, 3, 64), (40, 1, 256), (9, 5, 1)])
def test_tiles_make_up_the_whole(monkeypatch, loss_type, masked, clips, candidates, tile):
    """Loss and gradients do not depend on how the similarities are cut, last incomplete tiles included."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(clips, generator=generator) < 0.7 for _ in range(2))
    ids = torch.arange(clips * candidates).view(clips, candidates) % 7
    ids = {"video_ids": torch.arange(clips) % 5, "caption_ids": ids, "alike": 0.1} if masked else {}
    inputs = [part.requires_grad_() for part in embeddings(clips, candidates)]
    outcomes = []
    for size in (tile, 2**21):
        monkeypatch.setitem(tiles._TILE, "cpu", size)
        loss = contrastive_loss(*inputs, second, 0.07, loss_type, first, **ids)
        outcomes.append([loss, *torch.autograd.grad(loss, inputs)])
    torch.testing.assert_close(*outcomes, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_a_caption_that_is_missing_changes_nothing(loss_type):
    """Whatever stands in its place, the loss and the gradients are those without it."""
    anchors, others = embeddings(5, 3)
    mask = torch.tensor([[1, 0, 0]] * 5)
    outcomes = []
    for texts, given in (
        (others, mask),
        (others * torch.tensor([1, -7, 0])[:, None], mask),
        (others[:, :1], None),
    ):
        video, texts = anchors.clone().requires_grad_(), texts.clone().requires_grad_()
        loss = contrastive_loss(video, texts, given, 0.2, loss_type)
        loss.backward()
        assert not texts.grad[:, 1:].any()
        outcomes.append((loss, video.grad, texts.grad[:, 0]))
    for outcome in outcomes[:2]:
        torch.testing.assert_close(outcome, outcomes[2])


def test_sigmoid_is_that_of_the_paper():
    """SigLIP, algorithm 1: its lines with one caption a clip."""
    images, texts = embeddings(6, 1)
    zimg, ztxt = (torch.nn.functional.normalize(side, dim=-1) for side in (images, texts[:, 0]))
    logits = zimg @ ztxt.T * 10 - 10
    labels = 2 * torch.eye(6) - 1
    expected = -torch.nn.functional.logsigmoid(labels * logits).sum() / 6
    torch.testing.assert_close(contrastive_loss(images, texts, None, 0.1, "sigmoid"), expected)


def test_symmetric_is_twice_that_of_clip():
    """CLIP, figure 3: the mean of two cross-entropies."""
    images, texts = embeddings(6, 1)
    images, texts = images.requires_grad_(), texts[:, 0].requires_grad_()
    logits = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T / 0.07
    labels = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = cross_entropy(logits, labels) + cross_entropy(logits.T, labels)
    torch.testing.assert_close(contrastive_loss(images, texts, None, 0.07, "symmetric"), expected)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_every_loss_is_finite_in_half_precision_and_without_clips(loss_type):
    """Embeddings in bfloat16 give what their values give in float32, and no clip at all gives zero."""
    video, other = (tensor.bfloat16().requires_grad_() for tensor in embeddings(6, 2))
    expected = contrastive_loss(video.float(), other.float(), loss_type=loss_type)
    assert contrastive_loss(video, other, loss_type=loss_type).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(contrastive_loss(video, other, loss_type=loss_type), expected)
        found = contrastive_loss(video.float(), other.float(), loss_type=loss_type)
        torch.testing.assert_close(found, expected)
    loss = contrastive_loss(video, other, torch.zeros(6), loss_type=loss_type)
    loss.backward()
    assert loss == 0 and not video.grad.any() and not other.grad.any()


def test_numbers_of_captions():
    """Equal for the same words, however far they are padded; different for any other words or order."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (20_000, 6), generator=generator)
    mask = torch.arange(6) < torch.randint(1, 7, (20_000, 1), generator=generator)
    numbers = caption_ids(ids, mask)
    words = [tuple(row[keep].tolist()) for row, keep in zip(ids, mask, strict=True)]
    assert len(set(words)) < 20_000
    assert len({*zip(words, numbers.tolist(), strict=True)}) == len(set(words)) == len(numbers.unique())
    longer = torch.nn.functional.pad(ids, (0, 3), value=7), torch.nn.functional.pad(mask, (0, 3))
    assert torch.equal(caption_ids(*longer), numbers)


@pytest.mark.parametrize("outside", [-0.5, 5.0])
def test_learned_temperatures_of_nce_stay_between_bounds(outside):
    """As CLIP's: a step that leads out is taken back before the next one; in evaluation nothing changes."""
    scale = VattLossScale(0.07, None)
    torch.nn.init.constant_(scale.log_scale, outside)
    bound = 1.0 if outside < 0 else 0.01
    assert scale.eval()()[0].item() == pytest.approx(bound) and scale.log_scale == outside
    temperature, bias = scale.train()()
    assert temperature.item() == pytest.approx(bound) and bias is None
    temperature.sum().backward()
    assert 1 / scale.log_scale.exp().item() == pytest.approx(bound) and scale.log_scale.grad.abs() > 0


# --- AudioSet loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hard", "soft", "rare", "unlabelled_clip"])
def test_label_balanced_bce_equals_loops(kind):
    """Weights by label rarity, with mixed-up labels, classes nobody has, and clips without labels."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    labels = (torch.rand(5, 6, generator=generator) < 0.5).double()
    labels[:, 0] = 1
    if kind == "soft":
        labels = 0.7 * labels + 0.3 * labels.roll(1, 0)
    elif kind == "rare":
        labels[:, 2:4] = 0
    elif kind == "unlabelled_clip":
        labels[1] = 0
    logits.requires_grad_()
    loss = label_balanced_bce(logits, labels)
    assert loss.item() == pytest.approx(reference.label_balanced_bce(logits.detach(), labels), rel=1e-10)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert bool(logits.grad[1].any()) == (kind != "unlabelled_clip")


def test_label_balanced_bce_takes_integer_labels():
    """One-hot labels often arrive as integers."""
    labels = torch.tensor([[1, 0], [0, 1]])
    logits = torch.randn(2, 2)
    torch.testing.assert_close(label_balanced_bce(logits, labels), label_balanced_bce(logits, labels.float()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_label_balanced_bce_in_half_precision(dtype):
    """Small numbers that float16 does not have, and counts beyond bfloat16's 256: as from float32 logits."""
    labels = torch.zeros(600, 3)
    labels[:, 0] = 1
    labels[1] = 0
    logits = torch.randn(600, 3).to(dtype).requires_grad_()
    loss = label_balanced_bce(logits, labels)
    torch.testing.assert_close(loss, label_balanced_bce(logits.detach().float(), labels))
    loss.backward()
    assert logits.grad.isfinite().all() and logits.grad.any()
