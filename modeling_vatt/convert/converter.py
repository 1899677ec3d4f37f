# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Official variables -> model, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..models.classification import VattClassifier
from ..models.modeling_vatt import VattForPreTraining, VattModel, VattPreTrainedModel
from .errors import ConversionError
from .inspection import infer_config
from .mapping import Entry, classification_table, pretraining_table
from .variables import Variables


def model_table(model: VattPreTrainedModel) -> list[Entry]:
    """Variable and parameter of everything in `model`."""
    foreign = any(map(model.config.is_foreign, model.towers))
    if isinstance(model, VattClassifier) and not model.config.modality_agnostic:
        return classification_table(model.config, model.modality)
    if isinstance(model, VattForPreTraining) and not foreign:
        return pretraining_table(model.config)
    if isinstance(model, VattModel) and model.head is not None and not foreign:
        return pretraining_table(model.config, prefix="")
    raise ConversionError(
        f"{type(model).__name__} of this config has no counterpart in the release: give another model."
    )


def build_model(
    shapes: Mapping[str, tuple[int, ...]],
    source: str = "checkpoint",
    head_dim: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[VattPreTrainedModel, list[Entry]]:
    """Model on the meta device that fits the variables exactly, and its table."""
    model_class, config = infer_config(shapes, source, head_dim, overrides)
    try:
        with torch.device("meta"):
            model = model_class(config)
    except ValueError as error:
        raise ConversionError(f"{source}: {error}") from error
    table = model_table(model)
    expected = {entry.variable for entry in table}
    if left_over := sorted(set(shapes) - expected):
        raise ConversionError(
            f"{source} has variables without a place in the model: {', '.join(left_over)}. Check the "
            "overrides; only models of the release can be converted."
        )
    if missing := sorted(expected - set(shapes)):
        raise ConversionError(
            f"{source} lacks variables of the model: {', '.join(missing)}. Fetch it, or check the overrides."
        )
    state = model.state_dict()
    if unfilled := sorted(set(state) - {entry.parameter for entry in table}):
        raise ConversionError(
            f"No variable of {source} is mapped to the parameters {', '.join(unfilled)}: check the overrides."
        )
    for entry in table:
        wanted = entry.variable_shape(tuple(state[entry.parameter].shape))
        if tuple(shapes[entry.variable]) != wanted:
            raise ConversionError(
                f"{source}: {entry.variable} has shape {tuple(shapes[entry.variable])}, expected {wanted}."
            )
    return model, table


def load_variables(
    variables: Variables,
    head_dim: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    replacements: Mapping[str, np.ndarray] | None = None,
) -> VattPreTrainedModel:
    """Model in evaluation mode with the weights of a checkpoint.

    Variables are read one at a time, so memory is that of the model and one variable.

    Args:
        variables, head_dim, overrides: see [`open_variables`] and [`infer_config`].
        replacements: arrays to use instead of variables of these names.
    """
    model, table = build_model(variables.shapes, variables.source, head_dim, overrides)
    state: dict[str, torch.Tensor] = {}
    for entry in table:
        array = (replacements or {}).get(entry.variable)
        array = variables[entry.variable] if array is None else array
        if array.dtype != np.float32:
            raise ConversionError(f"{variables.source}: {entry.variable} is {array.dtype}, expected float32.")
        state[entry.parameter] = entry.to_tensor(array)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def export_variables(model: VattPreTrainedModel) -> dict[str, np.ndarray]:
    """The model's weights under the release's variable paths and in its layouts; views where possible.
    ConversionError if the release has no place for some."""
    state, table = model.state_dict(), model_table(model)
    if other := sorted(set(state) ^ {entry.parameter for entry in table}):
        raise ConversionError(
            f"The release has no variables for {', '.join(other[:3])}{', ...' if other[3:] else ''}: give a "
            "model whose towers, head and loss are those of the release."
        )
    return {entry.variable: entry.to_array(state[entry.parameter]) for entry in table}


def word_table_entry(table: list[Entry]) -> Entry | None:
    """The entry of the word table, if the model has one."""
    return next((entry for entry in table if entry.parameter.endswith("word_embeddings.weight")), None)
