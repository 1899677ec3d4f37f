# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose code travels with them: loaded in a process that cannot import the package."""

import ast
import inspect
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clip_folders import small_processor, write_clip
from small_models import seeded, small_config, small_inputs
from transformers import AutoModel, AutoProcessor

from modeling_vatt import (
    VattConfig,
    VattForAudioClassification,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)
from modeling_vatt.hub.remote_code import flat_source, save_remote_code
from modeling_vatt.models.losses import vectors
from modeling_vatt.processors import VattImageProcessor, VattProcessor, VattTokenizer


CLASSES = 3
AUTO_OF = {
    VattModel: "AutoModel",
    VattForPreTraining: "AutoModelForPreTraining",
    VattForVideoClassification: "AutoModelForVideoClassification",
    VattForAudioClassification: "AutoModelForAudioClassification",
    VattForImageClassification: "AutoModelForImageClassification",
}

# Put in front of every script: these are not installed.
PREAMBLE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

MISSING = {missing!r}
for name in list(sys.modules):
    if name.partition(".")[0] in MISSING:
        del sys.modules[name]
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import numpy as np
import torch
import transformers
torch.set_num_threads(1)
"""


def run(
    script: str, cache: Path, *arguments: object, missing: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    preamble = PREAMBLE.replace("{missing!r}", repr({"modeling_vatt", *missing}))
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache)}
    return processes.run("-c", preamble + script, *arguments, cwd=cache.parent, env=environment)


def outputs(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        output = model(**inputs)
    return {name: value.numpy() for name, value in output.items() if isinstance(value, torch.Tensor)}


LOAD_ALL = """
import json
from pathlib import Path
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

root, clip = Path(sys.argv[1]), sys.argv[2]
inputs = torch.load(root / "inputs.pt")
assert not any(name.startswith("modeling_vatt") for name in sys.modules)
for auto in json.loads(sys.argv[3]):
    folder = root / auto
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True).eval()
    # The model's own configuration class, not a second copy of it.
    assert type(model.config) is type(config) is type(model).config_class, auto
    with torch.no_grad():
        output = model(**inputs[auto])
    values = {k: v.numpy() for k, v in output.items() if isinstance(v, torch.Tensor)}
    np.savez(folder / "elsewhere.npz", **values)

folder = root / "AutoModel"
options = {"trust_remote_code": True}
processor = transformers.AutoProcessor.from_pretrained(folder, **options)
batch = processor(videos=[clip], text=["clip 3 a tone"])
np.savez(root / "processed.npz", **{k: v.numpy() for k, v in batch.items()})
model = transformers.AutoModel.from_pretrained(folder, **options).eval()
video_embeds = model.get_video_features(batch["pixel_values_videos"]).va_embeds
assert video_embeds.shape == (1, model.config.va_projection_size)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
assert type(tokenizer).__name__ == "VattTokenizer"
assert tokenizer("clip 3 a tone")["input_ids"] == batch["input_ids"][0].tolist()
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
assert torch.equal(extractor(clip, return_tensors="pt")["input_values"], batch["input_values"])
video = AutoVideoProcessor.from_pretrained(folder, **options)
assert torch.equal(video(clip, return_tensors="pt")["pixel_values_videos"], batch["pixel_values_videos"])
image = transformers.AutoImageProcessor.from_pretrained(root / "AutoModelForImageClassification", **options)
assert image(np.zeros((9, 9, 3), np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)

# What was loaded so can be saved and loaded again.
again = root / "again"
model.save_pretrained(again)
processor.save_pretrained(again)
second = transformers.AutoModel.from_pretrained(again, **options).eval()
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), second.state_dict().values()))
repeated = transformers.AutoProcessor.from_pretrained(again, **options)(videos=[clip], text=["clip 3 a tone"])
assert all(torch.equal(value, batch[name]) for name, value in repeated.items())
"""


LOAD_MODELS = """
for folder in sys.argv[1:]:
    model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        output = model(**torch.load(folder + "/inputs.pt"))
    np.savez(folder + "/elsewhere.npz", **{k: v.numpy() for k, v in output.items() if "embeds" in k})
"""


def test_other_architectures_without_the_package(tmp_path):
    """Their code travels too. Convolutions round by where their weights lie in memory: near, not equal."""
    expected = {}
    for variant in ("mmv", "agnostic"):
        model = seeded(VattModel, small_config(variant)).eval()
        inputs = small_inputs(model.config)
        model.save_pretrained(tmp_path / variant)
        save_remote_code(tmp_path / variant)
        torch.save(inputs, tmp_path / variant / "inputs.pt")
        expected[variant] = outputs(model, inputs)
    done = run(LOAD_MODELS, tmp_path / "cache", *(tmp_path / variant for variant in expected))
    assert done.returncode == 0, done.stderr
    for variant, values in expected.items():
        found = np.load(tmp_path / variant / "elsewhere.npz")
        assert set(found) == set(values)
        for name, value in values.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_auto_class_without_the_package(tmp_path):
    """All Auto classes load from the folder alone, and compute exactly what the package computes."""
    config = small_config(num_labels=CLASSES)
    everything = small_inputs(config)
    names = {
        "AutoModelForVideoClassification": ("pixel_values_videos",),
        "AutoModelForAudioClassification": ("input_values",),
    }
    inputs = {
        auto: {name: everything[name] for name in names.get(auto, tuple(everything))}
        for auto in AUTO_OF.values()
    }
    inputs["AutoModelForImageClassification"] = {"pixel_values": everything["pixel_values_videos"][:, 0]}
    torch.save(inputs, tmp_path / "inputs.pt")
    expected = {}
    for model_class, auto in AUTO_OF.items():
        model = seeded(model_class, small_config(num_labels=CLASSES)).eval()
        model.save_pretrained(tmp_path / auto)
        expected[auto] = outputs(model, inputs[auto])
    processor = small_processor(config)
    processor.save_pretrained(tmp_path / "AutoModel")
    VattImageProcessor(size=8, crop_size=8).save_pretrained(tmp_path / "AutoModelForImageClassification")
    for auto in AUTO_OF.values():
        save_remote_code(tmp_path / auto)
    clip = write_clip(tmp_path / "clip.mp4", 3)
    done = run(LOAD_ALL, tmp_path / "cache", tmp_path, clip, json.dumps(list(AUTO_OF.values())))
    assert done.returncode == 0, done.stderr
    for auto, values in expected.items():
        found = np.load(tmp_path / auto / "elsewhere.npz")
        assert set(found) == set(values)
        for name, value in values.items():
            assert np.array_equal(found[name], value), (auto, name)
    found = np.load(tmp_path / "processed.npz")
    for name, value in processor(videos=[str(clip)], text=["clip 3 a tone"]).items():
        assert np.array_equal(found[name], value.numpy()), name


def test_missing_libraries_are_named_with_the_pip_line(tmp_path):
    """Without PyAV the processor says what to install; the model needs none of it."""
    folder = tmp_path / "checkpoint"
    VattModel(small_config()).save_pretrained(folder)
    small_processor().save_pretrained(folder)
    save_remote_code(folder)
    script = """
transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
try:
    transformers.AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
except ImportError as error:
    print(error)
"""
    done = run(script, tmp_path / "cache", folder, missing=("av", "soxr"))
    assert done.returncode == 0, done.stderr
    assert "pip install av soxr" in done.stdout


def test_files_and_maps(tmp_path):
    """Two files beside model and processor, one beside a lone part; maps name what is in them."""
    VattModel(small_config()).save_pretrained(tmp_path / "both")
    small_processor().save_pretrained(tmp_path / "both")
    assert save_remote_code(tmp_path / "both") == ["vatt_model.py", "vatt_processing.py"]
    assert save_remote_code(tmp_path / "both") == ["vatt_model.py", "vatt_processing.py"]  # again is no harm
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    assert config["auto_map"]["AutoModelForPreTraining"] == "vatt_model.VattForPreTraining"
    VattImageProcessor().save_pretrained(tmp_path / "part")
    assert save_remote_code(tmp_path / "part") == ["vatt_processing.py"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Save one there first"):
        save_remote_code(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="no VATT model"):
        save_remote_code(tmp_path / "empty")


def test_the_package_uses_its_own_classes(tmp_path):
    """Where the package is installed the folder works as before, with and without trust. (With it,
    transformers takes tokenizers, and only those, from the folder.)"""
    model = seeded(VattModel, small_config())
    model.save_pretrained(tmp_path)
    processor = small_processor()
    processor.save_pretrained(tmp_path)
    expected = processor.tokenizer("clip 3")["input_ids"]
    save_remote_code(tmp_path)
    for options in ({}, {"trust_remote_code": True}):
        assert type(AutoModel.from_pretrained(tmp_path, **options)) is VattModel
        processor = AutoProcessor.from_pretrained(tmp_path, **options)
        assert type(processor) is VattProcessor
        tokenizer = processor.tokenizer
        assert (type(tokenizer) is VattTokenizer) == (not options)
        assert type(tokenizer).__name__ == "VattTokenizer"
        assert tokenizer("clip 3")["input_ids"] == expected
    assert type(VattModel.from_pretrained(tmp_path).config) is VattConfig


@pytest.mark.parametrize("name", ["vatt_model", "vatt_processing"])
def test_flat_source_is_whole(name):
    """The joined text imports nothing of the package and nothing relative, and defines no name twice."""
    tree = ast.parse(flat_source(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert not str(node.module).startswith("modeling_vatt")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("modeling_vatt") for alias in node.names)
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert len(names) == len(set(names))
    assert {"vatt_model": "VattForPreTraining", "vatt_processing": "VattTokenizer"}[name] in names


def test_names_with_two_meanings_are_refused(monkeypatch):
    """Joining modules must not let one definition hide another."""
    text = Path(vectors.__file__).read_text().replace("def normalize", "def spline_matrix", 1)
    real = inspect.getsource
    monkeypatch.setattr(
        "modeling_vatt.hub.remote_code.inspect.getsource",
        lambda module: text if module is vectors else real(module),
    )
    with pytest.raises(
        ValueError, match=r"'spline_matrix' has two meanings.*modeling_vatt\.models\.losses\.vectors"
    ):
        flat_source("vatt_model")
