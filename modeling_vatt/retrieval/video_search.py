# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Index and model together: make an index of a folder, search it by words, sound or video."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..embedding.embedding import embed_query
from ..embedding.identity import ModelIdentity
from ..hub.repositories import require_repository
from ..models.loading import load_pretrained
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import DEFAULT_LIMITS, MediaLimits, MediaSource, VattProcessor
from .errors import IndexMismatch
from .index import VattIndex
from .moments import Moment
from .store import DEFAULT_FOLDER, find_index
from .updating import IndexReport, update_index, writer_lock


class VideoSearch:
    """Search of a folder of videos.

    ```python
    >>> search = VideoSearch.create("my_videos", model="my_vatt")
    >>> search.update()
    >>> search.text("a dog barks", top_k=1)
    [Moment(path='garden/dog.mp4', start=3.2, end=9.6, score=0.41, duration=61.3)]
    ```

    Args:
        index: what is searched: a [`VattIndex`] or a `PgVectorIndex`.
        model: the one the index was made with, in evaluation mode on its device.
        processor: of the model.

    Raises:
        IndexMismatch: the index was made with another model.
    """

    def __init__(self, index: Any, model: VattModel | VattForPreTraining, processor: VattProcessor) -> None:
        self.index, self.model, self.processor = index, model, processor
        differences = index.identity.differences(ModelIdentity.of(model, processor))
        if differences:
            shown = "; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else "")
            raise IndexMismatch(
                f"The index was made with {index.identity.name}, which differs from this model in {shown}. "
                "Pass that model, or make a new index with this one (another folder, `vatt index --index`)."
            )

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        model: str | os.PathLike,
        index_dir: str | os.PathLike | None = None,
        stride: float | None = None,
        device: str = "cpu",
        trust_remote_code: bool = False,
    ) -> "VideoSearch":
        """A new index of a folder, still empty; fill it with [`VideoSearch.update`].

        Args:
            folder: of the videos.
            model: folder or Hub id of a model with its processor.
            index_dir: folder for the index; by default `.vatt-index` in that of the videos.
            stride: seconds from the start of a window to that of the next; by default their length.
            device: of the model.
            trust_remote_code: run code of towers that came with the model.

        Raises:
            FileNotFoundError: no such folder.
            FileExistsError: there is an index already.
            ValueError: no such device.
        """
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        loaded, processor = load_model(model, device, trust_remote_code=trust_remote_code)
        # A folder is found from anywhere later; a name on the Hub is one already.
        name = str(Path(model).absolute()) if Path(model).is_dir() else str(model)
        identity = ModelIdentity.of(loaded, processor, name)
        window = processor.video_processor.window_seconds
        where = Path(folder) / DEFAULT_FOLDER if index_dir is None else index_dir
        return cls(VattIndex.create(where, folder, identity, window, stride), loaded, processor)

    @classmethod
    def open(
        cls,
        index_dir: str | os.PathLike,
        model: str | os.PathLike | None = None,
        device: str = "cpu",
        trust_remote_code: bool = False,
    ) -> "VideoSearch":
        """An index with the model it was made with.

        Args:
            index_dir: folder of the index, or of the videos if the index is in there, or what else
                [`VattIndex.from_pretrained`] takes.
            model: folder or Hub id, if the model is no longer where it was.
            device: of the model.
            trust_remote_code: run code of towers that came with the model.

        Raises:
            FileNotFoundError: no index there, or no model.
            IndexMismatch: the model is another one, or has changed.
            IndexDamaged: the index cannot be used.
            ValueError: no such device.
        """
        return cls.load(VattIndex.from_pretrained(index_dir), model, device, trust_remote_code)

    @classmethod
    def load(
        cls,
        index: Any,
        model: str | os.PathLike | None = None,
        device: str = "cpu",
        trust_remote_code: bool = False,
    ) -> "VideoSearch":
        """An index that is open, with the model it was made with.

        Args:
            index: a [`VattIndex`] or a `PgVectorIndex`.
            model, device, trust_remote_code: see [`VideoSearch.open`], as for errors.
        """
        identity = index.identity
        name, revision = (model, None) if model is not None else (identity.name, identity.revision)
        loaded, processor = load_model(name, device, revision, trust_remote_code)
        return cls(index, loaded, processor)

    @staticmethod
    def exists(folder: str | os.PathLike) -> bool:
        """Whether there is an index in this folder, or of the videos in it."""
        return find_index(folder) is not None

    def update(
        self,
        batch_size: int = 16,
        num_workers: int = 1,
        progress: Callable[[int, int, int], None] = lambda files, total, windows: None,
        wait: bool = True,
        waiting: Callable[[], None] | None = None,
        limits: MediaLimits = DEFAULT_LIMITS,
        retry: bool = False,
        prune: bool = False,
        rehash: bool = False,
    ) -> IndexReport:
        """Bring the index up to date with its folder, see [`update_index`].

        Args:
            batch_size: windows at a time, about.
            num_workers: threads that decode ahead of the model.
            progress: called with files done, all files, and windows embedded so far.
            wait: for another process that writes to the index.
            waiting: called once before waiting.
            limits: what a file may cost, and whether it is decoded in a process of its own.
            retry: try files again that could not be read, or not wholly.
            prune: remove files that are gone; otherwise they are kept and reported.
            rehash: look for files that were replaced by others of the same size and time.

        Raises:
            IndexBusy: another process writes to the index and `wait` is false.
        """
        with writer_lock(self.index, wait, waiting):
            return update_index(
                self.index,
                self.model,
                self.processor,
                batch_size,
                num_workers,
                progress,
                limits,
                retry,
                prune,
                rehash,
            )

    def text(self, query: str, **options: Any) -> list[Moment]:
        """Moments that words describe.

        Args:
            query: words.
            **options: of [`VattIndex.search`].

        Raises:
            ValueError: text without words.
        """
        vector = embed_query(self.model, self.processor, text=query)
        return self.index.search(vector, "vt", **options)

    def unknown_words(self, query: str) -> list[str]:
        """Words of a query of which the tokenizer makes nothing but its unknown word: they find nothing."""
        tokenizer = self.processor.tokenizer

        def pieces(word: str) -> set[int]:
            marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
            return set(tokenizer(word)["input_ids"]) - marks

        return [word for word in dict.fromkeys(query.split()) if pieces(word) == {tokenizer.unk_token_id}]

    def audio(
        self, source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS, **options: Any
    ) -> list[Moment]:
        """Moments that look as if they sounded like a file.

        Args:
            source: file with sound, of which the centred window is used.
            limits: what the file may cost.
            **options: of [`VattIndex.search`].

        Raises:
            MediaError: the file cannot be read.
        """
        vector = embed_query(self.model, self.processor, audio=source, limits=limits)
        return self.index.search(vector, "va", **options)

    def video(
        self, source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS, **options: Any
    ) -> list[Moment]:
        """Moments that look like a file.

        Args:
            source: file with pictures, of which the centred window is used.
            limits: what the file may cost.
            **options: of [`VattIndex.search`].

        Raises:
            MediaError: the file cannot be read.
        """
        vector = embed_query(self.model, self.processor, video=source, limits=limits)
        return self.index.search(vector, "va", **options)


def load_model(
    name: str | os.PathLike,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[VattForPreTraining, VattProcessor]:
    """A model in evaluation mode, and its processor.

    Args:
        name: folder or Hub id.
        device: of the model.
        revision: commit, branch or tag on the Hub.
        trust_remote_code: run code of towers that came with the model.

    Raises:
        FileNotFoundError: no such folder, and nothing on the Hub.
        ValueError: no such device, or one that has no room for the model; or weights are missing.
    """
    source: dict[str, Any] = {
        "revision": revision,
        "local_files_only": require_repository(name, revision=revision),
    }
    trusted: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    model, _ = load_pretrained(VattForPreTraining, name, **source, **trusted)
    try:
        model = model.eval().to(device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:  # a torch without CUDA asserts
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{device!r}: the model cannot be put on this device ({reason}). Use another, such as `cpu`."
        ) from error
    return model, VattProcessor.from_pretrained(name, **source)
