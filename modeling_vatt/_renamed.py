# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Modules that moved: old names still work, with a warning that says the new one."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


_MOVED = {
    "classification": "models.classification",
    "cnn": "models.cnn",
    "data.clips": "data",
    "distributed": "models.collectives",
    "embeddings": "models.embeddings",
    "encoder": "models.encoder",
    "heads": "models.heads",
    "layers": "fast_cpu",
    "losses": "models.losses",
    "model_card": "hub.model_card",
    "modeling_vatt": "models.modeling_vatt",
    "processors.media_container": "processors.media.container",
    "processors.media_isolation": "processors.media.isolation",
    "processors.media_picture": "processors.media.reading",
    "processors.media_sound": "processors.media.sound",
    "processors.media_source": "processors.media.source",
    "processors.media_writing": "processors.media.writing",
    "remote_code": "hub.remote_code",
    "retrieval.embedding": "embedding.embedding",
    "retrieval.identity": "embedding.identity",
    "retrieval.indexing": "retrieval.updating",
    "retrieval.search": "retrieval.video_search",
    "training.finetuning": "training",
    "unimodal": "models.unimodal",
}
_PACKAGE = __name__.rpartition(".")[0]


class _MovedModules(MetaPathFinder, Loader):
    """Finds modules under their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == _PACKAGE and name in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new_name = f"{_PACKAGE}.{_MOVED[module.__name__.partition('.')[2]]}"
        warnings.warn(f"{module.__name__} is now {new_name}.", FutureWarning, stacklevel=2)
        moved = importlib.import_module(new_name)
        module.__dict__.update({key: value for key, value in vars(moved).items() if key[:2] != "__"})


def keep_old_names() -> None:
    """Make old names of modules importable. May be called again."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())


__all__ = ["keep_old_names"]
