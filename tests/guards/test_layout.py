# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Every test file can be moved, renamed or run by itself: none imports another one."""

import ast
from pathlib import Path


TESTS = Path(__file__).parents[1]


def test_no_test_file_imports_another():
    files = {path.stem: path for path in TESTS.rglob("*.py") if path.parent.name != "support"}
    found = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [f"{path.relative_to(TESTS)} imports {name}" for name in names if name in files]
    assert len(files) > 50 and not found
