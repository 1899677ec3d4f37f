# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Packages whose names are loaded when they are asked for, so that importing the package is quick."""

import ast
import importlib
import sys
from collections.abc import Callable
from importlib.abc import InspectLoader
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package, for its submodules and for the names that its own
    `if TYPE_CHECKING:` imports from them, so that the list stands once."""
    module = sys.modules[package]
    loader = module.__spec__.loader if module.__spec__ is not None else None
    assert isinstance(loader, InspectLoader)
    homes = {
        alias.asname or alias.name: (f"{'.' * node.level}{node.module}", alias.name)
        for node in ast.walk(ast.parse(loader.get_source(package) or ""))
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }

    def load(name: str) -> Any:
        unknown = AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in homes:
            home, original = homes[name]
            value = getattr(importlib.import_module(home, package), original)
        elif name.startswith("_"):
            raise unknown
        else:
            try:
                value = importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
                raise unknown from None
        setattr(module, name, value)
        return value

    return load, lambda: sorted({*vars(module), *homes})


__all__ = ["lazy_names"]
