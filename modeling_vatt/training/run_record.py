# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`run.json`: record of a run, beside its checkpoints and its result."""

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_utils import enable_full_determinism

from .._version import __version__
from ..data.tables import names_and_sizes
from ..fast_cpu import fast_cpu
from ..files import write_whole


RUN_FILE = "run.json"

_PACKAGES = (
    "accelerate",
    "av",
    "datasets",
    "huggingface_hub",
    "numpy",
    "safetensors",
    "scikit-learn",
    "soxr",
)
_SECRET_NAME = re.compile(
    r"(^|_)(token|secret|password|passwd|credentials?|api_?key|access_key)s?$", re.IGNORECASE
)
_SECRETS = (
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    re.compile(r"(?<=://)[^/@\s]+(?=@)"),  # user and password in a URL
    re.compile(r"(?i)(?<=bearer )[\w.~+/-]+=*"),
    re.compile(
        r"(?i)(?<=[?&;])((?:[\w-]*(?:token|signature|secret|password|credential|api[_-]?key|sig)[\w-]*)=)[^&\s'\"]+"
    ),
)
_SECRET_VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "WANDB_API_KEY",
)
HIDDEN = "(hidden)"


def without_secrets(value: Any) -> Any:
    """A value (text, number, mapping, sequence, dataclass, or the text of others) for JSON, without tokens of
    the Hub, passwords and signatures in URLs, and text under a name like `hub_token`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            str(name): HIDDEN
            if isinstance(part, str) and _SECRET_NAME.search(str(name))
            else without_secrets(part)
            for name, part in value.items()
        }
    if isinstance(value, Enum):
        return without_secrets(value.value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [without_secrets(part) for part in value]
    text = str(value)
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= 8:
            text = text.replace(secret, HIDDEN)
    for pattern in _SECRETS:
        text = pattern.sub(lambda found: (found[1] if found.re.groups else "") + HIDDEN, text)
    return text


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide its results."""
    found = {
        "python": platform.python_version(),
        "modeling_vatt": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Hardware and system, without names of machine and user."""
    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "fast_cpu": fast_cpu(),
    }


def git_revision() -> dict[str, Any] | None:
    """Commit of the package's sources, and whether they were changed since; None outside of a repository."""
    folder = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None

    # The package may be installed inside of another repository.
    if not git("ls-files", "--error-unmatch", Path(__file__).name):
        return None
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit.strip(), "changed": bool(changed is None or changed)}


def settings_digest(value: Any) -> str:
    """A short hash of settings, configs or lists."""
    return hashlib.sha256(json.dumps(without_secrets(value), sort_keys=True).encode()).hexdigest()[:16]


def table_fingerprint(table: datasets.Dataset, column: str, *others: str) -> str:
    """Hash of a table, independent of its folder's place; reads no media.

    Args:
        table: of [`~modeling_vatt.data.open_table`] or [`~modeling_vatt.data.load_labelled`].
        column: of the files: their names, and the sizes of a thousand of them, or of all embedded ones.
        *others: further columns, such as the labels; `start` and `end` always count.
    """
    digest = hashlib.sha256()
    parts = [name for name in ("start", "end") if name in table.column_names and name not in others]
    others = (*others, *parts)
    every, columns = max(1, len(table) // 1000), (table[name] for name in others)
    for place, ((path, size), *values) in enumerate(
        zip(names_and_sizes(table, column), *columns, strict=True)
    ):
        if size is None and path and place % every == 0 and os.path.isfile(path):
            size = os.path.getsize(path)
        digest.update(repr((os.path.basename(path or ""), size, *values)).encode())
    return digest.hexdigest()


def write_run_record(
    folder: str | os.PathLike,
    kind: str,
    config: Any = None,
    arguments: Any = None,
    data: Any = None,
    step: int = 0,
    num_processes: int = 1,
    new: bool = True,
    **more: Any,
) -> Path:
    """Write `run.json`, the record of a run, without secrets (see [`without_secrets`]).

    It holds versions, git revision, machine, config, arguments and data, and under `history` the same of
    every start, with its step.

    Args:
        folder: gets the file.
        kind: such as `"pretraining"`.
        config: of the model, as a dict.
        arguments: mapping or dataclass, or a mapping of those.
        data: fingerprint and other facts of the data.
        step: from which the run starts now.
        num_processes: that share the run.
        new: start a new history instead of adding to that of the file.
        **more: other JSON-serialisable facts for the top level.

    Returns:
        The file.
    """
    file = Path(folder) / RUN_FILE
    now = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "num_processes": num_processes,
        "versions": versions(),
        "revision": git_revision(),
        "machine": machine(),
    }
    before = [] if new else read_run_record(folder).get("history", [])
    record = {
        "kind": kind,
        **{name: now[name] for name in ("versions", "revision", "machine")},
        "config": config,
        "arguments": arguments,
        "data": data,
        **more,
        "history": [*before, now],
    }
    write_whole(file, (json.dumps(without_secrets(record), indent=2) + "\n").encode())
    return file


def copy_run_record(source: Path, target: Path) -> None:
    """Copy the record of a run into a checkpoint, if it exists."""
    if (source / RUN_FILE).is_file():
        shutil.copy(source / RUN_FILE, target)


def read_run_record(folder: str | os.PathLike) -> dict[str, Any]:
    """The record in a folder; {} if there is none, or it cannot be read."""
    try:
        record = json.loads((Path(folder) / RUN_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: not negative (ValueError).
        deterministic: allow only algorithms of torch that give the same bits every time; operations without
            one raise. Slower on GPUs.
    """
    if seed < 0:
        raise ValueError(f"`seed` must not be negative, got {seed}: use 0 or more.")
    if deterministic:
        enable_full_determinism(seed % 2**32)
    else:
        transformers.set_seed(seed % 2**32)


def seed_step(seed: int) -> None:
    """Seed the randomness of a forward pass, also NumPy's, which some towers use (wav2vec 2)."""
    transformers.set_seed(seed % 2**32)
    torch.manual_seed(seed)
