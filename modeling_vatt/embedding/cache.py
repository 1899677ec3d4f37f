# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Features on disk, under names made of all that the features depend on."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers.utils import logging

from ..files import hash_file, whole_file


logger = logging.get_logger(__name__)

_UNREADABLE = (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)
Arrays = dict[str, npt.NDArray[Any]]


class FeatureCache:
    """Arrays of batches of clips, in files written whole or not at all, named by their keys and the `state`
    (as JSON) on which all batches depend."""

    def __init__(self, folder: Path, state: Any) -> None:
        self.folder = folder
        self.prefix = _digest(json.dumps(state, sort_keys=True, default=str))

    def load(self, keys: Sequence[Any]) -> Arrays | None:
        """Arrays saved under these keys; None if there are none, or they are damaged."""
        return self._read(self._file(keys))

    def save(self, keys: Sequence[Any], arrays: Arrays) -> None:
        """Save arrays; keys must differ by `repr`."""
        names = np.array([repr(key) for key in keys])
        with whole_file(self._file(keys)) as partial, partial.open("wb") as file:
            content: Any = {"keys": names, **arrays}
            np.savez(file, **content)

    def remove(self, keys: Sequence[Any]) -> None:
        """Delete the arrays saved under these keys."""
        self._file(keys).unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[list[str], Arrays]]:
        """(`repr` of its keys, arrays) of every batch."""
        for found in map(self._read, self._files()):
            if found is not None and "keys" in found:
                yield found.pop("keys").tolist(), found

    def keys(self) -> set[str]:
        """`repr` of the keys of all batches, without those that have an error in the array `errors`."""
        known: set[str] = set()
        for arrays in filter(None, (self._read(file, ("keys", "errors")) for file in self._files())):
            names = arrays["keys"].tolist()
            errors = arrays["errors"].tolist() if "errors" in arrays else [""] * len(names)
            known.update(name for name, error in zip(names, errors, strict=True) if not error)
        return known

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.prefix}-*.npz"))

    def _read(self, file: Path, names: Sequence[str] | None = None) -> Arrays | None:
        """Arrays of a file, those of these names if some are given."""
        try:
            with np.load(file) as content:
                return {name: content[name] for name in content if not names or name in names}
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            logger.warning(f"{file}: damaged ({error!r}); its files are embedded anew.")
            return None

    def _file(self, keys: Sequence[Any]) -> Path:
        return self.folder / f"{self.prefix}-{_digest(repr(list(keys)))}.npz"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def content_of(source: Any) -> tuple[Any, ...]:
    """Key of a source's content: SHA-256 of files, bytes and file objects; the name of a remote source, and
    of a file that cannot be read."""
    if hasattr(source, "read"):
        source.seek(0)
        content = source.read()
        source.seek(0)
        return (hashlib.sha256(content).hexdigest(),)
    if isinstance(source, bytes):
        return (hashlib.sha256(source).hexdigest(),)
    try:
        return (hash_file(source),) if Path(source).is_file() else (str(source),)
    except OSError:
        return (str(source),)
