# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`from_pretrained` that refuses checkpoints without the needed towers."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ..repositories import asked_once
from .modeling_vatt import VattPreTrainedModel


Model = TypeVar("Model", bound=VattPreTrainedModel)


def load_pretrained(
    model_class: type[Model],
    source: str | os.PathLike,
    may_be_new: Sequence[str] = (),
    adapted: Iterable[str] = (),
    **kwargs: Any,
) -> tuple[Model, str]:
    """A model with the weights of a checkpoint, and a line that says what was taken, is new, and was
    `adapted` by the caller. FileNotFoundError if there is no such folder or name on the Hub; ValueError for
    missing or mismatched weights of parts other than `may_be_new` (`classifier`, `head`, `audio_model`,
    ...)."""
    kwargs = asked_once(source, "config.json", kwargs)
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, **kwargs}
    model, info = model_class.from_pretrained(source, **options)
    new = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    total = Counter(map(_part, model.state_dict()))
    lacking = Counter(map(_part, new))
    wrong = [part for part in lacking if part not in may_be_new]
    if wrong:
        counts = ", ".join(f"{part} ({lacking[part]} of {total[part]} weights)" for part in wrong)
        kinds = ", ".join(getattr(model.config, "architectures", None) or ["an unknown class"])
        raise ValueError(
            f"{source} lacks {counts}, which {model_class.__name__} needs: it holds {kinds}. Give a "
            "checkpoint trained with them, such as a pretrained model or a classifier of the same medium."
        )
    taken = sum(total.values()) - sum(lacking.values())
    words = [f"{source}: {taken} of {sum(total.values())} weights taken"]
    words += [f"adapted: {', '.join(adapted)}"] if adapted else []
    return model, "; ".join([*words, f"new: {', '.join(sorted(lacking)) or 'nothing'}"])


def _part(name: str) -> str:
    """The part of a model that a weight belongs to."""
    return name.removeprefix("vatt.").partition(".")[0]
