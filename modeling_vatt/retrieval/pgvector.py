# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The same search on a PostgreSQL server with pgvector, for galleries of many machines and users.

Needs `pip install 'modeling_vatt[postgres]'` and a server that has the extension `vector` (0.8 or newer).
"""

import re
from collections.abc import Iterable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from ..embedding.embedding import unit
from ..embedding.identity import ModelIdentity
from .errors import IndexMismatch
from .index import EXACT_LIMIT, VattIndex, folder_prefix, unit_query
from .moments import MARGIN, Moment, find_moments
from .store import SPACES, FileRecord, Space, check_path


__all__ = ["PgVectorIndex"]

_FORMAT = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_FILE_COLUMNS = "path, size, mtime_ns, hash, duration, error"
_MAX_WIDTH = 1000  # of the search in a graph, as far as pgvector goes
_MAX_SCAN = 100_000  # windows a graph is searched for; reading all is quicker then


class PgVectorIndex:
    """Windows of videos in PostgreSQL, searched as a [`VattIndex`] is.

    Any number of processes may search and write; each file is one transaction. Embed with a [`VattIndex`] and
    [`PgVectorIndex.copy_from`] it, or add files yourself. [`VideoSearch`] takes this index as well.

    Args:
        address: connection string of psycopg, such as `postgresql://user@host/database`.
        name: of the index, first part of the names of its tables: lower-case letters, digits and `_`.

    Raises:
        FileNotFoundError: no index of this name.
        IndexMismatch: another format.
        ValueError: a name that is none.
    """

    def __init__(self, address: str, name: str = "vatt") -> None:
        self._connect(address, name)
        try:
            row = self._one("SELECT value FROM {meta} WHERE key = 'settings'")
        except psycopg.errors.UndefinedTable as error:
            self.close()
            raise FileNotFoundError(
                f"The database holds no index {name!r}. Make one with `PgVectorIndex.create`."
            ) from error
        settings = None if row is None else row[0]
        if settings is None or settings["format"] != _FORMAT:
            self.close()
            raise IndexMismatch(
                f"The index {name!r} has another format. Remove its tables and make it again."
            )
        self._settings = settings
        self.identity = ModelIdentity(**settings["model"])
        self.window, self.stride = float(settings["window"]), float(settings["stride"])
        self.dims: dict[Space, int] = {space: self.identity.dims[space] for space in SPACES}

    def _connect(self, address: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"`name` must be lower-case letters, digits and _, got {name!r}.")
        self.name = name
        self._tables = {part: sql.Identifier(f"{name}_{part}") for part in ("meta", "files", "windows")}
        self.connection = psycopg.connect(address, autocommit=True)
        if self.connection.execute("SELECT 1 FROM pg_type WHERE typname = 'vector'").fetchone():
            register_vector(self.connection)

    @classmethod
    def create(
        cls,
        address: str,
        identity: ModelIdentity,
        window: float,
        stride: float | None = None,
        name: str = "vatt",
    ) -> "PgVectorIndex":
        """A new, empty index.

        Args:
            address, name: see the class.
            identity: of the model whose embeddings will be added.
            window, stride: see [`VattIndex.create`].

        Raises:
            FileExistsError: there is one already.
        """
        new = cls.__new__(cls)
        new._connect(address, name)
        settings = {
            "format": _FORMAT,
            "model": identity.to_dict(),
            "window": window,
            "stride": window if stride is None else stride,
        }
        va, vt = (sql.Literal(identity.dims[space]) for space in SPACES)
        try:
            with new.connection.transaction():
                new.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                new._run("CREATE TABLE {meta} (key text PRIMARY KEY, value jsonb NOT NULL)")
                new._run(
                    "CREATE TABLE {files} (id bigserial PRIMARY KEY, "
                    # In the order of bytes, so that a folder is a range of paths.
                    'path text COLLATE "C" NOT NULL UNIQUE, size bigint NOT NULL, mtime_ns bigint NOT NULL, '
                    "hash text NOT NULL, duration float8 NOT NULL, error text)"
                )
                new._run(
                    "CREATE TABLE {windows} (id bigserial PRIMARY KEY, "
                    "file bigint NOT NULL REFERENCES {files}(id) ON DELETE CASCADE, "
                    "first float8 NOT NULL, last float8 NOT NULL, "
                    "va vector({va}) NOT NULL, vt vector({vt}) NOT NULL)",
                    va=va,
                    vt=vt,
                )
                new._run("CREATE INDEX ON {windows}(file)")
                new._run("INSERT INTO {meta} VALUES ('settings', %s)", (Jsonb(settings),))
        except psycopg.errors.DuplicateTable as error:
            raise FileExistsError(
                f"The database holds an index {name!r} already. Remove it or choose another name."
            ) from error
        finally:
            new.close()
        return cls(address, name)

    def _run(self, statement: str, values: tuple[Any, ...] = (), **parts: sql.Composable) -> psycopg.Cursor:
        composed = sql.SQL(statement).format(**self._tables, **parts)
        return self.connection.execute(composed, values or None)

    def _one(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        return self._run(statement, values).fetchone()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> "PgVectorIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._one("SELECT count(*) FROM {windows}")[0]

    def info(self) -> dict[str, Any]:
        """What the index holds and what it was made with."""
        files, seconds, errors = self._one(
            "SELECT count(*), coalesce(sum(duration), 0), count(error) FROM {files}"
        )
        return {
            "index": self.name,
            "model": self.identity.name,
            "weights": self.identity.weights,
            "window": self.window,
            "stride": self.stride,
            "dims": dict(self.dims),
            "files": files,
            "windows": len(self),
            "seconds": round(seconds, 3),
            "errors": errors,
            "approximate": sorted(self._graphs().values()),
        }

    def files(self) -> list[dict[str, Any]]:
        """See [`VattIndex.files`]."""
        rows = self._run(
            "SELECT path, duration, count(w.id), error FROM {files} f LEFT JOIN {windows} w ON w.file = f.id "
            "GROUP BY f.id ORDER BY path"
        )
        return [dict(zip(("path", "duration", "windows", "error"), row, strict=True)) for row in rows]

    def add(
        self,
        file: FileRecord,
        starts: Iterable[float],
        ends: Iterable[float],
        va: npt.NDArray,
        vt: npt.NDArray,
    ) -> None:
        """See [`VattIndex.add`]."""
        spans = list(zip(starts, ends, strict=True))
        vectors = [unit(np.asarray(rows)) for rows in (va, vt)]
        for space, rows in zip(SPACES, vectors, strict=True):
            if rows.shape != (len(spans), self.dims[space]) or not np.isfinite(rows).all():
                raise ValueError(
                    f"`{space}` must be ({len(spans)}, {self.dims[space]}) finite values, got {rows.shape}."
                )
        check_path(file.path)
        with self.connection.transaction():
            self._run("DELETE FROM {files} WHERE path = %s", (file.path,))
            number = self._one(
                f"INSERT INTO {{files}} ({_FILE_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                astuple(file),
            )[0]
            statement = "COPY {windows} (file, first, last, va, vt) FROM STDIN WITH (FORMAT BINARY)"
            composed = sql.SQL(statement).format(**self._tables)
            with self.connection.cursor().copy(composed) as copy:
                copy.set_types(["int8", "float8", "float8", "vector", "vector"])
                for (start, end), *row in zip(spans, *vectors, strict=True):
                    copy.write_row((number, float(start), float(end), *row))

    def remove(self, paths: Iterable[str]) -> int:
        """See [`VattIndex.remove`]."""
        return self._run("DELETE FROM {files} WHERE path = ANY(%s)", (list(paths),)).rowcount

    def copy_from(self, index: VattIndex, folder: str | None = None) -> dict[str, int]:
        """Take over the files of an index on disk: new and changed ones are copied, those that are gone are
        removed.

        Args:
            index: of the same model and windows.
            folder: put before the paths, for several indexes on one server; nothing outside it is touched.

        Returns:
            numbers of files `copied` and `removed`.

        Raises:
            IndexMismatch: an index of another model or other windows.
        """
        differences = self.identity.differences(index.identity)
        if differences or (self.window, self.stride) != (index.window, index.stride):
            reason = "; ".join(differences[:3]) or "the windows"
            raise IndexMismatch(f"The indexes differ in {reason}. Copy to an index of another name.")
        prefix = "" if folder_prefix(folder) is None else f"{folder_prefix(folder)}/"
        rows = self._run(f"SELECT {_FILE_COLUMNS} FROM {{files}} WHERE starts_with(path, %s)", (prefix,))
        known = {row[0]: FileRecord(*row) for row in rows}
        done = {"copied": 0, "removed": 0}
        with index.store.reading():
            local = {f"{prefix}{file.path}": file for file, _ in index.store.files()}
            for path, file in local.items():
                record = replace(file, path=path)
                if known.get(path) == record:
                    continue
                ids = index.store.window_ids(path=file.path)
                spans = index.store.describe(ids)
                vectors = []
                for space in SPACES:
                    empty = np.zeros((0, self.dims[space]), np.float32)
                    blocks = index.store.vectors(space, self.dims[space], ids=ids)
                    vectors.append(np.concatenate([empty, *(block for _, block in blocks)]))
                chosen = [spans[number] for number in ids.tolist()]
                starts, ends = [span[1] for span in chosen], [span[2] for span in chosen]
                self.add(record, starts, ends, *vectors)
                done["copied"] += 1
        done["removed"] = self.remove(known.keys() - local.keys())
        self.build()
        return done

    def _graphs(self) -> dict[Space, str]:
        """Names of the graphs, by space."""
        rows = self.connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (f"{self.name}_windows",)
        ).fetchall()
        return {space: name for space in SPACES for name, made in rows if f" USING hnsw ({space} " in made}

    def build(self, force: bool = False) -> bool:
        """Make the graphs (HNSW) for approximate search, if the index is large and has none; the server keeps
        them up to date afterwards.

        Args:
            force: make them in any case.

        Returns:
            whether there are graphs now.
        """
        missing = set(SPACES) - self._graphs().keys()
        if len(missing) == len(SPACES) and not force and len(self) <= EXACT_LIMIT:
            return False
        for space in sorted(missing):
            self._run(
                "CREATE INDEX {graph} ON {windows} USING hnsw ({space} vector_ip_ops)",
                graph=sql.Identifier(f"{self.name}_{space}_hnsw"),
                space=sql.Identifier(space),
            )
        return True

    def search(
        self,
        vector: npt.NDArray,
        space: Space,
        top_k: int = 10,
        folder: str | None = None,
        min_score: float | None = None,
        merge: bool = True,
        exact: bool | None = None,
        margin: float = MARGIN,
    ) -> list[Moment]:
        """See [`VattIndex.search`]; exact by default as long as there are no graphs."""
        query = unit_query(vector, space, self.dims[space])
        prefix = folder_prefix(folder)
        where = "TRUE" if prefix is None else "path >= %s AND path < %s"
        bounds = () if prefix is None else (f"{prefix}/", f"{prefix}0")
        statement = (
            "SELECT path, first, last, -({space} <#> %s), duration FROM {windows} w JOIN {files} f "
            f"ON f.id = w.file WHERE {where} ORDER BY "
        )

        everything = bool(exact)

        def rows(order: str, count: int) -> list[Any]:
            values = (query, *bounds, query, count)
            return self._run(f"{statement}{order} LIMIT %s", values, space=sql.Identifier(space)).fetchall()

        def nearest(count: int) -> list[Moment]:
            nonlocal everything
            found: list[Any] = []
            if not everything:
                settings = {
                    "hnsw.iterative_scan": "strict_order",
                    "hnsw.ef_search": min(_MAX_WIDTH, 2 * count + 40),
                    "hnsw.max_scan_tuples": _MAX_SCAN,
                }
                for key, value in settings.items():
                    self.connection.execute("SELECT set_config(%s, %s, true)", (key, str(value)))
                found = rows("{space} <#> %s", count)
                # A graph gives up after some windows; a folder's may all lie behind them.
                everything = len(found) < count
            if everything:
                found = rows("({space} <#> %s) + 0", count)  # graphs do not know how to order by a sum
            return [Moment(check_path(path), *row) for path, *row in found]

        with self.connection.transaction():  # one state of the database, and the settings for it alone
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return find_moments(nearest, top_k, min_score, merge, margin)
