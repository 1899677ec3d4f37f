# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Official TensorFlow checkpoints to `from_pretrained` folders, and back. Raises [`ConversionError`], which
names the file or variable and the remedy."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names


if TYPE_CHECKING:
    from .converter import build_model, export_variables, load_variables
    from .errors import ConversionError
    from .fingerprint import check_fingerprint
    from .inspection import infer_config
    from .misc_data import read_misc_data
    from .release import RELEASES, fetch_release
    from .variables import Variables, open_variables
    from .writing import Conversion, convert_checkpoint
else:
    __getattr__, __dir__ = lazy_names(__name__)


__all__ = [
    "RELEASES",
    "Conversion",
    "ConversionError",
    "Variables",
    "build_model",
    "check_fingerprint",
    "convert_checkpoint",
    "export_variables",
    "fetch_release",
    "infer_config",
    "load_variables",
    "open_variables",
    "read_misc_data",
]
