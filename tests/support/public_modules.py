# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the names that users import are: the modules that docs/api documents as a whole, and others."""

import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType


API = Path(__file__).parents[2] / "docs" / "api"
OTHERS = (
    *("modeling_vatt", "modeling_vatt.configuration"),
    *("modeling_vatt.hub.model_card", "modeling_vatt.models.unimodal"),
)


def public_modules() -> dict[str, ModuleType]:
    """By name."""
    pages = "".join(page.read_text() for page in sorted(API.glob("*.md")))
    documented = (*OTHERS, *re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    found = {name: pkgutil.resolve_name(name) for name in documented}
    return {name: value for name, value in found.items() if inspect.ismodule(value)}
