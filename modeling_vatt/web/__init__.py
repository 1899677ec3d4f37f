# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The web page over an index: `vatt serve`. Needs the extra `web`."""

from .app import create_app
from .settings import WebSettings


__all__ = ["WebSettings", "create_app"]
