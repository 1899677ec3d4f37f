# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The analyses: what hooks see, maps, densities, costs, DropToken, figures and the report."""

import base64
import importlib
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scripts import EXAMPLES
from small_models import VARIANTS, small_config, small_inputs
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from modeling_vatt import VattForPreTraining, VattForVideoClassification, VattModel
from modeling_vatt.analysis import (
    ActivationMean,
    CostCounter,
    InputSize,
    activation_summary,
    activation_table,
    choose_classes,
    class_maps,
    density,
    drop_token_tradeoff,
    dropping_tokens,
    extract_features,
    modality_maps,
    neighbour_agreement,
    observe,
    pad_width,
    pair_similarities,
    paper_comparison,
    project,
    similarity_densities,
)
from modeling_vatt.analysis.figures import (
    MODALITY_STYLES,
    plot_activation_summary,
    plot_activations,
    plot_densities,
    plot_drop_token,
    plot_maps,
)
from modeling_vatt.analysis.report import Section, write_report
from modeling_vatt.cli import app


def seeded_model(variant: str = "specific", **overrides) -> VattModel:
    torch.manual_seed(0)
    return VattModel(small_config(variant, **overrides)).eval()


def batches_of(inputs: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    count = len(inputs["pixel_values_videos"])
    return [{k: v[i : i + size] for k, v in inputs.items()} for i in range(0, count, size)]


# --- features ---


@pytest.mark.parametrize("modality", ["video", "text"])
@pytest.mark.parametrize("tokens", ["all", "agg"])
def test_activations_are_mlp_outputs_before_the_residual_sum(modality, tokens):
    model = seeded_model("agnostic", attn_implementation="eager")
    inputs = small_inputs(model.config, 3)
    activations = ActivationMean()
    extract_features(model, [inputs], activations, tokens)

    ids = inputs["input_ids"]
    values = inputs["pixel_values_videos"] if modality == "video" else ids
    output = getattr(model, f"get_{modality}_features")(values, output_hidden_states=True)
    words = torch.ones(output.last_hidden_state.shape[:2], dtype=torch.bool)
    if modality == "text":
        words[:, 1:] = ids != 0
        assert not words.all()
    mask = torch.zeros(words.shape).masked_fill(~words, -1e9)[:, None, None]
    for number, layer in enumerate(model.encoder.layers):
        hidden = output.hidden_states[number]
        hidden = hidden + layer.self_attn(layer.layer_norm1(hidden), mask)[0]
        mlp = layer.mlp.fc2(torch.nn.functional.gelu(layer.mlp.fc1(layer.layer_norm2(hidden))))
        torch.testing.assert_close(hidden + mlp, output.hidden_states[number + 1])
        expected = mlp[:, 0].mean(0) if tokens == "agg" else mlp[words].mean(0)
        np.testing.assert_allclose(activations.means()[modality][number], expected.detach(), atol=1e-6)


def test_streaming_equals_one_batch():
    model = seeded_model("agnostic").double()
    inputs = small_inputs(model.config, 5, dtype=torch.float64) | {
        "audio_mask": torch.tensor([1, 0, 1, 1, 0])
    }
    found = []
    for size in (5, 2, 1):
        activations = ActivationMean()
        features = extract_features(model, batches_of(inputs, size), activations)
        found.append((features, activations.means()))
    for features, means in found[1:]:
        for key, values in found[0][0].vectors.items():
            np.testing.assert_allclose(features.vectors[key], values, rtol=1e-6, atol=1e-7)
        for modality, values in found[0][1].items():
            np.testing.assert_allclose(means[modality], values, rtol=1e-9, atol=1e-12)


def test_words_after_padding_on_the_left():
    """The model moves them to the front, and so do the vectors of its input."""
    model = seeded_model()
    right, left = torch.tensor([[5, 6, 7, 0, 0]]), torch.tensor([[0, 0, 5, 6, 7]])
    found = [extract_features(model, [{"input_ids": ids}]).vectors["input", "text"] for ids in (right, left)]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_clips_that_lack_a_modality_are_not_fed():
    model = seeded_model()
    inputs = small_inputs(model.config, 4)
    masked = inputs | {"audio_mask": torch.tensor([1, 0, 1, 0]), "text_mask": torch.zeros(4)}
    activations, expected = ActivationMean(), ActivationMean()
    features = extract_features(model, [masked], activations)
    extract_features(model, [{"input_values": inputs["input_values"][[0, 2]]}], expected)
    np.testing.assert_allclose(activations.means()["audio"], expected.means()["audio"])
    assert set(activations.means()) == {"video", "audio"} == set(features.modalities("pooled"))
    (video, audio), rows = features.common("va", ["video", "audio"])
    assert rows.tolist() == [0, 2] and video.shape == audio.shape == (2, 12)
    assert np.isnan(features.vectors["pooled", "audio"][[1, 3]]).all()


def test_input_is_the_mean_over_words_without_agg_and_padding():
    model = seeded_model("agnostic")
    inputs = small_inputs(model.config, 3, candidates=2)  # the first candidate is used
    features = extract_features(model, [inputs])
    masked = {**inputs, "text_mask": torch.tensor([[1, 1], [0, 1], [1, 0]])}  # of captions
    second = extract_features(model, [masked]).vectors["input", "text"]
    np.testing.assert_allclose(second[[0, 2]], features.vectors["input", "text"][[0, 2]], atol=1e-6)
    assert np.isnan(second[1]).all()
    ids = inputs["input_ids"][:, 0]
    tokens = model.text_model.embeddings(ids)[:, 1:]
    for clip, length in enumerate((ids != 0).sum(1).tolist()):
        expected = tokens[clip, :length].mean(0).detach()
        np.testing.assert_allclose(features.vectors["input", "text"][clip], expected, atol=1e-6)
    patches = model.video_model.embeddings(inputs["pixel_values_videos"])[0][:, 1:]
    np.testing.assert_allclose(features.vectors["input", "video"], patches.mean(1).detach(), atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_observed_and_left_as_it_was(variant):
    model = seeded_model(variant)
    features = extract_features(model, [small_inputs(model.config, 3)])
    expected = model(**small_inputs(model.config, 3))
    np.testing.assert_allclose(features.vectors["vt", "text"], expected.text_vt_embeds.detach(), atol=1e-5)
    # Convolutional towers have no tokens.
    with_tokens = {"text"} if variant == "mmv" else {"video", "audio", "text"}
    assert {name for place, name in features.vectors if place == "input"} == with_tokens
    assert not any(module._forward_hooks for module in model.modules())


def test_a_classifier_has_one_modality():
    config = small_config(num_labels=3)
    model = VattForVideoClassification(config).eval()
    features = extract_features(model, [small_inputs(config, 2)])
    assert set(features.vectors) == {("input", "video"), ("pooled", "video")}
    with pytest.raises(ValueError, match="in training mode"):
        next(observe(seeded_model().train(), []))
    with pytest.raises(ValueError, match='"all" or "agg"'):
        next(observe(model, [], "some"))


# --- maps ---


def test_neighbours_and_chance():
    random = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [20, 30, 50])
    apart = random.normal(size=(100, 8)) + 50 * np.eye(8)[np.repeat([0, 1, 2], [20, 30, 50])]
    share, chance = neighbour_agreement(apart, labels)
    assert share == 1.0 and chance == pytest.approx((20 * 19 + 30 * 29 + 50 * 49) / 9900)
    share, _ = neighbour_agreement(random.normal(size=(100, 8)), labels)
    assert share == pytest.approx(chance, abs=0.1)


@pytest.mark.parametrize(("sizes", "k"), [((3, 3), 10), ((2, 2, 2), 10), ((2, 9), 5), ((1, 4, 4), 10)])
def test_few_points_of_a_kind_are_apart_or_mixed(sizes, k):
    """Groups far apart agree wholly, however few points they have; neighbours of a point by hand."""
    labels = np.repeat([f"group {i}" for i in range(len(sizes))], sizes)
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(len(sizes), 6), sizes, axis=0)
    apart = centres + 0.01 * random.normal(size=centres.shape)
    share, chance = neighbour_agreement(apart, labels, k)
    assert share == 1
    pairs = np.array([size for size in sizes for _ in range(size) if size > 1])
    assert chance == pytest.approx(((pairs - 1) / (len(labels) - 1)).mean())
    vectors = random.normal(size=(len(labels), 6))
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for i, label in enumerate(labels):
        count = min(k, int((labels == label).sum()) - 1)
        nearest = [j for j in np.argsort(-units @ units[i]) if j != i][:count]
        shares += [np.mean(labels[nearest] == label)] if count else []
    assert neighbour_agreement(vectors, labels, k)[0] == pytest.approx(np.mean(shares))


def test_labels_that_nobody_shares_have_no_agreement():
    assert np.isnan(neighbour_agreement(np.eye(4), list("abcd"))).all()


def test_padding_keeps_angles():
    random = np.random.default_rng(0)
    narrow, wide = random.normal(size=(4, 3)), random.normal(size=(5, 7))
    one, other = pad_width([narrow, wide])
    assert one.shape == (4, 7) and other is not wide
    np.testing.assert_allclose(one @ one.T, narrow @ narrow.T)


def clusters(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(count, 6)) + 40 * np.eye(6)[np.arange(count) % 2]


def check_map(points: np.ndarray) -> None:
    """Each point lies nearer to the middle of its own cluster."""
    middle = [points[i::2].mean(0) for i in (0, 1)]
    nearer = np.argmin([[np.linalg.norm(point - m) for m in middle] for point in points], axis=1)
    assert (nearer == np.arange(len(points)) % 2).all()


def test_maps_are_seeded_and_keep_clusters():
    points = project(clusters(40), "tsne")
    assert points.shape == (40, 2)
    check_map(points)
    np.testing.assert_array_equal(points, project(clusters(40), "tsne"))
    assert np.isfinite(project(clusters(4), "tsne")).all()


@pytest.mark.slow
def test_umap_keeps_clusters():
    pytest.importorskip("umap", reason="the extra `umap` is not installed")
    check_map(project(clusters(40), "umap"))
    assert np.isfinite(project(clusters(4), "umap")).all()


def test_bad_requests_for_maps_are_refused():
    with pytest.raises(ValueError, match="at least 4 points"):
        project(np.ones((3, 2)))
    with pytest.raises(ValueError, match='"tsne" or "umap"'):
        project(np.ones((5, 2)), "pca")


def test_many_classes_are_thinned_out_with_a_seed():
    labels = [f"class {i:03d}" for i in range(400)] + [None]
    chosen = choose_classes(labels, 100, seed=3)
    assert len(set(chosen)) == 100 and chosen == sorted(chosen) == choose_classes(labels, 100, seed=3)
    assert chosen != choose_classes(labels, 100, seed=4)
    assert choose_classes([2, 1, 2], 5) == ["1", "2"]


# --- similarities ---


def test_positives_are_the_diagonal():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 6, 4))
    cosines = (one / np.linalg.norm(one, axis=1)[:, None]) @ (
        other / np.linalg.norm(other, axis=1)[:, None]
    ).T
    pairs = pair_similarities(one, other)
    np.testing.assert_allclose(pairs.positive, np.diag(cosines))
    np.testing.assert_allclose(np.sort(pairs.random), np.sort(cosines[~np.eye(6, dtype=bool)]))
    few = pair_similarities(one, other, max_random=7)
    assert len(few.random) == 7 and np.isin(few.random.round(9), pairs.random.round(9)).all()
    assert pair_similarities(one, one).auc == 1.0
    with pytest.raises(ValueError, match="one shape with at least 2 clips"):
        pair_similarities(one, other[:, :3])


@pytest.mark.parametrize("values", [np.random.default_rng(0).normal(size=50), np.full(5, 0.3)])
def test_density_integrates_to_one(values):
    places = np.linspace(-9, 9, 20001)
    found = density(values, places)
    assert np.trapezoid(found, places) == pytest.approx(1, abs=1e-6)
    assert places[np.argmax(found)] == pytest.approx(np.median(values), abs=0.5)


# --- costs ---


@pytest.mark.parametrize("variant", ["specific", "agnostic", "spectrogram", "linear_text", "geglu"])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_true_count_is_what_a_real_forward_pass_does(variant, keep):
    config = small_config(variant, attn_implementation="eager")
    table = CostCounter(config).table(keep=keep).set_index("part")
    for tower in (config.video_config, config.audio_config):
        if getattr(tower, "input_type", "waveform") == "waveform":
            tower.drop_token_rate = 1 - keep
    model = VattModel(config).train(keep < 1)
    inputs = small_inputs(config, 2)  # two clips: batch norm in training
    inputs["input_ids"][:] = 1
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    assert table["true_gflops"]["total"] * 1e9 == pytest.approx(counter.get_total_flops() / 2, rel=1e-9)
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert table["parameters"]["total"] == counted
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert table["frozen"]["total"] == frozen > 0


def test_true_count_by_hand():
    config = small_config()
    video = config.video_config  # 16 tokens of 2 x 4 x 4 x 3 values, 2 layers of width 16, MLP 24
    products = 4 * 16 * 16 + 2 * 16 * 24
    for keep, kept in ((1.0, 16), (0.5, 8)):
        true = 2 * 96 * 16 * kept + 2 * (2 * (kept + 1) * products + 4 * (kept + 1) ** 2 * 16)
        paper = 2 * 96 * 16 * 16 + 2 * (2 * kept * products + 2 * kept**2 * 16)
        row = CostCounter(config, ("video",)).table(keep=keep, views=3).iloc[0]
        assert row["kept"] == kept and video.hidden_size == 16
        assert row["true_gflops"] * 1e9 == pytest.approx(3 * true)
        assert row["paper_gflops"] * 1e9 == pytest.approx(3 * paper)


def test_costs_of_the_paper():
    table = paper_comparison()
    assert table["table"].value_counts().to_dict() == {"1": 4, "5": 4, "6": 6, "7": 4, "text": 4}
    # The paper's 20.9 M for the Small text tower could not be reproduced.
    known = table[table["item"] != "Small tower"]
    assert known["difference_percent"].abs().max() < 1.5
    # The counts of the release, as in tests/convert.
    true = table.set_index("item")["true"]
    assert true["bbs model"] == pytest.approx(193.877292, abs=1e-9)
    assert true["ma_medium model"] == pytest.approx(162.990336, abs=1e-9)


def test_flops_command(tmp_path):
    small_config().save_pretrained(tmp_path / "model")
    command = ["flops", str(tmp_path / "model"), "--size", "8", "--size", "16", "--keep", "0.5", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = [row for row in json.loads(result.stdout) if row["part"] == "video"]
    assert [(row["input"], row["kept"], row["kept_share"]) for row in rows] == [
        ("8 x 8 x 8", 8, 0.5),
        ("8 x 16 x 16", 32, 0.5),
    ]
    assert "paper_gflops" in CliRunner().invoke(app, command[:2]).output
    for arguments, message in (
        (["flops"], "Give a model, or --paper"),
        (["flops", "huge"], "Unknown VATT preset"),
        (["flops", str(tmp_path / "model"), "--keep", "1.5"], "must be in (0, 1]"),
        (["flops", str(tmp_path / "model"), "--size", "2"], "smaller than one patch"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code and message in result.output, arguments


# --- DropToken ---


def test_dropping_tokens_is_seeded_and_undone():
    model = seeded_model(every={"hidden_dropout_prob": 0.5, "position_dropout_prob": 0.5})
    inputs = small_inputs(model.config, 2)["pixel_values_videos"]
    full = model.get_video_features(inputs)
    rate = model.config.video_config.drop_token_rate
    state = torch.random.get_rng_state()
    found = []
    for _ in range(2):
        with dropping_tokens(model, 0.25, seed=1):
            found.append(model.get_video_features(inputs))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0].kept_tokens.tolist() == found[1].kept_tokens.tolist() and len(found[0].kept_tokens) == 4
    # Dropout is off, so that the same tokens give the same features.
    assert torch.equal(found[0].pooler_output, found[1].pooler_output)
    with dropping_tokens(model, 1.0):
        assert torch.equal(model.get_video_features(inputs).pooler_output, full.pooler_output)
    assert torch.equal(model.get_video_features(inputs).pooler_output, full.pooler_output)
    assert model.config.video_config.drop_token_rate == rate
    assert not any(module.training for module in model.modules())
    with pytest.raises(ValueError, match="in evaluation mode"), dropping_tokens(model.train(), 0.5):
        pass
    with pytest.raises(ValueError, match="in \\(0, 1\\]"), dropping_tokens(model.eval(), 0):
        pass


def tradeoff(model: VattForPreTraining) -> pd.DataFrame:
    seen = []

    def evaluate(size: InputSize) -> dict[str, float]:
        inputs = torch.zeros(1, *size.shape(model.config.video_config))
        output = model.get_video_features(inputs)
        kept = output.last_hidden_state.shape[1] - 1
        seen.append(kept)
        return {"quality (%)": float(kept)}

    sizes = (InputSize(), InputSize(frames=8, size=16))
    table = drop_token_tradeoff(model, evaluate, (0.5, 1.0), sizes, batch_size=1, repeats=1)
    assert seen == [8, 16, 32, 64]
    return table


def test_accuracy_of_labelled_clips(monkeypatch):
    """Labels that the classifier does not have are no wrong answers."""
    monkeypatch.syspath_prepend(EXAMPLES)
    accuracy = importlib.import_module("analyse").accuracy
    kind = type("Model", (SimpleNamespace,), {"__call__": lambda self, x: SimpleNamespace(logits=x)})
    config = SimpleNamespace(id2label={0: "1", 1: "2"})
    model = kind(config=config, modality="video", device="cpu")
    batches = [{"pixel_values_videos": torch.eye(2)[[0, 1]]}, {"pixel_values_videos": torch.eye(2)[[0]]}]
    labels = [1, None, 2]
    clips = SimpleNamespace(labels=lambda column: labels)
    assert accuracy(model, batches, clips, "label") == 0.5
    labels[0] = 1.0
    with pytest.raises(ValueError, match=r"no class '1\.0' of the column 'label'"):
        accuracy(model, batches, clips, "label")


def test_tradeoff_drops_while_it_evaluates():
    table = tradeoff(VattForPreTraining(small_config()).eval())
    assert table["input"].tolist() == ["8 x 8 x 8"] * 2 + ["8 x 16 x 16"] * 2
    assert table["kept_tokens"].tolist() == [8 + 6, 16 + 12, 32 + 6, 64 + 12]
    assert (table["seconds_per_clip"] > 0).all() and table["true_gflops"].is_monotonic_increasing


# --- figures and report ---


@pytest.fixture(scope="module")
def sections() -> list[Section]:
    """Everything that the package shows, of two small models."""
    models, means = {}, {}
    labels = [f"<class {i % 20}>" for i in range(24)]
    for name in ("specific", "agnostic"):
        # Text narrower than video in the specific model.
        narrow = {"text": {"hidden_size": 12}} if name == "specific" else {}
        model = seeded_model(name, **narrow)
        activations = ActivationMean()
        models[name] = extract_features(model, batches_of(small_inputs(model.config, 24), 8), activations)
        means[name] = activations.means()
    points, summary = class_maps(models, dict.fromkeys(models, labels), max_classes=18)
    assert set(points["label"]) <= set(labels) and points["label"].nunique() == 18
    assert summary["points"].eq(len(points) / 2).all()
    places, mixing = modality_maps(models)
    assert places.groupby(["model", "space"]).ngroups == 6 and mixing["mixing"].between(0, 1.5).all()
    curves, aucs = similarity_densities(models)
    by_model = {name: set(rows["space"]) for name, rows in aucs.groupby("model")}
    assert by_model["agnostic"] - by_model["specific"] == {"video-text, input"}  # no cosine
    table = activation_table(means["agnostic"])
    assert len(table) == 3 * 2 * 16 and table["layer"].max() == 2
    assert table["mean_activation"].iloc[17] == means["agnostic"]["video"][1, 1]
    shares = activation_summary(means["agnostic"], True)
    np.testing.assert_allclose(shares.groupby("layer")["strongest_share"].sum(), 1)
    assert "strongest_share" not in activation_summary(means["specific"], False)
    drop = tradeoff(VattForPreTraining(small_config()).eval())
    drop.insert(0, "model", "specific")
    return [
        Section("classes", "Classes & more", "Read <this>.", plot_maps(points, "class"), points, summary),
        Section("modalities", "Modalities", "Read.", plot_maps(places, "modality"), places, mixing),
        Section("similarities", "Similarities", "Read.", plot_densities(curves), curves, aucs),
        Section("activations", "Activations", "Read.", plot_activations(means["agnostic"]), table),
        Section("layers", "Layers", "Read.", plot_activation_summary(shares), shares),
        Section("drop_token", "DropToken", "Read.", plot_drop_token(drop, ["quality (%)"]), drop, drop),
    ]


def test_figures_are_labelled(sections):
    figures = {section.name: section.figure for section in sections}
    for name in ("similarities", "activations", "layers", "drop_token"):
        for axes in figures[name].axes:
            if axes.axison and axes.get_label() != "<colorbar>":
                assert axes.get_xlabel() and axes.get_ylabel(), name
    for name in ("classes", "modalities"):
        assert all(axes.get_title() for axes in figures[name].axes)
        assert figures[name].legends[0].get_title().get_text()
    assert len(figures["classes"].legends[0].get_texts()) == 18
    looks = [
        (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
        for points in figures["classes"].axes[0].collections
    ]
    assert len(set(looks)) == 18
    assert len({style[0] for style in MODALITY_STYLES.values()}) == 3
    texts = [text.get_text() for axes in figures["similarities"].axes for text in axes.texts]
    assert len(texts) == 1 and "no cosine" in texts[0]


def test_report_opens_without_a_network(sections, tmp_path):
    page = write_report(tmp_path / "new" / "out", "A & B", sections, {"clips": "<24>"}).read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == len(re.findall("<img", page)) == len(sections)
    for image in images:
        picture = Image.open(io.BytesIO(base64.b64decode(image, validate=True)))
        picture.load()
        assert min(picture.size) > 200
    assert "//" not in re.sub(r'src="data:[^"]+"', "", page)  # no address of any kind
    assert (
        "<script" not in page and "A &amp; B" in page and "&lt;24&gt;" in page and "Read &lt;this&gt;" in page
    )
    for section in sections:
        assert f'id="{section.name}"' in page and f'href="tables/{section.name}.csv"' in page
        table = pd.read_csv(tmp_path / "new" / "out" / "tables" / f"{section.name}.csv")
        assert list(table.columns) == list(section.table.columns) and len(table) == len(section.table)
        drawing = (tmp_path / "new" / "out" / "figures" / f"{section.name}.svg").read_text()
        assert drawing.startswith("<?xml") and "<svg" in drawing


def test_nothing_to_compare_is_said():
    config = small_config(num_labels=3)
    model = VattForVideoClassification(config).eval()
    features = {"only": extract_features(model, [small_inputs(config, 5)])}
    for analysis in (modality_maps, similarity_densities):
        with pytest.raises(ValueError, match="two modalities"):
            analysis(features)
    with pytest.raises(ValueError, match="audio tower"):
        class_maps(features, {"only": list("ababa")}, "audio")
