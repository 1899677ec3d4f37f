# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Index and model together: make an index of a folder, search it by words, sound or video."""

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from transformers import BatchFeature

from ..embedding.embedding import embed_query, embed_read_query, read_query
from ..embedding.identity import ModelIdentity
from ..models.loading import load_pretrained
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import DEFAULT_LIMITS, MediaError, MediaLimits, MediaSource, VattProcessor, read_duration
from ..processors.media.source import source_name
from ..repositories import require_repository
from .calibration import Calibration
from .errors import IndexMismatch
from .ignoring import IGNORE_FILE
from .index import VattIndex
from .locking import writer_lock
from .moments import Moment, Strength
from .query import Query
from .searchable import IndexedMoment, Vectors, combined
from .store import DEFAULT_FOLDER, Space, find_index
from .updating import IndexReport, update_index


@dataclass(frozen=True)
class ReadQuery:
    """A query with its files decoded, see [`VideoSearch.read`].

    Args:
        query: as given.
        inputs: of the model, for each part that is a file.
        moment: of the index for `query.like`, with its embeddings.
    """

    query: Query
    inputs: Mapping[str, BatchFeature]
    moment: IndexedMoment | None = None


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
        self.calibration = Calibration(index)
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
            index_dir: folder for the index; default: `.vatt-index` in that of the videos.
            stride: seconds from window to window; default: their length.
            device, trust_remote_code: see [`VideoSearch.load`].

        Raises:
            FileNotFoundError: no such folder.
            FileExistsError: there is an index already.
            ValueError: no such device.
        """
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: no such folder.")
        loaded, processor = load_model(model, device, trust_remote_code=trust_remote_code)
        # An absolute path is found from anywhere later.
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
        """An index with its model.

        Args:
            index_dir: folder of the index, or of the videos with the index, or a name for
                [`VattIndex.from_pretrained`].
            model, device, trust_remote_code: see [`VideoSearch.load`].

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
        """An open index with its model; errors as of [`VideoSearch.open`].

        Args:
            index: a [`VattIndex`] or a `PgVectorIndex`.
            model: folder or Hub id, if the model has moved.
            device: of the model.
            trust_remote_code: run code of towers that came with the model.
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
        self, *, wait: bool = True, waiting: Callable[[], None] | None = None, **options: Any
    ) -> IndexReport:
        """Bring the index up to date with its folder; `wait` and `waiting`: see [`writer_lock`], `options`:
        see [`update_index`]."""
        with writer_lock(self.index, wait, waiting):
            return update_index(self.index, self.model, self.processor, **options)

    def watch(self, stop: threading.Event | None = None, **options: Any) -> Iterator[IndexReport]:
        """Bring the index up to date, and again whenever its folder changes, until `stop` is set.

        Args:
            stop: checked twice a second.
            **options: of [`VideoSearch.update`]; `retry`, `rehash` and `exclude` only for the first time, as
                others may be given to the index meanwhile.

        Raises:
            ImportError: the extra `watch` is not installed.
        """
        try:
            from watchfiles import watch
        except ImportError as error:
            raise ImportError(f"{error}. Install it: pip install 'modeling_vatt[watch]'.") from error
        root, index_folder = self.index.root.resolve(), self.index.store.folder.resolve()

        def counts(_: Any, name: str) -> bool:
            path = Path(name)
            # What is hidden is not indexed: other indexes, and files that are just being copied.
            hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
            return (path == root / IGNORE_FILE or not hidden) and not path.is_relative_to(index_folder)

        changes = watch(root, watch_filter=counts, stop_event=stop, rust_timeout=500, yield_on_timeout=True)
        next(changes, None)  # from now on no change is missed
        yield self.update(**options)
        for found in changes:
            if found:
                yield self.update(**{**options, "retry": False, "rehash": False, "exclude": None})

    def read(
        self, query: Query, limits: MediaLimits = DEFAULT_LIMITS, moment: IndexedMoment | None = None
    ) -> "ReadQuery":
        """A query with its files decoded, without the model.

        Args:
            query: what is looked for.
            limits: what its files may cost.
            moment: result of [`VattIndex.moment_at`] for `query.like`; default: looked up, or read from the
                file if the index does not have it, or not as it is now.

        Raises:
            ValueError: a second of `query.like` that a file of the index does not have.
            MediaError: a file cannot be read, has no such second, or is silent.
        """
        sources: dict[str, dict[str, Any]] = {}
        if query.audio is not None:
            sources["audio"] = {"audio": query.audio}
        if query.video is not None:
            sources["video"] = {"video": query.video}
        if query.like is not None and moment is None:
            name, seconds = query.like
            moment = self.index.moment_of(name, seconds)
            if moment is None:
                file, start = self.index.file_of(name), None
                if seconds is not None:
                    length, window = read_duration(file, limits), self.index.window
                    if not 0 <= seconds <= length:
                        reason = f"it has no second {seconds:g}, but {length:g} in all"
                        raise MediaError(source_name(file), reason, "Take another moment of it.")
                    start = max(0.0, min(seconds - window / 2, length - window))
                sources["like"] = {"video": file, "start": start}
        inputs = {
            part: read_query(self.processor, limits=limits, **source) for part, source in sources.items()
        }
        return ReadQuery(query, inputs, moment)

    def find(
        self,
        query: "Query | ReadQuery",
        limits: MediaLimits = DEFAULT_LIMITS,
        at_least: Strength = "weak",
        **options: Any,
    ) -> list[Moment]:
        """Moments that fit a query of one part or of several.

        Args:
            query: what is looked for, also as result of [`VideoSearch.read`].
            limits: what its files may cost.
            at_least: leave out what fits less, see [`strength`].
            **options: of [`VattIndex.search`].

        Raises:
            ValueError: text without words, or a silent sound.
            MediaError: a file cannot be read.
        """
        read = self.read(query, limits) if isinstance(query, Query) else query
        if read.moment is not None:
            options["other_than"] = read.moment[0]
        return self.near(self.embed(read), at_least, **options)

    def embed(self, read: "ReadQuery") -> Vectors:
        """A query in each space, for [`VideoSearch.near`]; ValueError for text without words."""
        query = read.query
        parts: list[tuple[Space, npt.NDArray, float]] = [
            ("va", embed_read_query(self.model, inputs), query.weight(part))
            for part, inputs in read.inputs.items()
        ]
        if read.moment is not None:
            parts.append(("va", read.moment[1]["va"], query.weight("like")))
        texts = [] if query.text is None else [(query.text, query.weight("text"))]
        for words, weight in (*texts, *((words, -query.weight("avoid")) for words in query.avoid)):
            parts.append(("vt", embed_query(self.model, self.processor, text=words), weight))
        return combined(parts)

    def near(
        self, queries: Mapping[Space, npt.NDArray], at_least: Strength = "weak", **options: Any
    ) -> list[Moment]:
        """Moments that fit embeddings, see [`Calibration.near`]."""
        return self.calibration.near(queries, at_least, **options)

    def text(self, query: str, **options: Any) -> list[Moment]:
        """Moments that words describe, see [`VideoSearch.find`]."""
        return self.find(Query(text=query), **options)

    def unknown_words(self, *texts: str) -> list[str]:
        """Words that the model ignores: the tokenizer does not know them, or they are beyond the
        length of text that is read."""
        tokenizer = self.processor.tokenizer
        marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

        def pieces(text: str) -> list[int]:
            return tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]

        found: list[str] = []
        for words in map(str.split, texts):
            read = bisect_right(
                range(1, len(words) + 1),
                tokenizer.model_max_length,
                key=lambda count: len(pieces(" ".join(words[:count]))),
            )
            beyond = set(words[read:]) - set(words[:read])
            unknown = {word for word in set(words) if set(pieces(word)) - marks == {tokenizer.unk_token_id}}
            found += [word for word in words if word in beyond | unknown]
        return list(dict.fromkeys(found))

    def audio(
        self, source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS, **options: Any
    ) -> list[Moment]:
        """Moments whose pictures fit the sound of a file, see [`VideoSearch.find`]."""
        return self.find(Query(audio=source), limits, **options)

    def video(
        self, source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS, **options: Any
    ) -> list[Moment]:
        """Moments that look like a file, see [`VideoSearch.find`]."""
        return self.find(Query(video=source), limits, **options)


def load_model(
    name: str | os.PathLike, device: str = "cpu", revision: str | None = None, trust_remote_code: bool = False
) -> tuple[VattForPreTraining, VattProcessor]:
    """A model in evaluation mode, and its processor.

    Args:
        name, revision: folder, or Hub id with commit, branch or tag.
        device: of the model.
        trust_remote_code: run code of towers that came with the model.

    Raises:
        FileNotFoundError: no such folder or name on the Hub.
        ValueError: no such device, or too little memory there; missing weights.
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
