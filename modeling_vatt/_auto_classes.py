# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Registers VATT with transformers' Auto classes and pipelines, and with sentence-transformers, without
loading either: when one of their modules is loaded, the module of this package that registers with it is too.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


_PACKAGE = __name__.rpartition(".")[0]
_AUTO = "transformers.models.auto"
_FOLLOWERS = {
    f"{_AUTO}.configuration_auto": f"{_PACKAGE}.configuration",
    f"{_AUTO}.modeling_auto": f"{_PACKAGE}.models",
    # `AutoProcessor` needs the other four, and what registers processors needs all five.
    f"{_AUTO}.feature_extraction_auto": f"{_AUTO}.processing_auto",
    f"{_AUTO}.image_processing_auto": f"{_AUTO}.processing_auto",
    f"{_AUTO}.tokenization_auto": f"{_AUTO}.processing_auto",
    f"{_AUTO}.video_processing_auto": f"{_AUTO}.processing_auto",
    f"{_AUTO}.processing_auto": f"{_PACKAGE}.processors.registration",
    "transformers.pipelines": f"{_PACKAGE}.pipelines",
    "sentence_transformers.sentence_transformer.model": f"{_PACKAGE}.embedding.sentence_transformers",
}


class _Follow(MetaPathFinder):
    """Finder that loads modules with their followers; of modules that load each other, after the last one,
    as a follower needs them complete."""

    def __init__(self) -> None:
        self.loading = threading.local()  # `depth` of modules that load each other; `waiting` followers

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _FOLLOWERS:
            return None
        others = (finder.find_spec for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (find(fullname, path, target) for find in others)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_both(module: ModuleType) -> None:
                depth = getattr(self.loading, "depth", 0)
                waiting = self.loading.waiting if depth else []
                self.loading.depth, self.loading.waiting = depth + 1, waiting
                try:
                    load(module)
                finally:
                    self.loading.depth = depth
                waiting.append(_FOLLOWERS[fullname])
                while waiting and not depth:
                    importlib.import_module(waiting.pop(0))

            setattr(spec.loader, "exec_module", load_both)  # noqa: B010 (mypy lets no method be assigned)
        return spec


def follow_transformers() -> None:
    """Register with the loaded parts of transformers, and with others when they are loaded. May be called
    again."""
    if not any(isinstance(finder, _Follow) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Follow())
    for loaded, follower in _FOLLOWERS.items():
        if loaded in sys.modules:
            importlib.import_module(follower)


__all__ = ["follow_transformers"]
