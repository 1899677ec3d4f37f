# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The contracts of setup.cfg on who may import whom, and that they notice what they forbid."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "statement", "broken"),
    [
        (None, "", ()),
        ("files", "from .retrieval import store", ("A package imports only packages below it",)),
        ("training/extra", "from ..retrieval import store", ("no other package of its row",)),
        ("data/reading", "def late():\n    from .labelled import LabelledDataset", ("No circle of imports",)),
        ("models/extra", "from ..processors import probe", ("Models and metrics never open media",)),
        ("web/extra", "import argparse", ("Only the command parses arguments",)),
    ],
)
def test_contracts(tmp_path, module, statement, broken):
    """Of the package as it is installed: processors/ and configuration/ lie inside of it."""
    pytest.importorskip("importlinter", reason="needs pip install 'modeling_vatt[dev]'")
    package = shutil.copytree(
        ROOT / "modeling_vatt", tmp_path / "modeling_vatt", ignore=shutil.ignore_patterns("*.pyc")
    )
    for folder in ("configuration", "processors"):
        shutil.copytree(ROOT / folder, package / folder, ignore=shutil.ignore_patterns("*.pyc"))
    if module is not None:
        with (package / f"{module}.py").open("a") as file:
            file.write(f"\n{statement}\n")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    result = subprocess.run(
        [sys.executable, "-c", command, str(ROOT / "setup.cfg"), "--no-cache", "--no-logo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == bool(broken), result.stdout + result.stderr
    for name in broken:
        assert any(name in line and "BROKEN" in line for line in result.stdout.splitlines()), result.stdout
