# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by the scripts: how they end, and arguments that are checked before the work begins."""

import ctypes
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers.hf_argparser import HfArg, HfArgumentParser

from modeling_vatt import VattConfig
from modeling_vatt.processors import MediaLimits, VattVideoProcessor
from modeling_vatt.training import without_secrets


Table = TypeVar("Table")


def fail(error: Exception | str) -> NoReturn:
    """End the script with a message, without tokens, and the code of the error."""
    print(without_secrets(str(error)), file=sys.stderr)
    sys.exit(getattr(error, "exit_code", 1))


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of returning them to the system: saves up to a third of the
    time of small models on the CPU."""
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    if platform.libc_ver()[0] == "glibc" and not any(name.startswith("MALLOC_") for name in os.environ):
        library = ctypes.CDLL(None)
        library.mallopt(mmap, 2**30)
        library.mallopt(trim, -1)


def as_flags(**options: object) -> list[str]:
    """Options as words of a script's command line; a list is several words."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def parse(script: str, *kinds: Any) -> tuple[Any, ...]:
    """The arguments of a script as instances of the dataclasses; `script` is its docstring."""
    parser = HfArgumentParser(kinds, description=script.splitlines()[0])
    try:
        found = parser.parse_args_into_dataclasses()
    except ValueError as error:  # unknown flags, values that make no sense
        parser.error(str(error))
    keep_freed_memory()
    return found


@contextmanager
def naming(flag: str) -> Iterator[None]:
    """Turns errors about the value of a flag into ValueErrors that name it."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise ValueError(f"{flag}: {error.doc!r} is no JSON ({error}).") from error
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"{flag}: {' '.join(str(error).split())}") from error


def json_object(flag: str, text: str | None) -> dict[str, Any]:
    """The JSON object that is the value of a flag, empty if the flag was left out."""
    with naming(flag):
        found = json.loads(text or "{}")
        if not isinstance(found, dict):
            raise ValueError(f'expected a JSON object, such as {{"name": 1}}, got {text!r}.')
        return found


def merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Nested update of existing fields."""
    for key, value in overrides.items():
        if key not in base:
            raise ValueError(f"the config has no field {key!r}. Check its name.")
        if isinstance(value, dict) and isinstance(base[key], dict):
            value = merge(base[key], value)
        elif isinstance(base[key], float) and type(value) is int:
            value = float(value)
        base[key] = value
    return base


def new_config(preset: str, overrides: str | None) -> VattConfig:
    """The config of a new model, from the values of --preset and --config_overrides; ValueError for an
    unknown preset, invalid JSON, or fields that do not fit."""
    fields = VattConfig.from_preset(preset).to_dict()
    found = json_object("--config_overrides", overrides)
    with naming("--config_overrides"):
        return VattConfig(**merge(fields, found))


@dataclass
class MediaArguments:
    """What files may cost."""

    isolate_decoding: bool = HfArg(
        default=False,
        help="Decode in processes of their own: a file that crashes or hangs costs itself only.",
    )
    media_limits: str = HfArg(
        default="{}",
        help='What a file may cost, as JSON, e.g. \'{"max_pixels": 2073600, "wall_seconds": 20}\'.',
    )

    def limits(self) -> MediaLimits:
        """The limits; ValueError for invalid ones."""
        with naming("--media_limits"):
            return MediaLimits.from_json(self.media_limits, isolated=self.isolate_decoding)


@dataclass(kw_only=True)
class WorkerArguments(MediaArguments):
    """Who does the work."""

    num_workers: int = HfArg(default=1, help="Processes, or Ray actors.")
    engine: Literal["processes", "ray"] = HfArg(
        default="processes", help="ray: Ray Data, on the cluster at RAY_ADDRESS or here."
    )


def decoded_side(videos: VattVideoProcessor) -> int:
    """Shorter side at which videos are decoded by default: 8/7 of the crop, and at least the size to which
    frames are resized."""
    size = min(dict(videos.size).values()) if videos.do_resize and videos.size else 0
    return max(max(dict(videos.crop_size).values()) * 8 // 7, size)


def check_output_dir(folder: str | Path, flag: str = "--output_dir") -> None:
    """ValueError if nothing can be written there; to be called before the work."""
    target = Path(folder)
    place = next(path for path in (target, *target.parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"{flag} {folder}: {place} is a file. Name a folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{flag} {folder}: no right to write into {place}. Choose another folder.")


def refuse_with_model(model: str | None, flags: dict[str, Any]) -> None:
    """ValueError for flags of a new model (name -> value, None if left out) beside --model, where they would
    have no effect."""
    given = [f"--{name}" for name, value in flags.items() if value is not None]
    if model is not None and given:
        raise ValueError(
            f"{', '.join(given)}: for new models only: --model {model} has its own. Leave one out."
        )


def held_out(load: Callable[[str], Table], split: str | None) -> tuple[str, Table]:
    """The name and the clips of the split to evaluate on; None for `test`, or else `validation`. `load`:
    gives the clips of a split, or raises ValueError."""
    if split is not None:
        return split, load(split)
    try:
        return "test", load("test")
    except ValueError as error:
        if "Unknown split" not in str(error):
            raise
        return "validation", load("validation")
