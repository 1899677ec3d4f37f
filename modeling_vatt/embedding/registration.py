# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes sentence-transformers know VATT, without importing it.

By itself it would take the features before the heads of a folder that has no `modules.json`, and ask for
`trust_remote_code` for the class that one names, although whoever imported this package trusts it.
"""

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..hub.sentence_transformers import EMBEDDER


_MODULE = "sentence_transformers.sentence_transformer.model"


class _Finder(importlib.abc.MetaPathFinder):
    """Calls [`teach`] as soon as the module of `SentenceTransformer` is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_teach(module: ModuleType) -> None:
                execute(module)
                teach(module.SentenceTransformer)

            spec.loader.exec_module = execute_and_teach  # type: ignore[method-assign]
        return spec


def register_embedder() -> None:
    """Teach sentence-transformers now if it is imported, else when it is."""
    if _MODULE in sys.modules:
        teach(sys.modules[_MODULE].SentenceTransformer)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def teach(model_class: Any) -> None:
    """Have `SentenceTransformer` embed VATT by [`VattEmbedder`]."""
    default = model_class._load_default_modules

    def load_default_modules(self: Any, model_name_or_path: str, **kwargs: Any) -> Any:
        if not _is_vatt(model_name_or_path, **kwargs):
            return default(self, model_name_or_path, **kwargs)
        if self._similarity_fn_name is None:
            self.similarity_fn_name = "dot"
        return [_embedder().load(model_name_or_path, backend=self.backend, **kwargs)], {}

    model_class._load_default_modules = load_default_modules
    model_class._module_classes = _Classes(model_class._module_classes)


class _Classes(dict[str, Any]):
    """Classes by which modules are loaded; ours is imported when it is asked for."""

    def get(self, key: str, default: Any = None) -> Any:
        return _embedder() if key == EMBEDDER else super().get(key, default)


def _embedder() -> Any:
    from .sentence_transformers import VattEmbedder

    return VattEmbedder


def _is_vatt(name: str, **kwargs: Any) -> bool:
    """Whether this is a saved VATT of any kind."""
    from sentence_transformers.util import load_file_path

    options = {key: kwargs[key] for key in ("token", "cache_folder", "revision", "local_files_only")}
    path = load_file_path(name, "config.json", **options)
    if path is None:
        return False
    with open(path, encoding="utf-8") as file:
        return json.load(file).get("model_type") == "vatt"


__all__ = ["register_embedder"]
