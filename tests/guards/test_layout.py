# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Every test file can be moved, renamed or run by itself; docs/architecture.md speaks of what there is."""

import ast
import configparser
import importlib
import pkgutil
import re
from pathlib import Path

import modeling_vatt


TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


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


def test_the_architecture_page_names_what_there_is():
    packages = {module.name for module in pkgutil.iter_modules(modeling_vatt.__path__)}
    packages |= {"configuration", "processors"}
    names = [name for name in re.findall(r"`([\w.]+\.\w+)`", PAGE) if name.partition(".")[0] in packages]
    assert len(names) > 30
    for name in names:
        value, *parts = modeling_vatt, *name.split(".")
        for part in parts:
            try:
                value = getattr(value, part)
            except AttributeError:
                value = importlib.import_module(f"{value.__name__}.{part}")


def test_the_architecture_page_has_the_rows_of_the_contract():
    settings = configparser.ConfigParser()
    settings.read(TESTS.parent / "setup.cfg")
    layers = settings["importlinter:contract:floors"]["layers"].split("\n")
    rows = [set(re.findall(r"\w+", layer)) for layer in layers if layer]
    shown = [set(re.findall(r"\w+", row)) for row in re.findall(r"^\| \d \| ([^|]+) \|", PAGE, re.MULTILINE)]
    rows[-1] -= {"_auto_classes", "_lazy", "_renamed", "_version"}
    assert shown == rows


def test_every_package_is_in_the_wheel():
    root = TESTS.parent
    settings = configparser.ConfigParser()
    settings.read(root / "setup.cfg")
    there = set()
    for top in ("modeling_vatt", "configuration", "processors"):
        for file in (root / top).rglob("__init__.py"):
            name = ".".join(file.parent.relative_to(root).parts)
            there.add(name if top == "modeling_vatt" else f"modeling_vatt.{name}")
    assert set(settings["options"]["packages"].split()) == there
