# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Video, image and sound classifiers: windows, losses, labels, and loading from pretraining checkpoints."""

import math

import pytest
import reference_losses as reference
import torch
from every_model import CLASSES
from small_models import VARIANTS, seeded, small_config, small_inputs
from torch import nn

from modeling_vatt import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)


CLASSIFIERS = {
    "video": VattForVideoClassification,
    "image": VattForImageClassification,
    "audio": VattForAudioClassification,
}
SHAPES = {"video": (8, 3, 8, 8), "image": (3, 8, 8), "audio": (96,)}


def classifier(kind: str, variant: str = "specific", **overrides) -> nn.Module:
    config = small_config(variant, **{"num_labels": CLASSES, **overrides})
    return seeded(CLASSIFIERS[kind], config).eval()


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("variant", ["specific", "agnostic", "geglu", "post_norm"])
def test_logits(kind, variant):
    """Logits are the dense layer on the pooled feature of the tower."""
    model = classifier(kind, variant)
    inputs = torch.randn(2, *SHAPES[kind])
    assert model(inputs).logits.shape == (2, CLASSES)
    assert model(inputs).loss is None
    if kind != "image":
        pooled = getattr(model.vatt, f"get_{kind}_features")(inputs).pooler_output
        torch.testing.assert_close(model(inputs).logits, model.classifier(pooled))


@pytest.mark.parametrize(
    ("kind", "variant", "shape"),
    [*((kind, "specific", SHAPES[kind]) for kind in ("video", "audio")), ("audio", "spectrogram", (12, 10))],
)
@pytest.mark.parametrize("windows", [1, 4])
def test_windows_are_averaged_as_logits(kind, variant, shape, windows):
    """Several windows and crops of a clip: the mean of their LOGITS, before softmax or sigmoid."""
    model = classifier(kind, variant)
    inputs = torch.randn(3, windows, *shape)
    expected = torch.stack([model(inputs[:, i]).logits for i in range(windows)]).mean(0)
    torch.testing.assert_close(model(inputs).logits, expected)


def test_image_is_a_repeated_frame():
    """The image classifier equals the video classifier on `tubelet_size` copies of the image."""
    image_model, video_model = classifier("image"), classifier("video")
    video_model.load_state_dict(image_model.state_dict())
    image = torch.randn(2, 3, 8, 8)
    clip = image[:, None].repeat(1, 2, 1, 1, 1)
    torch.testing.assert_close(image_model(image).logits, video_model(clip).logits)
    larger = torch.randn(2, 3, 16, 12)
    assert image_model(larger).logits.shape == (2, CLASSES)


def test_pipeline_name_of_video():
    """transformers' video pipeline passes `pixel_values`."""
    model = classifier("video")
    clip = torch.randn(2, *SHAPES["video"])
    torch.testing.assert_close(model(pixel_values=clip).logits, model(clip).logits)


def softmax_loss(logits, targets):
    return -(targets * (logits.exp() / logits.exp().sum(1, keepdim=True)).log()).sum(1).mean().item()


def sigmoid_loss(logits, targets):
    p = logits.sigmoid()
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean().item()


IDS, SHARES = torch.tensor([4, 0, 2]), torch.tensor([[0.1] * 5, [0, 0.9, 0, 0.2, 0], [0, 0, 1, 0, 0]])
SEVERAL = torch.tensor([[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 1]])


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    ("fields", "labels", "loss"),
    [
        ({}, IDS, lambda logits, ids: softmax_loss(logits, torch.eye(CLASSES)[ids])),
        ({"problem_type": "single_label_classification"}, SHARES, softmax_loss),  # mixed up or smoothed
        ({}, SEVERAL, sigmoid_loss),
        ({"label_balancing": True}, SEVERAL, reference.label_balanced_bce),
    ],
    ids=["ids", "shares", "several", "balanced"],
)
def test_loss(kind, fields, labels, loss):
    """Softmax cross-entropy of class ids or shares; sigmoid cross-entropy of (batch, classes) targets, plain
    or with the AudioSet weighting."""
    output = classifier(kind, **fields)(torch.randn(3, *SHAPES[kind]), labels=labels)
    assert output.loss.item() == pytest.approx(loss(output.logits.detach().double(), labels), rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "labels", "message"),
    [
        ({}, torch.zeros(3, 4), r"`labels` must be \(3, 5\)"),
        (
            {"problem_type": "multi_label_classification"},
            torch.tensor([1, 2, 3]),
            r"`labels` must be \(3, 5\)",
        ),
        ({"problem_type": "regression"}, torch.zeros(3), "problem_type"),
        ({}, torch.tensor([1, 2]), "`labels`"),
        ({}, torch.zeros(3, 1, 5), "`labels`"),
        ({"problem_type": "single_label_classification"}, torch.zeros(3, 4), "`labels`"),
        ({}, torch.tensor([0, CLASSES, 1]), "`labels` holds 5: class ids run from 0 to 4.*`num_labels`"),
        ({}, torch.tensor([0, -1, 1]), "`labels` holds -1: class ids"),
        ({}, torch.zeros(3), "`labels` must be whole numbers"),
        ({}, torch.full((3, CLASSES), 2), r"`labels` holds 2: multi-label targets lie in \[0, 1\]"),
        ({}, torch.full((3, CLASSES), -100), "`labels` holds -100: multi-label"),
        ({"label_balancing": True}, torch.full((3, CLASSES), -1.0), r"`labels` holds -1\.0: multi-label"),
    ],
)
def test_wrong_labels(overrides, labels, message):
    """Labels of a wrong shape, kind or range are refused by name: not broadcast, no index error."""
    with pytest.raises(ValueError, match=message):
        classifier("video", **overrides)(torch.randn(3, *SHAPES["video"]), labels=labels)


def test_left_out_labels():
    """-100 leaves a clip out of the loss, as everywhere in PyTorch."""
    model = classifier("audio")
    inputs = torch.randn(3, *SHAPES["audio"])
    some = model(inputs, labels=torch.tensor([4, -100, 2])).loss
    torch.testing.assert_close(some, model(inputs[[0, 2]], labels=torch.tensor([4, 2])).loss)


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("video", {}, "`pixel_values_videos` is missing"),
        ("audio", {}, "`input_values` is missing"),
        ("audio", {"pixel_values_videos": (2, 8, 3, 8, 8)}, "`input_values` is missing: .* classifies sound"),
        ("video", {"input_values": (2, 96)}, "`pixel_values_videos` is missing: .* classifies video"),
        ("image", {}, r"`pixel_values` must be \(batch"),
        ("image", {"pixel_values": (1, 8, 3, 8, 8)}, r"`pixel_values` must be \(batch"),
        ("video", {"pixel_values_videos": (3, 8, 8)}, "`pixel_values_videos` must be"),
        ("audio", {"input_values": (96,)}, "`input_values` must be"),
        ("audio", {"input_values": (2, 96), "attention_mask": (2, 96)}, "`attention_mask` is for text"),
        ("audio", {"input_values": (2, 3, 4, 96)}, "`input_values` must be"),
        ("video", {"pixel_values_videos": (2, 8, 1, 8, 8)}, "`pixel_values_videos` must be"),
    ],
)
def test_wrong_inputs(kind, inputs, message):
    """Missing or misshapen inputs, or those of another modality, are refused by name."""
    with pytest.raises(ValueError, match=message):
        classifier(kind)(**{name: torch.zeros(shape) for name, shape in inputs.items()})


def test_captions_beside_the_input_change_nothing():
    """A classifier takes all that the processor gives of a clip with a caption, padded or not."""
    model = classifier("video")
    inputs = small_inputs(model.config)
    mask = (inputs["input_ids"] > 0).long()
    assert not mask.all()
    alone = model(inputs["pixel_values_videos"]).logits
    torch.testing.assert_close(model(**inputs, attention_mask=mask).logits, alone)


def test_no_classes():
    """A classifier without classes is refused with the remedy."""
    with pytest.raises(ValueError, match="`num_labels`"):
        VattForVideoClassification(small_config(num_labels=0))


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("variant", ["specific", "agnostic", "mmv"])
@pytest.mark.parametrize("saved", [VattForPreTraining, VattModel])
def test_loads_from_pretraining(kind, variant, saved, tmp_path):
    """From either pretraining class and setting: every weight of the tower is taken over, none is missing,
    other towers are not reported, and the classifier is initialised."""
    pretrained = seeded(saved, small_config(variant))
    pretrained.save_pretrained(tmp_path)
    model, info = CLASSIFIERS[kind].from_pretrained(tmp_path, num_labels=CLASSES, output_loading_info=True)
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    source = getattr(pretrained, "vatt", pretrained).state_dict()
    for name, values in model.vatt.state_dict().items():
        assert torch.equal(values, source[name]), name
    assert not any(name.startswith(("text_model", "head")) for name in model.vatt.state_dict())
    assert model.classifier.weight.abs().max() < 2
    assert model.classifier.weight.std() > 0.05


def test_nothing_of_the_common_spaces_is_kept(tmp_path):
    """Neither learned temperatures nor what stands before the heads: it would be reported, or never train."""
    towers = {name: {"projection": "mlp"} for name in ("video", "audio")}
    config = small_config("joint", loss_type="sigmoid", towers=towers)
    seeded(VattForPreTraining, config).save_pretrained(tmp_path)
    model, info = VattForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"]
    model(torch.randn(2, *SHAPES["video"]), labels=torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not VattModel.from_pretrained(tmp_path, output_loading_info=True)[1]["unexpected_keys"]


def test_leftover_weights_of_the_tower_are_reported(tmp_path):
    """A checkpoint with more layers than the config is a mistake that must not pass silently."""
    seeded(VattForPreTraining, small_config()).save_pretrained(tmp_path)
    config = small_config(video={"num_hidden_layers": 1}, num_labels=CLASSES)
    _, info = VattForVideoClassification.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert info["unexpected_keys"]
    assert all(".video_model.encoder.layers.1." in f".{name}" for name in info["unexpected_keys"])


@pytest.mark.parametrize(("kind", "tower"), [("video", "video"), ("image", "video"), ("audio", "audio")])
@pytest.mark.parametrize("frozen", [False, True])
def test_freezing_the_backbone(kind, tower, frozen, tmp_path):
    """`freeze_backbone` trains the classifier alone, also after loading."""
    model = classifier(kind, **{tower: {"freeze_backbone": frozen}})
    model.save_pretrained(tmp_path)
    for some in (model, CLASSIFIERS[kind].from_pretrained(tmp_path)):
        assert all(p.requires_grad != frozen for p in some.vatt.parameters())
        some.train()(torch.randn(2, *SHAPES[kind]), labels=torch.tensor([0, 1])).loss.backward()
        assert some.classifier.weight.grad.any()


def test_init_of_classifiers():
    """Glorot normal and zero bias for video; Glorot uniform and the prior as bias for sound (release)."""
    wide = {"every": {"hidden_size": 256, "num_hidden_layers": 0}, "num_labels": 200}
    video = VattForVideoClassification(small_config(**wide)).classifier
    sigma = math.sqrt(2 / 456)
    assert video.weight.std().item() == pytest.approx(sigma, rel=0.03)
    assert video.weight.abs().max() <= 2 * sigma / 0.8796 + 1e-6
    assert not video.bias.any()
    audio = VattForAudioClassification(small_config(**wide)).classifier
    assert audio.weight.abs().max() <= math.sqrt(6 / 456)
    assert audio.weight.std().item() == pytest.approx(sigma, rel=0.03)
    torch.testing.assert_close(audio.bias, torch.full((200,), -math.log(199)))


def test_classifier_dropout():
    """The tower's `classifier_dropout` acts in training only."""
    model = classifier("video", video={"classifier_dropout": 0.5, "drop_token_rate": 0.0})
    clip = torch.randn(4, *SHAPES["video"])
    assert torch.equal(model(clip).logits, model(clip).logits)
    model.train()
    assert not torch.allclose(model(clip).logits, model(clip).logits)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.support("Tuples (`return_dict=False`)")
@pytest.mark.support("`output_hidden_states`, `output_attentions`")
def test_outputs(kind):
    """Hidden states, attentions and tuples as everywhere in transformers; the loss comes first."""
    model = classifier(kind)
    model.set_attn_implementation("eager")
    inputs, labels = torch.randn(2, *SHAPES[kind]), torch.tensor([0, 1])
    output = model(inputs, labels=labels, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3
    assert len(output.attentions) == 2
    values = model(inputs, labels=labels, return_dict=False)
    assert torch.equal(values[0], output.loss)
    assert torch.equal(values[1], output.logits)


def test_only_the_needed_tower_is_built():
    """A classifier holds neither other towers nor common spaces: fine-tuning needs no memory for them."""
    for variant in VARIANTS:
        model = classifier("video", variant)
        assert model.vatt.audio_model is None
        assert model.vatt.text_model is None
        assert model.vatt.head is None
