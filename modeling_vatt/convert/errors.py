# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The one exception of the converter."""


class ConversionError(ValueError):
    """A checkpoint cannot be converted. The message names the file or variable and the remedy."""
