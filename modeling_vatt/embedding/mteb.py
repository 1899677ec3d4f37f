# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tasks of mteb with VATT; needs the extra `mteb`."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import load_file_path
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers.utils.hub import extract_commit_hash

from .._version import __version__
from ..files import hash_file
from .sentence_transformers import VattEmbedder


_MODALITIES = ("text", "image", "audio", "video")
# Options of the Hub, which change no vector.
_PASSING = {"token", "cache_folder", "local_files_only", "trust_remote_code"}


class VattEncoder(AbsEncoder):
    """Embeds the rows of mteb's data sets as [`VattEmbedder`] does; the similarity is the dot product.

    This package decodes columns of sound and video, without torchcodec and torchaudio. Audio columns are the
    sound of the video beside them.

    Args:
        model: folder or name on the Hub.
        revision, device: see `SentenceTransformer`.
        windows: windows spread over each clip, whose embeddings are averaged.
        kwargs: of `SentenceTransformer`.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        device: str | None = None,
        windows: int = 4,
        **kwargs: Any,
    ) -> None:
        self.model = SentenceTransformer(
            model, revision=revision, device=device, **{"trust_remote_code": True, **kwargs}
        )
        embedder = self.model[0]
        if not isinstance(embedder, VattEmbedder):
            raise ValueError(f"`model` must be a saved VATT, got {model}: use `mteb.get_model` for others.")
        embedder.windows = windows

    def encode(self, inputs: DataLoader, *, task_metadata: Any, **kwargs: Any) -> npt.NDArray[np.float32]:
        """Vectors (rows, width); ValueError if the task compares text with sound and the model has no common
        space for them."""
        self._check_spaces(task_metadata)
        table: Any = inputs.dataset
        if isinstance(table, datasets.Dataset):
            # Other columns of sound and video would be decoded.
            table = table.select_columns([name for name in _MODALITIES if name in table.column_names])
            for name in table.column_names:
                feature = table.features[name]
                if isinstance(feature, datasets.Audio | datasets.Video):
                    table = table.cast_column(name, type(feature)(decode=False))
        rows = DataLoader(table, batch_size=inputs.batch_size, collate_fn=list)
        hidden = not kwargs.get("show_progress_bar", True)
        parts = []
        for batch in tqdm(rows, desc=task_metadata.name, disable=hidden):
            items = [{name: row.get(name) for name in _MODALITIES} for row in batch]
            parts.append(self.model.encode(items, batch_size=len(items), show_progress_bar=False))
        return np.concatenate(parts)

    def _check_spaces(self, task: Any) -> None:
        """Check a category such as `va2t`: what is compared with what."""
        names = {name[0]: name for name in task.modalities}
        sides = [{*map(names.get, side)} for side in (task.category or "").split("2")]
        if {"audio"} in sides and {"text"} in sides and self.model.config.head_type != "joint":
            raise ValueError(
                f"{task.name} compares sound with text, for which the FAC head has no common space: choose "
                'another task, or a model pretrained with `head_type="joint"`.'
            )


class _VattMeta(ModelMeta):
    """Without mteb's extras for its own decoding."""

    def _check_requirements(self) -> None:
        return


def model_meta(model: str, revision: str | None = None, windows: int = 4, **kwargs: Any) -> ModelMeta:
    """Metadata of a model for `mteb.evaluate`.

    ```python
    >>> mteb.evaluate(model_meta("my_vatt"), mteb.get_tasks(tasks=["MSRVTTT2V"]))
    ```

    Args:
        model: folder or name on the Hub. A folder is named `local/NAME`, with the hash of its files as
            revision; a name gets its commit. With the settings and the version of this package, mteb's cache
            keeps results apart by them.
        revision: on the Hub.
        windows: see [`VattEncoder`].
        kwargs: of `SentenceTransformer`.
    """
    folder = Path(model)
    name = model
    if folder.is_dir():
        name, revision = f"local/{folder.resolve().name}", _hash_folder(folder)
    else:
        hub = {key: kwargs[key] for key in ("token", "cache_folder", "local_files_only") if key in kwargs}
        found = load_file_path(model, "config.json", revision=revision, **hub)
        revision = extract_commit_hash(found, None) or revision
    settings = {key: value for key, value in kwargs.items() if key not in _PASSING}
    settings |= {"windows": windows, "modeling_vatt": __version__}
    stated = json.loads(json.dumps(settings, default=str))

    def load(_: str, revision: str | None, embed_dim: int | None = None, **given: Any) -> VattEncoder:
        """mteb gives what is stated again, changed by the arguments of `load_model`."""
        options: dict[str, Any] = {"windows": windows, **kwargs}
        options |= {name: value for name, value in given.items() if stated.get(name) != value}
        if embed_dim is not None:
            options["truncate_dim"] = embed_dim
        return VattEncoder(os.fspath(model), None if folder.is_dir() else revision, **options)

    return _VattMeta.create_empty(
        {
            "loader": load,
            "name": name,
            "revision": revision,
            "modalities": list(_MODALITIES),
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
            "framework": ["Sentence Transformers", "PyTorch"],
            "experiment_kwargs": stated,
        }
    )


def _hash_folder(folder: Path) -> str:
    """Hash of the files that a model is loaded from."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".safetensors", ".model", ".txt", ".py"):
            digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return digest.hexdigest()[:40]
