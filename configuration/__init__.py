# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Configurations of the VATT models. Registered with `AutoConfig`."""

from transformers import AutoConfig

from .configuration_vatt import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig, encoder_size
from .tower_use import VattTowerUse


for _config_class in (VattConfig, VattVideoConfig, VattAudioConfig, VattTextConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)


__all__ = [
    "VattAudioConfig",
    "VattConfig",
    "VattTextConfig",
    "VattTowerUse",
    "VattVideoConfig",
    "encoder_size",
]
