# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What may not happen with a stranger's file: running code, writing elsewhere, fetching unasked."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_folders import write_clip
from small_models import seeded, small_config
from transformers import AutoModel

from modeling_vatt import VattForPreTraining, VattModel
from modeling_vatt.convert import ConversionError, open_variables, read_misc_data
from modeling_vatt.convert import misc_data as misc_data_module
from modeling_vatt.convert.misc_data import load_array_pickle
from modeling_vatt.data import ShardDataset, ShardError, open_clips, source_of, write_index, write_shard
from modeling_vatt.processors import MediaLimits, read_clip


ROOT = Path(__file__).parents[2]
FOLDERS = ("modeling_vatt", "processors", "configuration", "examples")

MODULES = {
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "tarfile", "zipfile", "ctypes"),
    *("subprocess", "socket", "http", "httpx", "httpx2", "urllib", "requests", "ftplib", "telnetlib", "pty"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "torch.load", "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle"),
    *("torch.hub.load", "importlib.import_module", "shutil.unpack_archive"),
}
METHODS = {"extractall", "extract", "load_state_dict_from_url", "unpack_archive"}
FLAGS = {"shell", "allow_pickle", "trust_remote_code"}  # where they are True
OFF = {"weights_only", "use_safetensors", "verify"}  # where they are False

# (file, what it uses) -> why that is safe.
ALLOWED = {
    ("modeling_vatt/convert/misc_data.py", "pickle"): "restricted: builds numbers, texts and arrays only",
    ("modeling_vatt/convert/misc_data.py", "tarfile"): "read in memory, nothing is unpacked to the disk",
    ("modeling_vatt/convert/variables.py", "zipfile"): "only its exception",
    ("modeling_vatt/convert/variables.py", "np.load"): "allow_pickle=False",
    ("modeling_vatt/retrieval/remote.py", "urllib"): "asks the server that the user names; reads JSON",
    ("modeling_vatt/convert/release.py", "urllib"): "fetches a release that the user names; weights only",
    ("modeling_vatt/convert/release.py", "http"): "only its exception",
    ("modeling_vatt/data/engine.py", "pickle"): "between this program's own Ray workers",
    ("modeling_vatt/data/engine.py", "importlib.import_module"): "ray, by a constant name",
    ("modeling_vatt/data/shards.py", "tarfile"): "clips are read in place, nothing is unpacked to the disk",
    (
        "modeling_vatt/_auto_classes.py",
        "importlib.import_module",
    ): "modules of transformers and of this package, from a constant table",
    ("modeling_vatt/_lazy.py", "importlib.import_module"): "modules of this package",
    (
        "modeling_vatt/_renamed.py",
        "importlib.import_module",
    ): "modules of this package, from a constant table",
    ("modeling_vatt/hub/remote_code.py", "compile"): "checks the package's own source, never run",
    ("modeling_vatt/hub/remote_code.py", "importlib.import_module"): "the package's own, by constant names",
    ("modeling_vatt/embedding/cache.py", "zipfile"): "only its exception",
    ("modeling_vatt/embedding/cache.py", "np.load"): "own cache; pickle is off by default",
    ("modeling_vatt/training/faults.py", "pickle"): "only its exception",
    ("modeling_vatt/training/run_record.py", "subprocess"): "git, with constant arguments, no shell",
    ("modeling_vatt/models/foreign.py", "importlib.import_module"): "modules of transformers only",
    ("modeling_vatt/files.py", "socket"): "the name of this machine, for the owner of a lock",
    ("modeling_vatt/web/desktop.py", "subprocess"): "the file manager, with a path of the index, no shell",
    ("modeling_vatt/web/server.py", "socket"): "the page's own port",
    ("processors/media/isolation.py", "subprocess"): "this interpreter with constant arguments, no shell",
    ("processors/media/source.py", "httpx2"): "hosts of MediaLimits.allowed_hosts, none by default",
    ("processors/media/source.py", "httpx"): "hosts of MediaLimits.allowed_hosts, none by default",
    ("examples/common.py", "ctypes"): "two settings of the C library's memory, with constant values",
    ("examples/run_demo.py", "subprocess"): "scripts beside it, no shell",
    ("examples/run_transfer_study.py", "subprocess"): "scripts beside it, no shell",
}


def uses(tree: ast.AST) -> Iterator[str]:
    """What a source has that could run code, unpack files, or reach other machines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] in MODULES
            )
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "urllib.parse":
            if (node.module or "").split(".")[0] in MODULES:
                yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS:
                yield name
            if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield node.func.attr
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg in FLAGS and value is True) or (keyword.arg in OFF and value is False):
                    yield f"{keyword.arg}={value}"


def test_the_sources_hold_nothing_dangerous_without_a_reason() -> None:
    found = {
        (str(path.relative_to(ROOT)), use)
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for use in uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(ALLOWED), "the list and the sources differ"


def test_the_scan_sees_what_it_should() -> None:
    source = """
import pickle, os.path
from yaml import load
eval("1"); model.eval(); torch.load("x", weights_only=False); np.load(f, allow_pickle=True)
subprocess.run("ls", shell=True); tar.extractall(); AutoModel.from_pretrained("x", trust_remote_code=True)
"""
    assert set(uses(ast.parse(source))) == {
        *("pickle", "yaml", "eval", "torch.load", "weights_only=False", "np.load", "allow_pickle=True"),
        *("shell=True", "extractall", "trust_remote_code=True"),
    }


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


# Weights


def test_weights_that_are_pickles_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = seeded(VattModel, small_config())
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(tmp_path / "ran")}, folder / "pytorch_model.bin")
    for auto in (VattModel, VattForPreTraining, AutoModel):
        with pytest.raises(OSError, match="safetensors"):
            auto.from_pretrained(folder)
    # Good weights in the older format neither, unless the user says so.
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        VattModel.from_pretrained(folder)
    VattModel.from_pretrained(folder, use_safetensors=False)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    seeded(VattModel, small_config()).save_pretrained(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (content[: len(content) // 2], b"\xff" * 8 + content[8:], b""):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"its weights are damaged \(.*Download them again"):
            VattModel.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"its weights are damaged \(.*Download them again"):
            VattModel.from_pretrained(pretrained_model_name_or_path=tmp_path)


def test_arrays_that_are_pickles_are_not_read(tmp_path: Path) -> None:
    arrays = np.empty(1, dtype=object)
    arrays[0] = Bomb(tmp_path / "ran")
    np.savez(tmp_path / "weights.npz", bomb=arrays)
    with pytest.raises(ConversionError, match="not a readable"):
        open_variables(tmp_path / "weights.npz")
    assert not (tmp_path / "ran").exists()


# Archives


def test_pickles_that_fill_the_memory_or_change_this_program() -> None:
    tracemalloc.start()
    for place in (b"r\xff\xff\xff\x7f", b"p2147483647\n"):  # C's unpickler makes room for 2^31 objects
        with pytest.raises(ConversionError, match="no array"):
            load_array_pickle(b"\x80\x02N" + place + b".", "x", "word_embeddings")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    good = pickle.dumps({"word_embeddings": np.ones((2, 2), np.float32)}, protocol=2)
    before = dict(vars(misc_data_module._encode)), misc_data_module._encode.__defaults__
    for name in (b"c_codecs\nencode\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"):
        # (None, {"__defaults__": (5,)}) as state: sets an attribute of the function or class
        hostile = b"\x80\x02" + name + b"N}X\x0c\x00\x00\x00__defaults__K\x05\x85s\x86b."
        with pytest.raises(ConversionError):
            load_array_pickle(hostile, "x", "word_embeddings")
    assert before == (dict(vars(misc_data_module._encode)), misc_data_module._encode.__defaults__)
    assert not hasattr(misc_data_module._NdarrayName, "__defaults__")
    np.testing.assert_array_equal(load_array_pickle(good, "x", "word_embeddings"), np.ones((2, 2)))


def test_archives_that_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(misc_data_module, "MAX_BYTES", 1000)
    with tarfile.open(tmp_path / "misc_data.tgz", "w:gz") as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"padding{number}")
            member.size = 600
            archive.addfile(member, io.BytesIO(bytes(600)))
    with pytest.raises(ConversionError, match="more than 1000 bytes when unpacked"):
        read_misc_data(tmp_path / "misc_data.tgz")


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../evil"])
def test_names_in_shards_lead_nowhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    content = write_clip(tmp_path / "clip.mp4", 1).read_bytes()
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for suffix, data in (("mp4", content), ("json", b"{}")):
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = set(tmp_path.rglob("*"))
    data = write_index(folder)
    assert len(data) == 1  # the link is no clip
    assert len(read_clip(source_of(data[0]["video"]), duration=0.5).frames) == 5
    assert {path.name for path in set(tmp_path.rglob("*")) - before} == {"index.arrow", "shards.json"}


def test_a_manifest_points_to_no_other_folder(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.mp4", 1).read_bytes()
    (tmp_path / "train").mkdir()
    write_shard(tmp_path / "train" / "shard-000000.tar", [("0", {}, content)])
    write_index(tmp_path / "train")
    manifest = json.loads((tmp_path / "train" / "shards.json").read_text())
    for name in ("../secret.tar", "/etc/passwd", "a/b.tar", "", "shard\n.tar"):
        manifest["shards"][0]["name"] = name
        (tmp_path / "train" / "shards.json").write_text(json.dumps(manifest))
        with pytest.raises(ShardError, match=r"shards\.json: missing or damaged"):
            ShardDataset(tmp_path / "train")


# Other machines


def test_nothing_is_fetched_unless_allowed() -> None:
    assert MediaLimits().allowed_hosts == ()
    for address in ("https://example.org/shards", "hf://datasets/me/shards", "s3://bucket/shards"):
        with pytest.raises(ShardError, match="only if you allow it"):
            open_clips(address, "train")


def test_folders_of_the_tests_are_those_of_the_package() -> None:
    """A new package is scanned too."""
    packages = {path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"}
    assert {path.name for path in packages} <= set(FOLDERS)
    assert os.path.isdir(ROOT / "examples")
