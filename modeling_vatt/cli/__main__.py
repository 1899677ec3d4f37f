# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`python -m modeling_vatt.cli` is `vatt`."""

from . import main


main()
