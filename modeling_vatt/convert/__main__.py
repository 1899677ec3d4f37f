# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m modeling_vatt.convert`: the same as `vatt convert`."""

import sys

from ..cli import main


main(["convert", *sys.argv[1:]])
