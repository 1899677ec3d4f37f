# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What a saved model needs beside its weights to be shared: a model card, and its code."""
