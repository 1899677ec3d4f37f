# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The release's `misc_data.tgz`: vocabulary and word2vec table, read without trusting it.

Nothing of the archive is written to disk. The pickle inside can build only numbers, strings, containers and
numeric arrays; every other name is refused, so it can run no code.
"""

import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .errors import ConversionError


VOCABULARY = "howto100m_en.txt"
EMBEDDINGS = "word2vec.pkl"
MAX_BYTES = 1 << 30  # unpacked; the real table has 79 MB


@dataclass(frozen=True)
class MiscData:
    """Contents of the archive that the model needs."""

    vocabulary: str  # words, one per line, index by line
    word_embeddings: np.ndarray  # float32 (words, width)


def read_misc_data(path: str | os.PathLike) -> MiscData:
    """Read the archive."""
    found: dict[str, bytes] = {}
    unpacked = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                unpacked += member.size
                if unpacked > MAX_BYTES:
                    raise ConversionError(f"{path}: refused, more than {MAX_BYTES} bytes when unpacked.")
                path_inside = PurePosixPath(member.name)
                if path_inside.is_absolute() or ".." in path_inside.parts:
                    raise ConversionError(f"{path}: refused, the entry {member.name!r} leaves the archive.")
                if path_inside.name not in (VOCABULARY, EMBEDDINGS):
                    continue
                if not member.isreg():
                    raise ConversionError(f"{path}: refused, {member.name!r} is no plain file.")
                content = archive.extractfile(member)
                assert content is not None  # it is a regular file
                found[path_inside.name] = content.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ConversionError(f"{path} is missing or no tar archive ({error}): fetch it.") from error
    for name in (VOCABULARY, EMBEDDINGS):
        if name not in found:
            raise ConversionError(f"{path} lacks {name}: give the release's misc_data.tgz.")
    table = load_array_pickle(found[EMBEDDINGS], f"{path}: {EMBEDDINGS}", key="word_embeddings")
    if table.ndim != 2 or table.dtype.kind != "f":
        raise ConversionError(
            f"{path}: the word embeddings are {table.dtype} {table.shape}, expected a table."
        )
    try:
        vocabulary = found[VOCABULARY].decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path}: {VOCABULARY} is not UTF-8 ({error}). Fetch it again.") from error
    return MiscData(vocabulary, np.ascontiguousarray(table, np.float32))


def load_array_pickle(data: bytes, source: str, key: str) -> np.ndarray:
    """The array under `key` in a pickled dict of arrays, which messages call `source`."""
    try:
        # latin1: how NumPy arrays pickled by Python 2 are read
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except ConversionError as error:
        raise ConversionError(f"{source}: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ConversionError(
            f"{source} is damaged ({type(error).__name__}: {error}). Fetch it again."
        ) from error
    value = content.get(key, content.get(key.encode())) if isinstance(content, dict) else None
    if not isinstance(value, _Array):
        raise ConversionError(f"{source} holds no array named {key!r}: give the release's misc_data.tgz.")
    try:
        return value.build()
    except (TypeError, ValueError) as error:
        raise ConversionError(f"{source}: the array {key!r} is damaged ({error}). Fetch it again.") from error


class _Dtype:
    """Stands in for `numpy.dtype`: plain numbers only."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if not isinstance(code, str) or not re.fullmatch("[fiu][1248]", code):
            raise ConversionError(
                f"refused, it holds an array of type {code!r} instead of numbers: only these are read."
            )
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.order = order if order in ("<", ">") else "="

    def build(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands in for an array that is being unpickled."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.state = (data, dtype, shape, "F" if fortran else "C")

    def build(self) -> np.ndarray:
        data, dtype, shape, order = self.state
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(data, dtype.build()).reshape(tuple(int(n) for n in shape), order=order)


class _NdarrayName:
    """Stands in for `numpy.ndarray`, which a pickle mentions as an argument."""

    def __setstate__(self, state: Any) -> None:
        raise ConversionError("refused, it changes a class.")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: _Dtype, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.state = (data, dtype, shape, "F" if order == "F" else "C")
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ConversionError(f"refused, it asks for the codec {encoding!r}; only latin1 is read.")
    return text.encode("latin1")


class _ArrayUnpickler(pickle._Unpickler):
    """Maps the few names in pickles of arrays to stand-ins. The Python unpickler, as the memo of the one in C
    grows to any index that a pickle names, up to tens of gigabytes."""

    _NAMES: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): _NdarrayName,
        ("_codecs", "encode"): _encode,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._NAMES[module, name]
        except KeyError:
            raise ConversionError(f"refused, it asks for {module}.{name}; only arrays are read.") from None
        # A pickle can set attributes of functions, so it gets its own copy.
        return found if isinstance(found, type) else lambda *arguments: found(*arguments)
