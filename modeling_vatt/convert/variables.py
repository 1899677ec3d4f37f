# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files as a mapping from variable names to arrays that are read one at a time.

Official checkpoints are TF2 object-based: `PREFIX.index` and `PREFIX.data-xxxxx-of-yyyyy`. TensorFlow itself
reads them (`pip install modeling_vatt[tf]`); an `.npz` with the same names needs no TensorFlow.
"""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .bundle_index import check_sizes
from .errors import ConversionError


VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_NOT_THE_MODEL = re.compile(r"^(_CHECKPOINTABLE_OBJECT_GRAPH$|optimizer/|save_counter)|/\.OPTIMIZER_SLOT/")
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error)  # NotImplementedError is a RuntimeError
_DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$")


class Variables(Mapping[str, np.ndarray]):
    """Model variables by object path (without TensorFlow's value suffix); optimizer state is left out.

    Indexing reads one variable; `shapes` needs no reading.

    Args:
        shapes, read: shape and reader of every entry under its full name.
        source: what to call the checkpoint in messages.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray], source: str
    ) -> None:
        self.source = source
        self._read = read
        self._names = {
            name.removesuffix(VALUE_SUFFIX): name
            for name in sorted(shapes)
            if not _NOT_THE_MODEL.search(name)
        }
        self.shapes = {name: tuple(shapes[full]) for name, full in self._names.items()}
        self.num_skipped = len(shapes) - len(self._names)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._read(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], source: str = "arrays") -> "Variables":
        """Variables of arrays in memory."""
        return cls({name: array.shape for name, array in arrays.items()}, arrays.__getitem__, source)


def open_variables(path: str | os.PathLike) -> Variables:
    """Open a checkpoint.

    Args:
        path: `.npz` file; prefix, `.index` or `.data-...` file of a TensorFlow checkpoint; or a folder that
            holds one such checkpoint.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _open_npz(path)
    return _open_tensorflow(checkpoint_prefix(path))


def _open_npz(path: Path) -> Variables:
    try:
        # allow_pickle stays off: arrays of objects would run code
        arrays = np.load(path, allow_pickle=False)
        shapes = {name: arrays[name].shape for name in arrays.files}
    # RuntimeError: encrypted; MemoryError: a header that states too much.
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, *_ZIP_ERRORS) as error:
        raise ConversionError(f"{path} is not a readable .npz file ({error}). Fetch it again.") from error
    return Variables(shapes, arrays.__getitem__, str(path))


def checkpoint_prefix(path: Path) -> Path:
    """Prefix of the TensorFlow checkpoint that `path` means, see [`open_variables`]."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            names = ", ".join(file.stem for file in found) or "none"
            raise ConversionError(f"{path} must hold one TensorFlow checkpoint, found {names}: name it.")
        path = found[0]
    prefix = path.with_name(_DATA_FILE.sub("", path.name.removesuffix(".index")))
    index = prefix.with_name(prefix.name + ".index")
    if not index.is_file():
        raise ConversionError(
            f"{index} does not exist: give a checkpoint prefix (such as ckpt-500000), its folder, or the "
            "name of an official checkpoint (`vatt convert --list`)."
        )
    return prefix


def _open_tensorflow(prefix: Path) -> Variables:
    check_sizes(prefix)  # saves finding out after minutes
    tensorflow = _import_tensorflow()
    # TensorFlow raises IndexError for its own OutOfRangeError.
    failures = (tensorflow.errors.OpError, RuntimeError, ValueError, IndexError)
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except failures as error:
        raise ConversionError(
            f"{prefix}.index is damaged or no TensorFlow index ({_brief(error)})."
        ) from error

    def read(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(name)
        except failures as error:
            raise ConversionError(
                f"{prefix}.data-*: variable {name} is damaged ({_brief(error)}): fetch it again."
            ) from error

    return Variables(shapes, read, str(prefix))


def _import_tensorflow() -> Any:
    # No messages on import, nor oneDNN, which announces itself at any log level.
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    added = {name: value for name, value in quiet.items() if name not in os.environ}
    os.environ.update(added)
    try:
        import tensorflow
    except ImportError as error:
        raise ConversionError(
            "Reading TensorFlow checkpoints needs TensorFlow, which is not installed: "
            "pip install 'modeling_vatt[tf]' (or pip install tensorflow-cpu)."
        ) from error
    finally:
        for name in added:
            del os.environ[name]
    return tensorflow


def _brief(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]
