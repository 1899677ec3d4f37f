# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Version of the package, in one place so that setup.cfg can read it without importing torch."""

__version__ = "0.1.0"
