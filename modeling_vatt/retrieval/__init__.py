# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
