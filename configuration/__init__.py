# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Configurations of the VATT models."""

from .configuration_vatt import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig, encoder_size
from .tower_use import VattTowerUse


__all__ = [
    "VattAudioConfig",
    "VattConfig",
    "VattTextConfig",
    "VattTowerUse",
    "VattVideoConfig",
    "encoder_size",
]
