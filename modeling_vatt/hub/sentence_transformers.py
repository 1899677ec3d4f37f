# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Files by which sentence-transformers loads a saved model."""

import json
import os
from pathlib import Path
from typing import Any

from ..files import write_whole


# Its own default would take the features before the heads; `modeling_vatt.embedding.sentence_transformers`.
EMBEDDER = "modeling_vatt.embedding.sentence_transformers.VattEmbedder"

_FILES: dict[str, Any] = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": EMBEDDER}],
    "config_sentence_transformers.json": {
        "model_type": "SentenceTransformer",
        "requirements": {"modeling_vatt": ">=0.1.0"},
        "similarity_fn_name": "dot",
    },
}
# What a processor is saved as; SentenceTransformer loads it from the folder of the model.
PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")


def save_modules_file(folder: str | os.PathLike) -> list[str]:
    """Write the files that name this package's module beside a saved model with all towers, unless they exist
    (they may describe more modules). Returns their names."""
    for name, content in _FILES.items():
        path = Path(folder) / name
        if not path.exists():
            write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
    return list(_FILES)
