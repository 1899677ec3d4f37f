# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A model applied to files, their windows and queries; the identity of a model."""
