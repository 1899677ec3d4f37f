# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Public names, flags, files and fields of saved models, names of weights: what users and files rely on.

tests/fixtures/surface.json holds them. Nothing goes from it by accident. What is new joins it with
`PYTHONPATH=tests/support python tests/guards/test_surface.py`; what that removes shows in the diff.
"""

import dataclasses
import hashlib
import importlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
from clip_folders import small_processor
from every_model import MODELS
from public_modules import public_modules
from scripts import EXAMPLES
from small_models import VARIANTS, small_config
from transformers import HfArgumentParser, TrainingArguments

from modeling_vatt import VattForPreTraining
from modeling_vatt.cli import app
from modeling_vatt.hub.remote_code import save_remote_code


FIXTURE = Path(__file__).parents[1] / "fixtures" / "surface.json"


def names() -> dict[str, list[str]]:
    """Package -> public names, every one of which is there."""
    modules = {name: module for name, module in public_modules().items() if hasattr(module, "__path__")}
    return {name: sorted(n for n in module.__all__ if hasattr(module, n)) for name, module in modules.items()}


class _Parsed(Exception):
    """Carries the parser of a script that has come to read its arguments."""


def _stop(parser: HfArgumentParser, *_: Any, **__: Any) -> None:
    raise _Parsed(parser)


def flags() -> dict[str, list[str]]:
    """Script or command -> its flags. The Trainer's own are transformers' affair."""
    found = {}
    theirs = {f"--{no}{field.name}" for field in dataclasses.fields(TrainingArguments) for no in ("", "no_")}
    scripts = [path for path in EXAMPLES.rglob("*.py") if re.search(r"^def main\(\)", path.read_text(), re.M)]
    for path in sorted(scripts):
        with (
            patch.object(sys, "path", [str(path.parent), str(EXAMPLES), *sys.path]),
            patch.object(sys, "argv", [path.name]),
            patch.object(HfArgumentParser, "parse_args_into_dataclasses", _stop),
            pytest.raises(_Parsed) as parsed,
        ):
            importlib.import_module(path.stem).main()
        (parser,) = parsed.value.args
        options = {option for option in parser._option_string_actions if "-" not in option[2:]}
        of_trainer = "--per_device_train_batch_size" in options
        found[path.stem] = sorted(options - theirs if of_trainer else options)
    for name, command in typer.main.get_command(app).commands.items():
        found[f"vatt {name}"] = sorted(
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        )
    return found


def _fields(values: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield before + key
        if isinstance(value, dict) and key not in ("auto_map", "label2id", "id2label"):
            yield from _fields(value, f"{before}{key}.")


def saved() -> dict[str, list[str]]:
    """Files of a saved model with its processor and code, and the fields of those in JSON."""
    config = small_config()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        VattForPreTraining(config).save_pretrained(folder)
        small_processor(config).save_pretrained(folder)
        save_remote_code(folder)
        found = {"files": sorted(path.name for path in folder.iterdir())}
        for file in ("config.json", "processor_config.json"):
            found[file] = sorted(_fields(json.loads((folder / file).read_text())))
    return found


def weights() -> dict[str, str]:
    """Model class and variant -> number and hash of the names and shapes of its weights."""
    found = {}
    for model_class in MODELS:
        for variant in VARIANTS:
            try:
                state = model_class(small_config(variant, num_labels=5)).state_dict()
            except ValueError:  # no such classifier of this variant
                continue
            text = "".join(sorted(f"{key} {tuple(value.shape)}\n" for key, value in state.items()))
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            found[f"{model_class.__name__} {variant}"] = f"{len(state)} {digest}"
    return found


LISTS = {"names": names, "flags": flags, "saved": saved}


@pytest.mark.parametrize("part", LISTS)
def test_nothing_is_lost(part):
    found = LISTS[part]()
    for place, expected in json.loads(FIXTURE.read_text())[part].items():
        lost = set(expected.split()) - set(found.get(place, ()))
        assert not lost, f"{place} lost {sorted(lost)}. {__doc__}"


def test_names_and_shapes_of_weights_are_those_of_saved_models():
    assert weights() == json.loads(FIXTURE.read_text())["weights"], __doc__


if __name__ == "__main__":
    made: dict[str, dict[str, str]] = {"weights": weights()}
    for part, make in LISTS.items():
        made[part] = {place: " ".join(items) for place, items in make().items()}
    FIXTURE.write_text(json.dumps(made, indent=1) + "\n")
