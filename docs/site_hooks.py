# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What the documentation site needs besides mkdocs: the package as one tree, and links in docstrings."""

import configparser
import re
import shutil
from pathlib import Path
from typing import Any

import griffe
from mkdocs.plugins import event_priority


ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "build" / "docs"
# What the pages of docs/api document: modules, whose public names they list, and single names.
DOCUMENTED = re.compile(r"^::: (\S+)$", re.MULTILINE)
REFERENCE = re.compile(r"\[`~?([\w.]+)`\](?![\[(])")


@event_priority(100)  # before mkdocstrings looks which of its paths exist
def on_config(config: Any) -> Any:
    """Hook of mkdocs: the package laid out as it installs, for a reader that imports nothing."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    folders = dict(re.findall(r"(\S+) = (\S+)", setup["options"]["package_dir"]))
    package = folders.pop("modeling_vatt")
    shutil.rmtree(SOURCES, ignore_errors=True)
    shutil.copytree(ROOT / package, SOURCES / "modeling_vatt")
    for name, folder in folders.items():
        shutil.copytree(ROOT / folder, SOURCES / name.replace(".", "/"), dirs_exist_ok=True)
    return config


# `name (`type` of shape `(batch,)`, *optional*):`, over as many lines as it takes.
ARGUMENT = re.compile(r"^( +[\w*]+(?:, [\w*]+)*) \(((?:[^()]|\([^()]*\))*)\):", re.MULTILINE)


class References(griffe.Extension):
    """Docstrings name other objects as in transformers, [`VattModel`] or [`~VattModel.forward`]: links to
    those that have a page, plain code for the others."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        pages = "".join(page.read_text() for page in sorted((ROOT / "docs" / "api").glob("*.md")))
        public = {}
        for path in DOCUMENTED.findall(pages):
            documented = pkg[path.removeprefix(f"{pkg.path}.")]
            names = documented.exports or () if documented.is_module else ()
            public |= {str(name): f"{path}.{name}" for name in names} or {documented.name: path}
        self._rewrite(pkg, public, set())

    def _rewrite(self, item: Any, public: dict[str, str], seen: set[str]) -> None:
        if item.is_alias or item.path in seen:
            return
        seen.add(item.path)
        if item.docstring is not None:
            text = ARGUMENT.sub(_plain_type, item.docstring.value)
            item.docstring.value = REFERENCE.sub(lambda match: _link(match[1], public), text)
        for member in item.members.values():
            self._rewrite(member, public, seen)


def _plain_type(match: re.Match[str]) -> str:
    """The type of an argument is shown as it stands, on one line: without marks, which would show too."""
    words = " ".join(re.sub(r"\[`(.*?)`\]", r"\1", match[2]).replace("`", "").replace("*", "").split())
    return f"{match[1]} ({words}):"


def _link(written: str, public: dict[str, str]) -> str:
    parts = written.split(".")
    for index, part in enumerate(parts):
        if part in public:
            target = ".".join([public[part], *parts[index + 1 :]])
            return f"[`{'.'.join(parts[index:])}`][{target}]"
    return f"`{parts[-1]}`"
