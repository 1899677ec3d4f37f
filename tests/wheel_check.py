# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Run by `make check-wheel`, outside the repository, in an environment that has the wheel."""

import importlib.util
import sys
import tempfile
from pathlib import Path

import torch

import modeling_vatt
import modeling_vatt.configuration
import modeling_vatt.processors


def main() -> None:
    installed = Path(modeling_vatt.__file__).resolve()
    assert Path(sys.prefix).resolve() in installed.parents, f"not the wheel: {installed}"
    assert (installed.parent / "py.typed").is_file(), "py.typed is missing from the wheel"
    for name in ("index.html", "style.css", "main.js"):
        assert (installed.parent / "web" / "static" / name).is_file(), f"the page lacks {name} in the wheel"
    for generic in ("configuration", "processors", "examples", "tests"):
        assert importlib.util.find_spec(generic) is None, f"the wheel installs a top-level {generic!r}"
    model = modeling_vatt.VattModel(modeling_vatt.VattConfig.from_preset("ma_tiny")).eval()
    video = torch.zeros(1, 32, 3, 64, 64)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = modeling_vatt.VattModel.from_pretrained(folder).eval()
    # Not `equal`: the rounding of a matrix product depends on where its operands lie in memory.
    torch.testing.assert_close(model(video).video_vt_embeds, again(video).video_vt_embeds)
    print(f"The wheel works: {installed.parent}")


if __name__ == "__main__":
    main()
