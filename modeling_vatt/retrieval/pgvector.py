# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The same search on a PostgreSQL server with pgvector, for many machines and users. Needs `pip install
'modeling_vatt[postgres]'` and a server with the extension `vector` (0.8 or newer)."""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from dataclasses import replace as replaced
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from ..embedding.identity import ModelIdentity
from .errors import IndexMismatch
from .index import EXACT_LIMIT, VattIndex
from .moments import Moment
from .searchable import MEETING, IndexedMoment, Result, SearchableIndex, Vectors, folder_prefix
from .store import FILE_COLUMNS, SPACES, FileRecord, Space, check_path, inside


__all__ = ["PgVectorIndex"]

_FORMAT = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_MAX_WIDTH = 1000  # of the search in a graph, pgvector's limit
_MAX_SCAN = 100_000  # windows searched in a graph; for more, reading all is faster


class PgVectorIndex(SearchableIndex):
    """Windows of videos in PostgreSQL, searched as a [`VattIndex`] is.

    Processes may search and write at the same time, the same files too: each file is one transaction, and the
    last one wins. Threads may share this object. A connection that the server has closed is opened again,
    once for each transaction. Embed with a [`VattIndex`] and [`PgVectorIndex.copy_from`] it, or add files
    yourself. [`VideoSearch`] takes this index as well.

    Args:
        address: connection string of psycopg, such as `postgresql://user@host/database`.
        name: of the index and prefix of its tables: lower-case letters, digits and `_`.

    Raises:
        FileNotFoundError: no index of this name.
        IndexMismatch: another format.
        ValueError: an invalid name.
    """

    def __init__(self, address: str, name: str = "vatt") -> None:
        self._connect(address, name)
        try:
            rows = self._select("SELECT value FROM {meta} WHERE key = 'settings'")
        except psycopg.errors.UndefinedTable as error:
            self.close()
            raise FileNotFoundError(
                f"The database holds no index {name!r}. Make one with `PgVectorIndex.create`."
            ) from error
        settings = rows[0][0] if rows else {}
        if settings.get("format") != _FORMAT:
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
        self._address = address
        self._guard, self._inside, self._closed = threading.RLock(), False, False
        self.connection = self._open()

    def _open(self) -> psycopg.Connection:
        connection = psycopg.connect(self._address, autocommit=True)
        if connection.execute("SELECT 1 FROM pg_type WHERE typname = 'vector'").fetchone():
            register_vector(connection)
        return connection

    def _transaction(self, work: Callable[[], Result]) -> Result:
        """Result of `work` in a transaction, or in the surrounding one; done once more if the connection was
        closed."""
        with self._guard:
            if self._inside:
                return work()
            self._inside = True
            try:
                return self._attempt(work)
            except psycopg.OperationalError:
                if self._closed or not self.connection.closed:
                    raise
                self.connection = self._open()
                return self._attempt(work)
            finally:
                self._inside = False

    def _attempt(self, work: Callable[[], Result]) -> Result:
        with self.connection.transaction():
            return work()

    def _wait_for_others(self) -> None:
        """Lock against others that make tables or graphs of this index, until the end of the transaction."""
        self.connection.execute("SELECT pg_advisory_xact_lock(hashtext('vatt'), hashtext(%s))", (self.name,))

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
        try:
            new._transaction(lambda: new._make_tables(identity, settings))
        except psycopg.errors.DuplicateTable as error:
            raise FileExistsError(
                f"The database holds an index {name!r} already. Remove it or choose another name."
            ) from error
        finally:
            new.close()
        return cls(address, name)

    def _make_tables(self, identity: ModelIdentity, settings: dict[str, Any]) -> None:
        va, vt = (sql.Literal(identity.dims[space]) for space in SPACES)
        self._wait_for_others()
        self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        self._run("CREATE TABLE {meta} (key text PRIMARY KEY, value jsonb NOT NULL)")
        self._run(
            "CREATE TABLE {files} (id bigserial PRIMARY KEY, "
            # In the order of bytes, so that a folder is a range of paths.
            'path text COLLATE "C" NOT NULL UNIQUE, size bigint NOT NULL, mtime_ns bigint NOT NULL, '
            "hash text NOT NULL, duration float8 NOT NULL, error text)"
        )
        self._run(
            "CREATE TABLE {windows} (id bigserial PRIMARY KEY, "
            "file bigint NOT NULL REFERENCES {files}(id) ON DELETE CASCADE, "
            "first float8 NOT NULL, last float8 NOT NULL, "
            "va vector({va}) NOT NULL, vt vector({vt}) NOT NULL)",
            va=va,
            vt=vt,
        )
        self._run("CREATE INDEX ON {windows}(file)")
        self._run("CREATE INDEX ON {files}(hash)")
        self._run("INSERT INTO {meta} VALUES ('settings', %s)", (Jsonb(settings),))

    def _run(self, statement: str, values: tuple[Any, ...] = (), **parts: sql.Composable) -> psycopg.Cursor:
        composed = sql.SQL(statement).format(**self._tables, **parts)
        return self._transaction(lambda: self.connection.execute(composed, values or None))

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self.connection.close()

    def info(self) -> dict[str, Any]:
        """What the index holds and what it was made with."""
        return self._read(
            lambda: {"index": self.name, **self._facts(), "approximate": sorted(self._graphs().values())}
        )

    def files(self) -> list[dict[str, Any]]:
        """See [`VattIndex.files`]."""
        rows = self._select(
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
        spans = list(starts), list(ends)
        rows = self._rows(file.path, *spans, va=va, vt=vt)
        self._transaction(lambda: self._put(file, *spans, rows))

    def _put(self, file: FileRecord, starts: Sequence[float], ends: Sequence[float], rows: Vectors) -> None:
        changed = ", ".join(f"{column} = EXCLUDED.{column}" for column in FILE_COLUMNS.split(", "))
        # The row of the path is locked until the end, so another writer of it waits.
        ((number,),) = self._select(
            f"INSERT INTO {{files}} ({FILE_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s) "
            f"ON CONFLICT (path) DO UPDATE SET {changed} RETURNING id",
            *astuple(file),
        )
        self._run("DELETE FROM {windows} WHERE file = %s", (number,))
        statement = "COPY {windows} (file, first, last, va, vt) FROM STDIN WITH (FORMAT BINARY)"
        composed = sql.SQL(statement).format(**self._tables)
        with self.connection.cursor().copy(composed) as copy:
            copy.set_types(["int8", "float8", "float8", "vector", "vector"])
            for start, end, *row in zip(starts, ends, *rows.values(), strict=True):
                copy.write_row((number, float(start), float(end), *row))

    def remove(self, paths: Iterable[str]) -> int:
        """See [`VattIndex.remove`]."""
        # In one order, against deadlocks.
        chosen = "SELECT id FROM {files} WHERE path = ANY(%s) ORDER BY path FOR UPDATE"
        return self._run(f"DELETE FROM {{files}} WHERE id IN ({chosen})", (list(paths),)).rowcount

    def copy_from(self, index: VattIndex, folder: str | None = None, replace: bool = False) -> dict[str, int]:
        """Copy new and changed files of an index on disk, and remove missing ones.

        Args:
            index: of the same model and windows.
            folder: prefix of the paths, for several indexes on one server; nothing outside it is touched.
            replace: without `folder`, allow removing files, which others may have copied.

        Returns:
            Numbers of files `copied` and `removed`.

        Raises:
            IndexMismatch: an index of another model or other windows.
            ValueError: files would be removed without `folder` or `replace`; nothing is changed then.
        """
        differences = self.identity.differences(index.identity)
        if differences or (self.window, self.stride) != (index.window, index.stride):
            reason = "; ".join(differences[:3]) or "the windows"
            raise IndexMismatch(f"The indexes differ in {reason}. Copy to an index of another name.")
        prefix = "" if folder_prefix(folder) is None else f"{folder_prefix(folder)}/"
        rows = self._run(f"SELECT {FILE_COLUMNS} FROM {{files}} WHERE starts_with(path, %s)", (prefix,))
        known = {row[0]: FileRecord(*row) for row in rows}
        with index.store.reading():
            local = {f"{prefix}{file.path}": file for file, _ in index.store.files()}
            gone = sorted(known.keys() - local.keys())
            if gone and not prefix and not replace:
                raise ValueError(
                    f"{self.name} holds {len(gone)} files that {index.store.folder} does not, such as "
                    f"{gone[0]!r}, perhaps of another machine. Pass `folder` to copy beside them, or "
                    "`replace=True` to remove them."
                )
            changed = {
                path: file for path, file in local.items() if known.get(path) != replaced(file, path=path)
            }
            order = [path for (path,) in index.store.select("SELECT path FROM files ORDER BY id")]
            for path in filter(changed.__contains__, (f"{prefix}{path}" for path in order)):
                self._copy(index, changed[path], path)
        removed = self.remove(gone)
        self.build()
        return {"copied": len(changed), "removed": removed}

    def _copy(self, index: VattIndex, file: FileRecord, path: str) -> None:
        ids = index.store.window_ids(path=file.path)
        spans = index.store.describe(ids)
        vectors = []
        for space in SPACES:
            empty = np.zeros((0, self.dims[space]), np.float32)
            blocks = index.store.vectors(space, self.dims[space], ids=ids)
            vectors.append(np.concatenate([empty, *(block for _, block in blocks)]))
        chosen = [spans[number] for number in ids.tolist()]
        starts, ends = [span[1] for span in chosen], [span[2] for span in chosen]
        self.add(replaced(file, path=path), starts, ends, *vectors)

    def _graphs(self) -> dict[Space, str]:
        """Names of the graphs, by space."""
        rows = self._run(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", (f"{self.name}_windows",)
        ).fetchall()
        return {space: name for space in SPACES for name, made in rows if f" USING hnsw ({space} " in made}

    def build(self, force: bool = False) -> bool:
        """Make the graphs (HNSW) for approximate search if the index is large, or with `force`; the server
        then keeps them up to date. Returns whether there are graphs now."""
        if not self._graphs() and not force and len(self) <= EXACT_LIMIT:
            return False
        self._transaction(self._make_graphs)
        return True

    def _make_graphs(self) -> None:
        self._wait_for_others()
        for space in sorted(set(SPACES) - self._graphs().keys()):
            self._run(
                "CREATE INDEX {graph} ON {windows} USING hnsw ({space} vector_ip_ops)",
                graph=sql.Identifier(f"{self.name}_{space}_hnsw"),
                space=sql.Identifier(space),
            )

    def _select(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._run(statement, values).fetchall()

    def _read(self, work: Callable[[], Result]) -> Result:
        def see_one_state() -> Result:
            # Settings for this transaction only.
            self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return work()

        return self._transaction(see_one_state)

    def window_at(self, path: str, seconds: float | None = None) -> IndexedMoment | None:
        """See [`VattIndex.window_at`]."""
        rows = self._select(
            "SELECT path, first, last, 1.0, duration, va::real[], vt::real[] "
            "FROM {windows} w JOIN {files} f ON f.id = w.file WHERE path = %s "
            "ORDER BY abs((first + last) / 2 - coalesce(%s, duration / 2)), w.id LIMIT 1",
            path,
            None if seconds is None else seconds + MEETING,
        )
        if not rows:
            return None
        *moment, va, vt = rows[0]
        return Moment(*moment), {"va": np.asarray(va, np.float32), "vt": np.asarray(vt, np.float32)}

    def vectors(self, space: Space, limit: int | None = None) -> tuple[list[Moment], npt.NDArray[np.float32]]:
        """See [`VattIndex.vectors`]."""
        ids = [row[0] for row in self._run("SELECT id FROM {windows} ORDER BY id")]
        if limit is not None and len(ids) > limit:
            ids = [ids[place] for place in np.linspace(0, len(ids) - 1, limit).round().astype(int)]
        rows = self._run(
            "SELECT path, first, last, 1.0, duration, {space}::real[] "
            "FROM {windows} w JOIN {files} f ON f.id = w.file WHERE w.id = ANY(%s) ORDER BY w.id",
            (ids,),
            space=sql.Identifier(space),
        ).fetchall()
        return [Moment(*row[:5]) for row in rows], np.array([row[5] for row in rows], np.float32).reshape(
            -1, self.dims[space]
        )

    def _nearest(
        self, queries: Vectors, folders: Sequence[str] | None, exact: bool | None
    ) -> Callable[[int], list[Moment]]:
        where, bounds = ("TRUE", []) if folders is None else inside(folders)
        # The operator gives negative products.
        distance = " + ".join(f"({space} <#> %s)" for space in queries)
        statement = (
            f"SELECT path, first, last, -({distance}) AS score, duration, w.id FROM {{windows}} w "
            f"JOIN {{files}} f ON f.id = w.file WHERE ({where}) ORDER BY {distance}"
        )

        def rows(end: str, looked_at: int, count: int) -> list[Any]:
            values = (*queries.values(), *bounds, *queries.values(), looked_at, count)
            best = f"SELECT * FROM ({statement}{end} LIMIT %s) AS best ORDER BY score DESC, id LIMIT %s"
            return self._run(best, values).fetchall()

        everything = bool(exact) or len(queries) > 1 or not self._graphs()

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
                # More, as of equal windows the earliest are wanted, which a graph finds in any order.
                found = rows("", 2 * count + 32, count)
                # A graph stops after some windows; those of a folder may all come later.
                everything = len(found) < count
            if everything:
                found = rows(" + 0, w.id", count, count)  # ordering by a sum uses no graph
            return [Moment(check_path(path), *row) for path, *row, _ in found]

        return nearest
