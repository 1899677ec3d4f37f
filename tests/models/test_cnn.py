# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The convolutional baseline (MMV): I3D and ResNet against independent computations, and how it behaves as a
model of transformers. What holds for every variant is in test_modeling.py (`mmv`)."""

import numpy as np
import pytest
import torch
from every_model import build, inputs_of
from huggingface_hub.errors import StrictDataclassError
from small_models import AUDIO, SPECTROGRAM, seeded, small_config, small_inputs
from torch import nn
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from modeling_vatt import (
    VattAudioConfig,
    VattConfig,
    VattForAudioClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
    VattVideoConfig,
)
from modeling_vatt.hub.model_card import build_model_card
from modeling_vatt.models.cnn import max_pool_same, pad_same
from modeling_vatt.models.heads import VattBatchNorm


NARROW = {"width_multiplier": 0.125}


@pytest.fixture(scope="module")
def tensorflow():
    return pytest.importorskip("tensorflow", reason="needs pip install 'modeling_vatt[tf]'")


def tower(video: VattVideoConfig | None = None, audio: VattAudioConfig | None = None) -> VattModel:
    """A model with one tower, in evaluation mode and float64."""
    config = VattConfig(video_config=video, audio_config=audio)
    modality = "video" if audio is None else "audio"
    return seeded(VattModel, config, modalities=(modality,)).double().eval()


# --- arithmetic ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "expected"),
    [
        (8, 7, 2, (2, 3)),
        (9, 7, 2, (3, 3)),
        (1, 7, 2, (3, 3)),
        (8, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (8, 2, 2, (0, 0)),
        (7, 2, 2, (0, 1)),
        (5, 3, 1, (1, 1)),
    ],
)
def test_same_padding(extent, kernel, stride, expected):
    """As many windows as strides fit; the odd one of the padding goes to the end."""
    values = torch.ones(1, 1, extent, 4)
    padded = pad_same(values, (kernel, 1), (stride, 1))[0, 0, :, 0].tolist()
    assert padded == [0] * expected[0] + [1] * extent + [0] * expected[1]
    assert max_pool_same(-values, (kernel, 1), (stride, 1)).shape == (1, 1, -(-extent // stride), 4)
    assert (max_pool_same(-values, (kernel, 1), (stride, 1)) == -1).all()  # padding is no maximum


def i3d_in_tensorflow(tf, state: dict[str, np.ndarray], pixels: np.ndarray, eps: float) -> np.ndarray:
    """I3D as a chain of TensorFlow operations on (batch, frames, height, width, channels) pixels."""

    def unit(values, name, stride=1):
        kernel = state[f"{name}.convolution.weight"].transpose(2, 3, 4, 1, 0)
        values = tf.nn.conv3d(values, kernel, [1, stride, stride, stride, 1], "SAME")
        norm = [state[f"{name}.norm.{part}"] for part in ("running_mean", "running_var", "bias", "weight")]
        return tf.nn.relu(tf.nn.batch_normalization(values, *norm, eps))

    def pool(values, kernel, stride):
        single = tf.cast(values, tf.float32)  # there is no other pooling in three dimensions
        single = tf.nn.max_pool3d(single, [1, *kernel, 1], [1, *stride, 1], "SAME")
        return tf.cast(single, values.dtype)

    def mixed(values, name):
        first = unit(values, f"{name}.points")
        second = unit(unit(values, f"{name}.kernel1.0"), f"{name}.kernel1.1")
        third = unit(unit(values, f"{name}.kernel2.0"), f"{name}.kernel2.1")
        last = unit(pool(values, (3, 3, 3), (1, 1, 1)), f"{name}.pooled")
        return tf.concat([first, second, third, last], -1)

    values = pool(unit(pixels, "stem", 2), (1, 3, 3), (1, 2, 2))
    values = pool(unit(unit(values, "stem_points"), "stem_kernel"), (1, 3, 3), (1, 2, 2))
    for block in range(9):
        if block == 2:
            values = pool(values, (3, 3, 3), (2, 2, 2))
        if block == 7:
            values = pool(values, (2, 2, 2), (2, 2, 2))
        values = mixed(values, f"blocks.{block}")
    return tf.reduce_mean(values, [1, 2, 3]).numpy()


@pytest.mark.parametrize("shape", [(9, 40, 35), (16, 33, 64)])
def test_i3d_equals_tensorflow(tensorflow, shape):
    """The whole network on odd and even extents, where paddings differ."""
    config = VattVideoConfig.i3d(**NARROW)
    model = tower(video=config)
    frames, height, width = shape
    pixels = torch.rand(2, frames, 3, height, width, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        pooled = model.get_video_features(pixels).pooler_output
    state = {name: value.numpy() for name, value in model.video_model.backbone.state_dict().items()}
    expected = i3d_in_tensorflow(tensorflow, state, pixels.movedim(2, -1).numpy(), config.batch_norm_eps)
    assert pooled.shape == (2, config.output_size) == (2, 128)
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [50, 101])
def test_resnet_equals_transformers(depth):
    """transformers' ResNet with the same weights, on extents whose halves are odd: there paddings agree."""
    model = tower(audio=VattAudioConfig.resnet(depth, num_mel_bins=26, **NARROW))
    blocks = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[depth]
    sizes = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=blocks)
    theirs = ResNetModel(sizes).double().eval()
    names = {"convolution.weight": "convolution.weight"}
    parts = ("weight", "bias", "running_mean", "running_var")
    names |= {f"norm.{part}": f"normalization.{part}" for part in parts}
    places = {"stem": "embedder.embedder"}
    numbers = [(stage, layer) for stage, count in enumerate(blocks) for layer in range(count)]
    for block, (stage, layer) in enumerate(numbers):
        prefix = f"encoder.stages.{stage}.layers.{layer}"
        places[f"blocks.{block}.shortcut"] = f"{prefix}.shortcut"
        for i, part in enumerate(("reduce", "kernel", "expand")):
            places[f"blocks.{block}.{part}"] = f"{prefix}.layer.{i}"
    state = {}
    for name, value in model.audio_model.backbone.state_dict().items():
        place = max((place for place in places if name.startswith(f"{place}.")), key=len)
        state[f"{places[place]}.{names[name.removeprefix(f'{place}.')]}"] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    sound = torch.rand(2, 49, 26, dtype=torch.float64)
    with torch.no_grad():
        output = model.get_audio_features(sound)
        expected = theirs(sound.unsqueeze(1))
    torch.testing.assert_close(output.pooler_output, expected.pooler_output.flatten(1))
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state.flatten(2).mT)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 8, 8), (12, 70, 40)])
def test_clips_of_any_extent(shape):
    """Single frames and pixels too; features are the mean over the places of the last map."""
    frames, height, width = shape
    output = tower(video=VattVideoConfig.i3d(**NARROW)).get_video_features(
        torch.rand(1, frames, 3, height, width).double()
    )
    places = -(-frames // 8) * -(-height // 32) * -(-width // 32)
    assert output.last_hidden_state.shape == (1, places, 128)
    torch.testing.assert_close(output.last_hidden_state.mean(1), output.pooler_output)


# --- initialisation and batch statistics -----------------------------------------------------------------


def test_init():
    """Glorot uniform kernels; the last norm of a residual branch is zero, so a fresh block hands its input
    on. The same when the weights are missing from a checkpoint."""
    config = small_config("mmv")
    for model in (VattModel(config), VattModel.from_pretrained(None, config=config, state_dict={})):
        kernel = model.video_model.backbone.stem.convolution.weight
        bound = (6 / ((3 + 8) * 7**3)) ** 0.5
        assert kernel.abs().max() <= bound
        assert kernel.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        block = model.audio_model.backbone.blocks[1].eval()
        values = torch.rand(1, 32, 5, 4)
        assert torch.equal(block(values), values)
        zero = {n for n, p in model.named_parameters() if n.endswith("norm.weight") and not p.any()}
        assert zero == {f"audio_model.backbone.blocks.{i}.expand.norm.weight" for i in range(16)}


def test_statistics_follow_training_only():
    """Each norm of the towers takes the config's share of the batch's statistics, in training only."""
    config = small_config("mmv", video={"batch_norm_momentum": 1.0}, audio={"batch_norm_momentum": 0.25})
    model = VattModel(config)
    inputs = small_inputs(config, 4)
    norms = [model.video_model.backbone.stem.norm, model.audio_model.backbone.stem.norm]
    seen = []
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.eval()(**inputs)
    assert not any(norm.running_mean.any() for norm in norms)
    model.train()(**inputs)
    for norm, values, share in zip(norms, seen[2:], (1.0, 0.25), strict=True):
        rows = values.movedim(1, -1).flatten(0, -2)
        torch.testing.assert_close(norm.running_mean, share * rows.mean(0))
        torch.testing.assert_close(norm.running_var, 1 - share + share * rows.var(0, correction=0))


def test_silent_clips():
    """What stands in for absent sound is no part of the loss, but of the batch statistics in training (as in
    the release); with the running statistics of evaluation it changes nothing."""
    model = seeded(VattForPreTraining, small_config("mmv"))
    inputs = {**small_inputs(model.config, 4), "audio_mask": torch.tensor([1, 1, 0, 1])}
    other = {**inputs, "input_values": inputs["input_values"].clone()}
    other["input_values"][2] = 0.0
    model.eval()
    torch.testing.assert_close(model(**inputs).loss, model(**other).loss)
    model.train()
    assert not torch.allclose(model(**inputs).loss, model(**other).loss, rtol=1e-4)


@pytest.mark.parametrize("model_class", [VattForVideoClassification, VattForAudioClassification])
def test_linear_probe_keeps_the_statistics(model_class):
    """`freeze_backbone` holds for batch statistics too: the features of a probe stay those of evaluation."""
    model = build(model_class, "mmv", every={"freeze_backbone": True, "classifier_dropout": 0.0})
    inputs = inputs_of(model, labels=True)
    before = {name: value.clone() for name, value in model.vatt.state_dict().items()}
    expected = model(**inputs).logits
    output = model.train()(**inputs)
    torch.testing.assert_close(output.logits, expected)
    output.loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert all(torch.equal(before[name], value) for name, value in model.vatt.state_dict().items())


# --- as a model of transformers --------------------------------------------------------------------------


def test_hidden_states():
    """Feature maps of the stem and of every block, on request; there is no attention to return."""
    config = small_config("mmv", video={"num_frames": 16, "image_size": 64})
    model = seeded(VattModel, config).eval()
    inputs = small_inputs(config, 1)
    assert model(**inputs).video_model_output.hidden_states is None
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    video, audio = output.video_model_output, output.audio_model_output
    extents = [(24, 8, 16, 16), (32, 8, 8, 8), (60, 8, 8, 8), *[(64, 4, 4, 4)] * 3, (66, 4, 4, 4)]
    extents += [(104, 4, 4, 4), (104, 2, 2, 2), (128, 2, 2, 2)]
    assert [tuple(state.shape[1:]) for state in video.hidden_states] == extents
    assert len(audio.hidden_states) == 1 + 3 + 4 + 6 + 3
    assert audio.hidden_states[0].shape == (1, 8, 3, 3)
    for result in (video, audio):
        assert result.attentions is None
        last = result.hidden_states[-1].flatten(2).transpose(1, 2)
        assert torch.equal(last, result.last_hidden_state)


def test_gradient_checkpointing():
    """Recomputing would count every batch twice in the statistics, so convolutional towers refuse it; next to
    one, a Transformer still takes it."""
    with pytest.raises(ValueError, match="not compatible with gradient checkpointing"):
        VattForPreTraining(small_config("mmv")).activation_checkpointing_enable()
    model = seeded(VattForPreTraining, small_config("mmv", audio_config=AUDIO)).double().train()
    inputs = small_inputs(model.config, 3, dtype=torch.float64)
    torch.manual_seed(0)
    expected = model(**inputs).loss
    model.activation_checkpointing_enable()
    torch.manual_seed(0)
    loss = model(**inputs).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()


def test_input_layer():
    """Without a word table the first convolution stands for the input."""
    model = VattModel(small_config("mmv"), modalities=("audio",))
    assert model.get_input_embeddings() is model.audio_model.backbone.stem.convolution


# --- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.125, 0.5, 2])
def test_width(width):
    """Parameters grow with the square of the width, but for those of first layers and norms."""
    with torch.device("meta"):
        models = [
            VattModel(
                VattConfig(
                    video_config=VattVideoConfig.i3d(width_multiplier=factor),
                    audio_config=VattAudioConfig.resnet(width_multiplier=factor),
                    text_config={"encoder_type": "linear", "vocab_size": 5},
                )
            )
            for factor in (1, width)
        ]
    for name in ("video_model", "audio_model"):
        kernels = [
            [m.weight.numel() for m in getattr(model, name).modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
            for model in models
        ]
        norms = [
            [m.weight.numel() for m in getattr(model, name).modules() if isinstance(m, VattBatchNorm)]
            for model in models
        ]
        assert kernels[1] == [kernels[0][0] * width, *(count * width**2 for count in kernels[0][1:])]
        assert norms[1] == [count * width for count in norms[0]]
    assert models[1].head.video_hidden.in_features == 1024 * width
    assert models[1].head.audio_va.in_features == 2048 * width


@pytest.mark.parametrize(
    ("build_config", "message"),
    [
        (lambda: VattVideoConfig(encoder_type="i3d"), "`drop_token_rate` is for Transformers: set it to 0"),
        (lambda: VattVideoConfig.i3d(use_input_masking=True), "`use_input_masking` is for Transformers"),
        (lambda: VattAudioConfig.resnet(use_post_projection=True), "set it to False"),
        (lambda: VattVideoConfig.i3d(width_multiplier=0.1), "multiple of 1/8"),
        (lambda: VattAudioConfig.resnet(width_multiplier=0), "multiple of 1/8"),
        (lambda: VattAudioConfig.resnet(input_type="waveform"), "A ResNet takes spectrograms"),
        (lambda: VattAudioConfig.resnet(34), "encoder_type"),
        (
            lambda: VattConfig(modality_agnostic=True, video_config=VattVideoConfig.i3d()),
            "share a Transformer",
        ),
        (
            lambda: VattConfig(modality_agnostic=True, audio_config={"encoder_type": "resnet50"}),
            '`audio_config.encoder_type` is "resnet50"',
        ),
    ],
)
def test_refused(build_config, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        build_config()


def test_errors_name_the_argument():
    """Wrong shapes, and sources of weights that do not fit."""
    model = VattModel(small_config("mmv"))
    with pytest.raises(ValueError, match=r"`pixel_values_videos` must be .*3, height"):
        model.get_video_features(torch.zeros(1, 4, 8, 8, 3))
    with pytest.raises(ValueError, match=r"`input_values` must be .*mel bins"):
        model.get_audio_features(torch.zeros(1, 100))
    vit = ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32))
    with pytest.raises(ValueError, match="'i3d': it has no Transformer to start"):
        VattModel.from_unimodal_pretrained(video=vit, config=small_config("mmv"))


def test_model_card():
    """It says which backbones are inside."""
    card = str(build_model_card(VattModel(small_config("mmv")), "mmv"))
    assert "i3d of width 0.125" in card
    assert "resnet50 of width 0.125" in card


def test_any_tower_may_be_convolutional():
    """Backbones mix freely: I3D beside a waveform Transformer, a ResNet beside a video Transformer."""
    resnet = {**SPECTROGRAM, "encoder_type": "resnet50", **NARROW}
    for overrides in ({"audio_config": AUDIO}, {"video": {"encoder_type": "transformer"}}):
        config = small_config("mmv", **{"audio_config": resnet, **overrides})
        model = seeded(VattForPreTraining, config).train()
        model(**small_inputs(config, 4, 2)).loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
