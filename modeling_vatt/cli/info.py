# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt info`."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ..repositories import require_repository
from .common import explained, quiet, say, say_json


@explained("Nothing was changed.")
def info(
    path: Annotated[
        str, typer.Argument(help="Model (folder or Hub id), index, indexed folder, shards, or media file.")
    ],
    files: Annotated[bool, typer.Option("--files", help="Of an index: list its files, with errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model, an index, a media file or a folder of shards is.

    Examples:

    vatt info my_model

    vatt info my_videos --files            # the index in there

    vatt info clip.mp4 --json
    """
    cached = not Path(path).is_file() and require_repository(path)
    facts = _facts(Path(path), path, files, cached)
    if files and facts["kind"] != "index":
        raise typer.BadParameter(
            f"lists the files of an index, not of what is a {facts['kind']}. Leave it out.",
            param_hint="--files",
        )
    if as_json:
        say_json(facts)
        return
    listed = facts.pop("listed", [])
    width = max(map(len, facts))
    for key, value in facts.items():
        say(f"{key:<{width}}  {value}")
    for file in listed:
        say(f"{file['windows']:6d}  {file['path']}" + (f": {file['error']}" if file["error"] else ""))


def _facts(path: Path, name: str, files: bool, cached: bool) -> dict[str, Any]:
    from ..retrieval.store import EXPORTED, find_index

    if path.is_file():
        from dataclasses import asdict

        from ..processors import probe

        return {"kind": "media file", **asdict(probe(path))}
    if find_index(path) or (path / EXPORTED).is_file():
        from ..retrieval import VattIndex

        with VattIndex.open(path) if find_index(path) else VattIndex.from_pretrained(path) as index:
            return {"kind": "index", **index.info(), **({"listed": index.files()} if files else {})}
    from ..data.shards import MANIFEST, ShardDataset

    if (path / MANIFEST).is_file():
        shards = ShardDataset(path)
        return {
            "kind": "shards",
            "folder": name,
            "clips": len(shards),
            "shards": len(shards.shards),
            "fingerprint": shards.fingerprint,
        }
    if path.exists() and not (path / "config.json").is_file():
        raise ValueError(
            f"{name}: neither a model (config.json), nor an index, nor shards. Check the path; `vatt index` "
            "makes an index."
        )
    return _model_facts(name, cached)


def _model_facts(name: str, cached: bool) -> dict[str, Any]:
    quiet()
    from transformers import AutoConfig

    from ..configuration import VattConfig
    from ..processors import VattProcessor

    config = AutoConfig.from_pretrained(name, local_files_only=cached)
    if not isinstance(config, VattConfig):
        raise ValueError(f"{name}: a model of type {config.model_type!r}, not a VATT.")
    video, audio, text = config.video_config, config.audio_config, config.text_config
    described = {
        "video": lambda: f"{video.num_frames} frames of {video.image_size} x {video.image_size}",
        "audio": lambda: audio.input_type,
        "text": lambda: f"{text.max_position_embeddings} words of {text.vocab_size}",
    }
    facts: dict[str, Any] = {
        "kind": "model",
        "name": name,
        "class": ", ".join(config.architectures or ["unknown"]),
        "setting": "modality-agnostic" if config.modality_agnostic else "modality-specific",
        **{
            name: getattr(config, f"{name}_config").model_type if config.is_foreign(name) else describe()
            for name, describe in described.items()
        },
        "head": config.head_type,
        "dims": {"va": config.va_projection_size, "vt": config.vt_projection_size},
    }
    try:
        processor = VattProcessor.from_pretrained(name)
        facts["window"] = f"{processor.video_processor.window_seconds:g} s"
        facts["sampling_rate"] = processor.feature_extractor.sampling_rate
    except (OSError, ValueError):
        facts["processor"] = "none beside the model"
    weights = Path(name) / "model.safetensors"
    if weights.is_file():
        from safetensors import safe_open

        with safe_open(weights, "pt") as content:
            shapes = [content.get_slice(key).get_shape() for key in content.keys()]  # noqa: SIM118
        facts["values"] = sum(map(math.prod, shapes))
    return facts
