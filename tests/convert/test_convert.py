# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The converter: mapping, inference of configs, files, downloads, and what can be wrong with them."""

import base64
import hashlib
import http.server
import io
import json
import pickle
import re
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from goldens import BOUND, GOLDENS, difference, golden_inputs, load_golden, random_model
from tower_folders import CLIP
from transformers import AutoModelForVideoClassification
from typer.testing import CliRunner

from modeling_vatt import (
    VattAudioConfig,
    VattConfig,
    VattForAudioClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
    VattVideoConfig,
)
from modeling_vatt.cli import app
from modeling_vatt.convert import (
    RELEASES,
    ConversionError,
    Variables,
    build_model,
    convert_checkpoint,
    export_variables,
    infer_config,
    load_variables,
    open_variables,
    read_misc_data,
)
from modeling_vatt.convert import release as release_module
from modeling_vatt.convert.bundle_index import check_sizes
from modeling_vatt.convert.converter import model_table
from modeling_vatt.convert.misc_data import load_array_pickle
from modeling_vatt.convert.release import fetch, fetch_release
from modeling_vatt.convert.writing import read_labels
from modeling_vatt.processors import VattFeatureExtractor, VattProcessor, VattVideoProcessor


CASES = ("tx_fac", "ut_fac", "tx_fac_spectrogram", "vit_classification", "wat_classification")
REAL_SIZES = GOLDENS.parent / "checkpoint_variables"
WORD_TABLE = "model/layer_with_weights-0/_base_layer/txt_backbone/embedding/embeddings"


@pytest.fixture(scope="module")
def tensorflow():
    return pytest.importorskip("tensorflow", reason="needs pip install 'modeling_vatt[tf]'")


def golden_arrays(case):
    return dict(np.load(GOLDENS / case / "weights.npz"))


def vatt(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


# Mapping and inference -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_way_back(case):
    """A converted model under the release's names is the source, tensor for tensor."""
    source = open_variables(GOLDENS / case / "weights.npz")
    exported = export_variables(load_variables(source, head_dim=8))
    assert set(exported) == set(source)
    for name, array in exported.items():
        np.testing.assert_array_equal(array, source[name])


@pytest.mark.parametrize(
    "fields",
    [
        {"towers": {"video": {"projection": "mlp"}}},
        {"loss_type": "sigmoid"},
        {"video_config": VattVideoConfig.i3d(width_multiplier=0.125)},
        {"video_config": CLIP.vision_config},
        {"modality_agnostic": True, "video_config": {"use_input_masking": True}},
    ],
)
def test_what_the_release_has_no_place_for_is_not_left_out(fields):
    preset = "ma_tiny" if "modality_agnostic" in fields else "tiny"
    model = VattForPreTraining(VattConfig.from_preset(preset, **fields))
    with pytest.raises(ConversionError, match=r"release has no variables for|no counterpart in the release"):
        export_variables(model)


# name -> class, trainable parameters and all values, as the official configs make them, preset
REAL = {
    "tx_fac_bbs": (VattForPreTraining, 193_877_292, 213_540_652, "bbs"),
    "tx_fac_mbs": (VattForPreTraining, 260_905_772, 280_569_132, "mbs"),
    "tx_fac_lbs": (VattForPreTraining, 412_060_460, 431_723_820, "lbs"),
    "ut_fac_medium": (VattForPreTraining, 162_990_336, 182_653_696, "ma_medium"),
    "vit_base_k400": (VattForVideoClassification, 87_446_016 + 769 * 400, 87_753_616, None),
    "vit_medium_k400": (VattForVideoClassification, 154_343_424 + 1025 * 400, 154_753_424, None),
    "vit_large_k400": (VattForVideoClassification, 305_498_112 + 1025 * 400, 305_908_112, None),
    "vit_medium_k400_from_agnostic": (
        VattForVideoClassification,
        156_442_624 + 1025 * 400,
        156_852_624,
        None,
    ),
    "wat_base_audioset": (VattForAudioClassification, 86_078_976 + 769 * 527, 86_484_239, None),
    "wat_medium_audioset_from_agnostic": (
        VattForAudioClassification,
        154_619_904 + 1025 * 527,
        155_160_079,
        None,
    ),
}


def real_variables(name):
    shapes = {}
    for line in (REAL_SIZES / f"{name}.tsv").read_text().splitlines():
        if not line.startswith("#"):
            variable, shape, _ = line.split("\t")
            shapes[variable] = () if shape == "scalar" else tuple(int(extent) for extent in shape.split("x"))

    def unread(variable):
        raise AssertionError(f"{variable} was read")

    return Variables(shapes, unread, name)


def test_every_real_size_is_listed():
    assert {path.stem for path in REAL_SIZES.glob("*.tsv")} == set(REAL)


@pytest.mark.parametrize("name", REAL)
def test_real_sizes(name):
    """Exactly the listed variables, shapes and counts, on the meta device and without reading anything."""
    model_class, trainable, values, preset = REAL[name]
    variables = real_variables(name)
    model, table = build_model(variables.shapes, name)
    assert type(model) is model_class
    assert {entry.variable for entry in table} == set(variables)
    state = model.state_dict()
    for entry in table:
        assert entry.variable_shape(tuple(state[entry.parameter].shape)) == variables.shapes[entry.variable]
    assert all(value.is_meta for value in state.values())
    assert sum(value.numel() for value in state.values()) == values
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable
    if preset is not None:
        assert model.config.to_dict() == VattConfig.from_preset(preset).to_dict()
    else:
        assert model.config.num_labels == (527 if "audioset" in name else 400)
        tower = model.config.audio_config if "audioset" in name else model.config.video_config
        assert tower.drop_token_rate == 0
        assert tower.use_pre_projection == tower.use_post_projection == ("agnostic" in name)


@pytest.mark.parametrize(
    "settings",
    [
        {"head_type": "joint", "vt_projection_size": 14},
        {"text": {"encoder_type": "linear", "num_hidden_layers": 0}},
        {"text": {"encoder_type": "bert"}},
        {"text": {"encoder_type": "bert", "pre_norm": False, "use_bias": False}},
        {"text": {"use_post_projection": True}},
        {"video": {"hidden_act": "geglu", "use_input_masking": True}, "audio": {"pre_norm": False}},
        {"video": {"use_pre_projection": True}, "audio": {"use_post_projection": True}},
    ],
)
def test_every_option_of_the_release(settings):
    """Config and weights of variants without a published checkpoint come back from their variables."""
    model, _ = random_model(**settings)
    model = model.float()
    shapes = {name: array.shape for name, array in export_variables(model).items()}
    overrides = {f"{tower}_config": {"num_attention_heads": 2} for tower in ("video", "audio", "text")}
    again = load_variables(Variables.from_arrays(export_variables(model)), overrides=overrides)
    _, config = infer_config(shapes, overrides=overrides)
    for tower in ("video_config", "audio_config", "text_config"):
        ours, theirs = getattr(config, tower).to_dict(), getattr(model.config, tower).to_dict()
        unseen = {"max_position_embeddings", "projection_size"}  # where nothing in the model depends on them
        if theirs.get("encoder_type") == "linear":
            unseen |= {"intermediate_size", "num_attention_heads", "head_dim"}
        assert {k: v for k, v in ours.items() if k not in unseen} == {
            k: v for k, v in theirs.items() if k not in unseen
        }
    assert config.head_type == model.config.head_type
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(("num_frames", "length"), [(32, 150), (64, 300)])
def test_converted_spectrogram_towers_take_48_khz(num_frames, length):
    """Tables hide what fills no patch (9 rows of 16 frames are 144 of 150): the rate stays the release's."""
    tower = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    config = VattConfig(
        video_config={**tower, "num_frames": num_frames},
        audio_config=VattAudioConfig.spectrogram("base", **tower, spectrogram_length=length),
        text_config={**tower, "vocab_size": 50},
    )
    with torch.device("meta"):
        model = VattForPreTraining(config)
    state = model.state_dict()
    shapes = {e.variable: e.variable_shape(tuple(state[e.parameter].shape)) for e in model_table(model)}
    _, back = infer_config(shapes)
    assert (back.audio_config.spectrogram_length, back.audio_config.num_mel_bins) == (length, 80)
    assert (back.video_config.num_frames, back.video_config.image_size) == (num_frames, 224)
    assert VattProcessor.media_parts_from_config(back)[0].sampling_rate == 48_000


def test_head_width():
    """From the relative bias table, an argument, one tower's override; never a silent guess."""
    shapes = {name: array.shape for name, array in golden_arrays("tx_fac").items()}
    _, config = infer_config(shapes)
    assert [getattr(config, f"{m}_config").head_dim for m in ("video", "audio", "text")] == [8, 8, 8]
    _, config = infer_config(shapes, head_dim=16, overrides={"audio_config": {"num_attention_heads": 1}})
    assert [config.video_config.head_dim, config.audio_config.head_dim] == [16, 32]
    assert config.text_config.num_attention_heads == 4
    agnostic = {name: array.shape for name, array in golden_arrays("ut_fac").items()}
    with pytest.raises(ConversionError, match="--head-dim"):
        infer_config(agnostic)
    _, config = infer_config(shapes, overrides={"temperature": 0.5, "video_config": {"hidden_act": "relu"}})
    assert (config.temperature, config.video_config.hidden_act) == (0.5, "relu")
    with pytest.raises(ConversionError, match="no_such_field"):
        infer_config(shapes, overrides={"video_config": {"no_such_field": 1}})


def broken(change):
    arrays = golden_arrays("tx_fac")
    change(arrays)
    return Variables.from_arrays(arrays, "broken.ckpt")


LAYER = "model/layer_with_weights-0/_base_layer/vid_backbone/_base/tx/layers/1/mha/q/kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.update({"model/layer_with_weights-0/extra/kernel": np.zeros(3, np.float32)}),
            "extra/kernel",
        ),
        (lambda a: a.pop(LAYER), LAYER),
        (lambda a: a.pop(WORD_TABLE), "txt_backbone/embedding"),
        (
            lambda a: a.update({LAYER: np.zeros((32, 31), np.float32)}),
            r"layers/1/mha/q/kernel has shape \(32, 31\)",
        ),
        (lambda a: a.update({LAYER: a[LAYER].astype(np.float64)}), "float64"),
        (lambda a: [a.pop(name) for name in list(a) if "vid_backbone" in name], "not a VATT checkpoint"),
        (lambda a: [a.pop(name) for name in list(a) if "/layers/0/" in name and "vid" in name], "lacks"),
        (lambda a: (a.clear(), a.update({"bert/embeddings": np.zeros(3, np.float32)})), "bert/embeddings"),
    ],
)
def test_wrong_variables(change, message, tmp_path):
    """Too many, too few, other shapes, another model: named, and nothing is left in the output folder."""
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(broken(change), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Whole conversions -----------------------------------------------------------------------------------------


def test_converted_folder(tmp_path):
    done = convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", tmp_path / "new" / "out")
    assert (done.model_class, done.num_variables, done.num_skipped) == ("VattForPreTraining", 124, 0)
    assert any("tokenizer" in note for note in done.notes)
    names = {path.name for path in done.output.iterdir()}
    assert {"model.safetensors", "config.json", "README.md"} <= names
    assert [path.name for path in done.output.parent.iterdir()] == ["out"]
    model = VattForPreTraining.from_pretrained(done.output)
    inputs, _ = golden_inputs("tx_fac")
    golden = np.load(GOLDENS / "tx_fac" / "outputs_eval.npz")
    with torch.no_grad():
        outputs = model(**inputs, return_loss=False)
    assert difference(outputs.text_vt_embeds, golden["head_stack.bridge.text.tovid"]) <= BOUND
    assert VattVideoProcessor.from_pretrained(done.output).num_frames == 8
    assert VattFeatureExtractor.from_pretrained(done.output).num_samples == 1024
    assert VattModel.from_pretrained(done.output).config.video_config.head_dim == 8
    card = (done.output / "README.md").read_text()
    assert card.startswith("---\n") and "library_name: transformers" in card and "license" not in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace('"out"', repr(str(done.output)))
    exec(code, {})


def test_classifiers(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"class {i}" for i in range(7)))
    release = RELEASES["vit_base_k400"]
    done = convert_checkpoint(
        GOLDENS / "vit_classification" / "weights.npz",
        tmp_path / "vit",
        labels=labels,
        head_dim=8,
        release=release,
    )
    model = AutoModelForVideoClassification.from_pretrained(done.output)
    assert type(model) is VattForVideoClassification
    assert model.config.id2label[6] == "class 6" and model.config.label2id["class 0"] == 0
    assert model.config.problem_type == "single_label_classification"
    processor = VattVideoProcessor.from_pretrained(done.output)
    assert (processor.crop_size.height, processor.fps) == (320, 12.5)
    assert "79.6 / 94.9" in (done.output / "README.md").read_text()

    done = convert_checkpoint(GOLDENS / "wat_classification" / "weights.npz", tmp_path / "wat", head_dim=8)
    sound = VattForAudioClassification.from_pretrained(done.output)
    assert sound.config.problem_type == "multi_label_classification" and sound.config.label_balancing
    assert VattFeatureExtractor.from_pretrained(done.output).sampling_rate == 24000
    assert any("--labels" in note for note in done.notes)


def test_each_variable_is_read_once():
    arrays, reads = golden_arrays("ut_fac"), []

    def read(name):
        reads.append(name)
        return arrays[name]

    load_variables(
        Variables({name: array.shape for name, array in arrays.items()}, read, "counted"), head_dim=8
    )
    assert sorted(reads) == sorted(arrays)


def test_nothing_half_written(tmp_path):
    """A checkpoint that fails at its last variable, into a new folder and over an old one."""
    arrays = golden_arrays("tx_fac")

    def read(name):
        if name == sorted(arrays)[-1]:
            raise ConversionError("the disk broke")
        return arrays[name]

    variables = Variables({name: array.shape for name, array in arrays.items()}, read, "dying")
    with pytest.raises(ConversionError, match="disk broke"):
        convert_checkpoint(variables, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(ConversionError, match="disk broke"):
        convert_checkpoint(variables, tmp_path / "out", overwrite=True)
    with pytest.raises(ConversionError, match="not empty"):
        convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", tmp_path / "out")
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "precious.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ConversionError, match="is a file"):
        convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", GOLDENS / "README.md")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "b\na\n\nc c\n"),
        ("names.json", '["b", "a", "c c"]'),
        ("names.json", '{"1": "a", "0": "b", "2": "c c"}'),
        ("names.csv", "index,mid,display_name\n0,/m/1,b\n1,/m/2,a\n2,/m/3,c c\n"),
    ],
)
def test_labels(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    assert read_labels(path, 3) == ["b", "a", "c c"]
    with pytest.raises(ConversionError, match="3 different classes"):
        read_labels(path, 4)


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("b.csv", "x,y\n1,2\n"), ("c.txt", "same\nsame\nother"), ("d.json", "3")],
)
def test_bad_labels(name, text, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConversionError, match=name):
        read_labels(path, 3)


# Files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["tx_fac", "ut_fac", "wat_classification"])
def test_tensorflow_checkpoint(case, tensorflow):
    """The official file, Adam slots and all, holds what the arrays say."""
    variables = open_variables(GOLDENS / case / "ckpt-1")
    arrays = golden_arrays(case)
    assert set(variables) == set(arrays)
    assert (variables.num_skipped > 200) == (case == "tx_fac")
    for name, array in arrays.items():
        np.testing.assert_array_equal(variables[name], array)


def test_one_command(tensorflow, tmp_path):
    result = vatt(GOLDENS / "tx_fac" / "ckpt-1", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "124 variables" in result.output
    model = VattForPreTraining.from_pretrained(tmp_path / "out")
    assert all(
        torch.equal(value, model.state_dict()[name])
        for name, value in load_golden("tx_fac").state_dict().items()
    )


def test_paths_to_a_checkpoint(tensorflow, tmp_path):
    folder = GOLDENS / "wat_classification"
    for path in (folder, folder / "ckpt-1.index", folder / "ckpt-1.data-00000-of-00001"):
        assert len(open_variables(path)) == 42
    for name in ("a.index", "b.index"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConversionError, match="found a, b"):
        open_variables(tmp_path)


def copy_checkpoint(folder):
    for source in (GOLDENS / "wat_classification").glob("ckpt-1.*"):
        (folder / source.name).write_bytes(source.read_bytes())
    return folder / "ckpt-1"


def test_missing_files(tmp_path):
    with pytest.raises(ConversionError, match=r"nowhere\.index does not exist.*--list"):
        open_variables(tmp_path / "nowhere")
    with pytest.raises(ConversionError, match="found none"):
        open_variables(tmp_path)
    prefix = copy_checkpoint(tmp_path)
    data = tmp_path / "ckpt-1.data-00000-of-00001"
    data.rename(tmp_path / "ckpt-1.data-00000-of-00002")
    with pytest.raises(ConversionError, match="incomplete"):
        open_variables(prefix)
    (tmp_path / "ckpt-1.data-00000-of-00002").unlink()
    with pytest.raises(ConversionError, match="incomplete"):
        open_variables(prefix)


def numbers(field, value):
    """A field of a protocol buffer."""
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([field << 3, *(group | 0x80 for group in groups[:-1]), groups[-1]])


def test_sizes_of_several_data_files(tmp_path):
    """An index as LevelDB writes it, keys cut where they repeat; the official goldens have one data file."""
    entries = [
        (b"", numbers(1, 2)),
        (b"tower/a", numbers(1, 1) + numbers(5, 400)),
        (b"tower/b", numbers(3, 1) + numbers(4, 100) + numbers(5, 60) + b"\x35" + bytes(4)),
        (b"tower/c", numbers(4, 400) + numbers(5, 8)),
    ]
    blocks = []

    def block(pairs):
        content, before = b"", b""
        for key, value in pairs:
            shared = sum(1 for n in range(1, len(before) + 1) if key[:n] == before[:n])
            content += bytes([shared, len(key) - shared, len(value)]) + key[shared:] + value
            before = key
        content += bytes(4) + (1).to_bytes(4, "little")
        start = sum(map(len, blocks))
        blocks.append(content + bytes(5))  # not compressed; its checksum
        return numbers(0, start)[1:] + numbers(0, len(content))[1:]

    data = [(b"tower/a", block(entries[:2])), (b"tower/z", block(entries[2:]))]
    footer = block([]) + block(data)
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    (tmp_path / "ckpt-3.index").write_bytes(b"".join(blocks) + footer.ljust(40, b"\0") + magic)
    for number, size in enumerate((408, 160)):
        (tmp_path / f"ckpt-3.data-{number:05d}-of-00002").write_bytes(bytes(size))
    assert check_sizes(tmp_path / "ckpt-3") == 568
    result = vatt(tmp_path / "ckpt-3", "--verify")
    assert result.exit_code == 0 and "568 bytes" in result.output
    for size, fault in ((159, "truncated: 159"), (161, "too long")):
        (tmp_path / "ckpt-3.data-00001-of-00002").write_bytes(bytes(size))
        with pytest.raises(ConversionError, match=rf"data-00001-of-00002 is {fault}.*speaks of 160"):
            check_sizes(tmp_path / "ckpt-3")


def test_sizes_from_a_damaged_index(tmp_path):
    """Changed or cut off anywhere: sizes, or an error that names it."""
    prefix = copy_checkpoint(tmp_path)
    index = tmp_path / "ckpt-1.index"
    content = index.read_bytes()
    right = check_sizes(prefix)
    assert right == (tmp_path / "ckpt-1.data-00000-of-00001").stat().st_size
    generator = np.random.default_rng(0)
    for place in range(0, len(content), 23):
        changed = bytearray(content)
        changed[place] = generator.integers(256)
        for damaged in (bytes(changed), content[:place]):
            index.write_bytes(damaged)
            try:
                assert check_sizes(prefix) == right
            except ConversionError as error:
                assert "ckpt-1" in str(error)


def test_verified_folder(tmp_path):
    """Written with a fingerprint, and compared with it; nothing is converted twice."""
    source, out = GOLDENS / "wat_classification" / "weights.npz", tmp_path / "out"
    arguments = ["--output", out, "--verify"]
    result = vatt(source, *arguments, "--head-dim", 8)
    assert result.exit_code == 0 and "files are as they were converted" in result.output
    noted = json.loads((out / "fingerprint.json").read_text())["sha256"]
    assert {"config.json", "model.safetensors"} <= noted.keys() <= {path.name for path in out.iterdir()}
    for name, digest in noted.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    (out / "README.md").write_text("filled in")
    before = (out / "model.safetensors").stat().st_mtime_ns
    for again in ([source, *arguments], arguments):
        assert vatt(*again).exit_code == 0
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model.safetensors").write_bytes(weights)
    (out / "config.json").unlink()
    result = vatt(*arguments)
    assert result.exit_code == 1
    assert "config.json (missing), model.safetensors (changed)" in " ".join(result.output.split())
    assert vatt(source, *arguments, "--head-dim", 8, "--overwrite").exit_code == 0
    for damaged in ("{", "[]", '{"sha256": {"../other": ""}}'):
        (out / "fingerprint.json").write_text(damaged)
        assert "fingerprint.json is damaged" in vatt(*arguments).output
    (out / "fingerprint.json").unlink()
    assert "fingerprint.json: no such file" in vatt(*arguments).output


def test_damaged_files(tensorflow, tmp_path):
    prefix = copy_checkpoint(tmp_path)
    data, index = tmp_path / "ckpt-1.data-00000-of-00001", tmp_path / "ckpt-1.index"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    result = vatt(prefix, "--output", tmp_path / "out", "--head-dim", 8)
    assert result.exit_code == 1 and "truncated" in result.output and "Traceback" not in result.output
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 0xFF  # caught by the checksums of the format
    data.write_bytes(bytes(flipped))
    result = vatt(prefix, "--output", tmp_path / "out", "--head-dim", 8)
    assert result.exit_code == 1 and "damaged" in result.output
    index.write_bytes(b"no index" * 100)
    result = vatt(prefix, "--output", tmp_path / "out", "--head-dim", 8)
    assert result.exit_code == 1 and "ckpt-1.index" in result.output
    assert not (tmp_path / "out").exists()


def test_without_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    result = vatt(GOLDENS / "tx_fac" / "ckpt-1", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'modeling_vatt[tf]'" in result.output


def test_bad_npz(tmp_path):
    path = tmp_path / "weights.npz"
    objects = io.BytesIO()
    np.savez(objects, a=np.array([{}], dtype=object))
    for content in (None, b"nothing", objects.getvalue()):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConversionError, match=r"weights\.npz"):
            open_variables(path)


# misc_data.tgz ---------------------------------------------------------------------------------------------

WORDS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    *(f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)),
]


def make_archive(path, pickled, words=WORDS, prefix="./misc/"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("howto100m_en.txt", "\n".join(words).encode()), ("word2vec.pkl", pickled)):
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_vocabulary_and_word_table(tmp_path):
    table = np.random.default_rng(0).normal(size=(64, 12))
    archive = make_archive(tmp_path / "misc_data.tgz", pickle.dumps({"word_embeddings": table}))
    done = convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", tmp_path / "out", misc_data=archive)
    model = VattForPreTraining.from_pretrained(done.output)
    words = model.get_input_embeddings().weight
    np.testing.assert_array_equal(words.numpy(), table.astype(np.float32))
    assert any("taken from the misc data" in note for note in done.notes)
    processor = VattProcessor.from_pretrained(done.output)
    batch = processor(text=["Wordab, wordac: nonsense"])
    assert batch["input_ids"].flatten()[:4].tolist() == [5, 6, 3, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "misc_data.tgz"}

    same = make_archive(
        tmp_path / "same.tgz", pickle.dumps({"word_embeddings": golden_arrays("tx_fac")[WORD_TABLE]})
    )
    done = convert_checkpoint(GOLDENS / "tx_fac" / "weights.npz", tmp_path / "two", misc_data=same)
    assert any("equals" in note for note in done.notes)

    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(WORDS))
    arguments = (GOLDENS / "ut_fac" / "weights.npz", "--vocabulary", vocabulary, "--head-dim", 8)
    result = vatt(*arguments, "-o", tmp_path / "ut")
    assert result.exit_code == 0 and "words, the word table" not in result.output, result.output
    assert len(VattProcessor.from_pretrained(tmp_path / "ut").tokenizer) == 64
    vocabulary.write_text("\n".join(WORDS[:-1]))  # of another model?
    result = vatt(*arguments, "-o", tmp_path / "ut", "--overwrite")
    assert "63 words, the word table 64 rows: check" in " ".join(result.output.split())


def test_misc_data_that_does_not_fit(tmp_path):
    checkpoint = GOLDENS / "tx_fac" / "weights.npz"
    table = pickle.dumps({"word_embeddings": np.zeros((60, 12))})
    with pytest.raises(ConversionError, match=r"\(60, 12\)"):
        convert_checkpoint(checkpoint, tmp_path / "out", misc_data=make_archive(tmp_path / "a.tgz", table))
    table = pickle.dumps({"word_embeddings": np.zeros((64, 12))})
    archive = make_archive(tmp_path / "b.tgz", table, words=[*WORDS, "more"])
    with pytest.raises(ConversionError, match="65 words"):
        convert_checkpoint(checkpoint, tmp_path / "out", misc_data=archive)
    archive = make_archive(tmp_path / "c.tgz", table, words=["no", "specials"])
    with pytest.raises(ConversionError, match="vocabulary"):
        convert_checkpoint(checkpoint, tmp_path / "out", misc_data=archive)
    with pytest.raises(ConversionError, match="no words"):
        convert_checkpoint(
            GOLDENS / "wat_classification" / "weights.npz", tmp_path / "out", misc_data=archive, head_dim=8
        )
    labels = tmp_path / "labels.txt"
    labels.write_text("a")
    with pytest.raises(ConversionError, match="no classes"):
        convert_checkpoint(checkpoint, tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_in_pickles(protocol, dtype, order):
    array = np.asarray(np.random.default_rng(0).normal(size=(5, 3)).astype(dtype), order=order)
    data = pickle.dumps({"word_embeddings": array, "other": [1, "a", None]}, protocol)
    np.testing.assert_array_equal(load_array_pickle(data, "x.pkl", "word_embeddings"), array)


def test_array_pickled_by_python_2():
    """Byte strings where Python 3 has bytes, and NumPy's old module names."""
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    raw = array.tobytes().decode("latin1")
    escaped = "".join(f"\\x{ord(c):02x}" for c in raw)
    data = (
        "(dp0\nS'word_embeddings'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\n"
        "S'b'\np5\ntp6\nRp7\n(I1\n(I2\nI3\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n"
        "(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS'" + escaped + "'\np15\ntp16\nbs."
    )
    np.testing.assert_array_equal(load_array_pickle(data.encode(), "x.pkl", "word_embeddings"), array)


class Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path(__file__).touch()",))


class Opener:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(), "asks for builtins.exec"),
        ({"word_embeddings": Opener()}, "open"),
        ({"word_embeddings": Path("x")}, "pathlib"),
        ({"word_embeddings": np.array([Evil()], dtype=object)}, "instead of numbers|exec"),
        ({"word_embeddings": [1.0, 2.0]}, "no array named"),
        ({"others": np.zeros(2)}, "no array named"),
        ([1, 2], "no array named"),
    ],
)
def test_pickles_that_are_refused(content, message, tmp_path):
    archive = make_archive(tmp_path / "misc_data.tgz", pickle.dumps(content))
    with pytest.raises(ConversionError, match=message):
        read_misc_data(archive)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"cos\nsystem\n(S'true'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        pickle.dumps({"word_embeddings": np.zeros((2, 2))})[:-20],
        pickle.dumps({"word_embeddings": np.zeros((20, 20))}).replace(b"\x00" * 500, b""),
    ],
)
def test_damaged_and_hostile_pickles(data):
    with pytest.raises(ConversionError, match=r"x\.pkl"):
        load_array_pickle(data, "x.pkl", "word_embeddings")


def test_archives_that_are_refused(tmp_path):
    good = pickle.dumps({"word_embeddings": np.zeros((64, 12))})
    for prefix in ("../", "/abs/", "misc/../../"):
        with pytest.raises(ConversionError, match="leaves the archive"):
            read_misc_data(make_archive(tmp_path / "a.tgz", good, prefix=prefix))
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("misc/word2vec.pkl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ConversionError, match="no plain file"):
        read_misc_data(tmp_path / "b.tgz")
    with tarfile.open(tmp_path / "c.tgz", "w:gz"):
        pass
    with pytest.raises(ConversionError, match="lacks howto100m_en"):
        read_misc_data(tmp_path / "c.tgz")
    (tmp_path / "d.tgz").write_bytes(b"not an archive")
    for name in ("d.tgz", "nowhere.tgz"):
        with pytest.raises(ConversionError, match=name):
            read_misc_data(tmp_path / name)
    with pytest.raises(ConversionError, match=r"\(4,\)"):
        read_misc_data(make_archive(tmp_path / "e.tgz", pickle.dumps({"word_embeddings": np.zeros(4)})))


# Downloads -------------------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Files with ranges and Google's checksum header; drops connections as it is told to."""

    files: dict[str, bytes] = {}
    drop_after: list[int] = []
    checksum = True
    ranges = True
    requests: list[tuple[str, str | None]] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.requests.append((self.path, wanted))
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
        elif start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
        if self.checksum:
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            self.send_header("x-goog-hash", "crc32c=AAAAAA==")
            self.send_header("x-goog-hash", f"md5={digest}")
        self.end_headers()
        body = content[start:]
        if self.drop_after:
            body = body[: self.drop_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(release_module, "PAUSE", 0.0)

    class Fresh(Server):
        files, drop_after, requests = {}, [], []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        Fresh.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield Fresh
        running.shutdown()
        thread.join()


CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize(
    ("part", "drops", "server_is", "spans"),
    [
        (None, [], {}, [None]),
        (None, [1000, 3000], {}, [None, "bytes=1000-", "bytes=4000-"]),  # dropped twice
        (CONTENT, [], {}, ["bytes=10240-"]),
        (CONTENT + b"more", [], {}, ["bytes=10244-", None]),  # of another file
        (b"some bytes", [], {"ranges": False, "checksum": False}, ["bytes=10-"]),
    ],
)
def test_download(server, tmp_path, part, drops, server_is, spans):
    """With what an earlier run left, after connections that dropped, from a server that knows less."""
    server.files["/a"] = CONTENT
    server.drop_after += drops
    for name, value in server_is.items():
        setattr(server, name, value)
    if part is not None:
        (tmp_path / "a.part").write_bytes(part)
    seen = []
    for _ in range(2):  # what is there is not fetched again
        path = fetch(f"{server.url}/a", tmp_path / "a", lambda *state: seen.append(state))
        assert path.read_bytes() == CONTENT
    assert [span for _, span in server.requests] == spans
    assert seen[-1:] == ([] if part == CONTENT else [("a", len(CONTENT), len(CONTENT))])
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_download_goes_on_in_the_next_run(server, tmp_path):
    server.files["/a"] = CONTENT
    server.drop_after += [100] * release_module.ATTEMPTS
    with pytest.raises(ConversionError, match=f"500 of {len(CONTENT)} bytes.*again to go on"):
        fetch(f"{server.url}/a", tmp_path / "a")
    assert [file.name for file in tmp_path.iterdir()] == ["a.part"]
    assert fetch(f"{server.url}/a", tmp_path / "a").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=500-"


def test_damaged_part_file(server, tmp_path):
    """Found out by the checksum."""
    server.files["/b"] = CONTENT
    (tmp_path / "b.part").write_bytes(b"wrong")
    with pytest.raises(ConversionError, match="damaged and was thrown away"):
        fetch(f"{server.url}/b", tmp_path / "b")
    assert not (tmp_path / "b.part").exists()


def test_what_the_server_lacks(server, tmp_path):
    with pytest.raises(ConversionError, match=r"/a: the server answers 404.*closed.*--source FOLDER"):
        fetch(f"{server.url}/a", tmp_path / "a")
    assert len(server.requests) == 1


def test_copy_of_the_release(server, tmp_path):
    """In a folder, from which nothing is copied; one that lacks a file is named with what it should hold."""
    release = RELEASES["tx_fac_mbs"]
    for file in release.files:
        path = tmp_path / "copy" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        server.files[f"/mirror/{file}"] = CONTENT
    prefix = fetch_release("tx_fac_mbs", tmp_path / "cache", str(tmp_path / "copy"))
    assert prefix == tmp_path / "copy" / release.stem and not (tmp_path / "cache").exists()
    prefix = fetch_release("tx_fac_mbs", tmp_path / "cache", f"{server.url}/mirror/")
    assert prefix == tmp_path / "cache" / release.stem
    assert [Path(f"{prefix}.index").read_bytes(), len(server.requests)] == [CONTENT, 2]
    path.unlink()
    result = vatt("tx_fac_mbs", "--source", tmp_path / "copy", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "no such file" in result.output and "misc_data.tgz" in result.output


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(release_module, "PAUSE", 0.0)
    with pytest.raises(ConversionError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/a", tmp_path / "a")


def test_named_checkpoint_in_one_command(tensorflow, server, tmp_path):
    """Name -> fetched, converted, described; the second time without the network."""
    stem = RELEASES["wat_base_audioset"].stem
    for suffix in ("index", "data-00000-of-00001"):
        server.files[f"/{stem}.{suffix}"] = (GOLDENS / "wat_classification" / f"ckpt-1.{suffix}").read_bytes()
    arguments = ["wat_base_audioset", "--cache-dir", tmp_path / "cache", "--head-dim", 8]
    result = vatt(*arguments, "--base-url", server.url, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0" in card and "39.4 / 97.1 / 2.895" in card
    result = vatt(*arguments, "--base-url", "http://127.0.0.1:9", "-o", tmp_path / "again")
    assert result.exit_code == 0, result.output
    assert len(server.requests) == 2


# Command line ----------------------------------------------------------------------------------------------


def test_list_of_checkpoints():
    result = vatt("--list")
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.splitlines()]
    assert listed == list(RELEASES) and len(listed) == 19
    assert set(REAL) <= set(listed)


def test_set_config_fields(tmp_path):
    source = GOLDENS / "tx_fac" / "weights.npz"
    arguments = [source, "-o", tmp_path / "out", "--set", "video_config.hidden_act=relu"]
    result = vatt(*arguments, "--set", "temperature=0.1")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["video_config"]["hidden_act"], config["temperature"]) == ("relu", 0.1)
    result = vatt(*arguments)
    assert result.exit_code == 1 and "not empty" in result.output
    assert vatt(*arguments, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [[], ["tx_fac_bbs"], ["--verify"], ["x", "-o", "y", "--set", "novalue"]]
)
def test_wrong_usage(arguments):
    assert vatt(*arguments).exit_code == 2
