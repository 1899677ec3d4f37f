# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Files, windows and vectors in one SQLite database, without models and media.

Every write is a transaction with a file and all its windows, so a file is complete or not there, also after a
kill. In WAL mode readers go on while another process writes. Numbers of windows are never used twice.
"""

import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..files import whole_file
from .errors import IndexDamaged, IndexMismatch


Space = Literal["va", "vt"]
SPACES: tuple[Space, Space] = ("va", "vt")
FORMAT = 1  # of the database; another one is refused
DATABASE = "index.sqlite"
DEFAULT_FOLDER = ".vatt-index"  # in the folder of the videos
EXPORTED = "vatt_index.json"  # names the files of an index that was saved for others

_TABLES = {
    "meta": "(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "files": "(id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, "
    "mtime_ns INTEGER NOT NULL, hash TEXT NOT NULL, duration REAL NOT NULL, error TEXT)",
    "windows": "(id INTEGER PRIMARY KEY AUTOINCREMENT, file INTEGER NOT NULL REFERENCES files(id) "
    "ON DELETE CASCADE, start REAL NOT NULL, end REAL NOT NULL)",
    # Separate from the windows, which are then read without 3 KB of vectors each.
    "va": "(id INTEGER PRIMARY KEY REFERENCES windows(id) ON DELETE CASCADE, vector BLOB NOT NULL)",
    "vt": "(id INTEGER PRIMARY KEY REFERENCES windows(id) ON DELETE CASCADE, vector BLOB NOT NULL)",
}
_INDEXES = {"windows_file": "windows(file)", "files_hash": "files(hash)"}
_PAGE_SIZE = 16_384  # fits 7 vectors of 512; a quarter of a page of 4096 would be empty
_NO_ROOM = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_WAIT = 60.0  # seconds for the transaction of another process to end


@dataclass(frozen=True)
class FileRecord:
    """A file of the index.

    Args:
        path: relative to the root of the index, POSIX.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds.
        hash: SHA-256 of the content.
        duration: seconds; 0 if not known.
        error: why it could not be read, or only in part.
    """

    path: str
    size: int
    mtime_ns: int
    hash: str
    duration: float
    error: str | None = None


# A file with starts, ends and vectors of its windows.
Entry = tuple[FileRecord, Sequence[float], Sequence[float], dict[Space, npt.NDArray[np.float32]]]
FILE_COLUMNS = ", ".join(field.name for field in fields(FileRecord))


def find_index(folder: str | os.PathLike) -> Path | None:
    """Folder of the index that lies in this one, or in the default folder of these videos."""
    folders = (Path(folder) / DEFAULT_FOLDER, Path(folder))
    return next((place for place in folders if (place / DATABASE).is_file()), None)


def index_folder(folder: str | os.PathLike) -> Path:
    """See [`find_index`]; raises `FileNotFoundError` if there is none."""
    found = find_index(folder)
    if found is None:
        raise FileNotFoundError(f"{folder}: no index here. Make one with `vatt index`.")
    return found


class _OfThread(threading.local):
    """Connection of a thread; if it takes the database as unchanging, its state at that time."""

    connection: sqlite3.Connection | None = None
    frozen: tuple[int, int, bool] | None = None


class Store:
    """The database of an index, found in its folder or from that of the videos.

    Raises:
        FileNotFoundError: no index there.
        IndexDamaged: no database of an index, or a damaged one.
        IndexMismatch: a format of another version of this package.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = index_folder(folder)
        self.file = self.folder / DATABASE
        self._log = self.folder / f"{DATABASE}-wal"
        self._local = _OfThread()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._opened = os.stat(self.file)
        try:
            with _explained(self.file):
                self._check_untouched()
                self._check()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: str | os.PathLike, settings: dict[str, Any]) -> "Store":
        """A new, empty database; FileExistsError if there is one."""
        folder = Path(folder)
        file = folder / DATABASE
        exists = FileExistsError(f"{folder}: there is an index already. Remove it, or choose another folder.")
        if file.exists():
            raise exists
        try:
            # Renamed when complete, so that no partial index stays.
            with whole_file(file, new=True) as partial, _explained(file):
                _make_tables(partial, {"format": FORMAT, "settings": settings, "generation": 0})
        except FileExistsError:
            raise exists from None
        return cls(folder)

    def _check_untouched(self) -> None:
        """Refuse what is not ours as it is: other connections change the file, or those beside it."""
        try:
            with closing(self._open("immutable=1")) as self._local.connection:
                self._check()
        except (sqlite3.DatabaseError, IndexDamaged) as error:
            # A writer may be moving pages from its log just now; connections that take part in locking wait.
            if _code(error.__cause__ or error) != sqlite3.SQLITE_CORRUPT or not self._log.exists():
                raise
        finally:
            self._local = _OfThread()

    def _check(self) -> None:
        names = {
            name: kind
            for kind, name in self.connection.execute("SELECT type, name FROM sqlite_master")
            if not name.startswith("sqlite_")
        }
        found = self.meta("format") if names.get("meta") == "table" else None
        if isinstance(found, int) and found != FORMAT:
            raise IndexMismatch(
                f"{self.folder}: the index has format {found}, this version of modeling_vatt writes "
                f"{FORMAT}. Remove it and index again, or install the version that made it."
            )
        # No triggers and views, which would run with our statements.
        expected = {**dict.fromkeys(_TABLES, "table"), **dict.fromkeys(_INDEXES, "index")}
        if names != expected or found != FORMAT:
            raise _damaged("not the database of an index", self.file)

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this thread.

        Raises:
            IndexDamaged: the database was removed or replaced: what is written would be lost with it.
        """
        try:
            same = os.path.samestat(os.stat(self.file), self._opened)
        except FileNotFoundError:
            same = False
        if not same:
            raise IndexDamaged(f"{self.file}: removed or replaced since it was opened. Start anew.")
        connection, frozen = self._local.connection, self._local.frozen
        if connection and frozen and not connection.in_transaction and frozen != self._state():
            with self._guard:  # somebody has written since
                self._connections.remove(connection)
            connection.close()
            connection = self._local.connection = None
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            with self._guard:
                self._connections.append(connection)
        return connection

    def _open(self, options: str) -> sqlite3.Connection:
        address = f"{self.file.resolve().as_uri()}?{options}"
        shared: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
        connection = sqlite3.connect(address, uri=True, timeout=_WAIT, **shared)
        connection.execute("PRAGMA trusted_schema=OFF")
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = self._connect_to_write() if os.access(self.folder, os.W_OK) else None
        connection = connection or self._connect_to_read()
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _connect_to_write(self) -> sqlite3.Connection | None:
        """Connection for writing; None if the disk is too full for its files, so that reading still works."""
        connection = self._open("mode=rw")
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if _code(error) not in _NO_ROOM:
                raise
            return None

    def _connect_to_read(self) -> sqlite3.Connection:
        """Read-only connection; another user may still write."""
        self._local.frozen = None
        connection = self._open("mode=ro")
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError:  # its other files are missing and cannot be made
            connection.close()
        if self._log.exists() and self._log.stat().st_size > 0:
            raise PermissionError(
                f"{self._log}: holds changes that cannot be read without writing here. Let the owner of the "
                "index run `vatt info` on it, or copy the folder."
            )
        self._local.frozen = self._state()
        return self._open("immutable=1")  # nobody writes at present

    def _state(self) -> tuple[int, int, bool]:
        """What changes when others write."""
        found = os.stat(self.file)
        return found.st_size, found.st_mtime_ns, self._log.exists()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
            self._local = _OfThread()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the database for several statements."""
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; waits for those of other processes."""
        connection = self.connection
        with _explained(self.file):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                number = self.generation() + 1
                connection.execute("UPDATE meta SET value = ? WHERE key = 'generation'", (str(number),))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise

    def meta(self, key: str) -> Any:
        """A value of the table `meta`, None if it is missing."""
        row = next(self.select("SELECT value FROM meta WHERE key = ?", (key,)), None)
        try:
            return None if row is None else json.loads(row[0])
        except (TypeError, ValueError) as error:
            raise _damaged(f"`{key}` is no JSON", self.file) from error

    def generation(self) -> int:
        """Grows with every write."""
        number = self.meta("generation")
        if not isinstance(number, int):
            raise _damaged("`generation` must be a number", self.file)
        return number

    def set_meta(self, key: str, value: Any) -> None:
        """Write a value of the table `meta`."""
        with self.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def select(self, statement: str, arguments: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a statement with `%s` for arguments; IndexDamaged for a damaged database."""
        with _explained(self.file):
            yield from self.connection.execute(statement.replace("%s", "?"), arguments)

    # --- files ---

    def files(self) -> list[tuple[FileRecord, int]]:
        """All files with the numbers of their windows, by path."""
        rows = self.select(
            f"SELECT {FILE_COLUMNS}, count(windows.id) FROM files "
            "LEFT JOIN windows ON windows.file = files.id GROUP BY files.id ORDER BY path"
        )
        found = [(FileRecord(*row[:-1]), row[-1]) for row in rows]
        if not all(_makes_sense(file) for file, _ in found):
            raise _damaged("files whose properties make no sense", self.file)
        return found

    def put(self, entries: Iterable[Entry]) -> None:
        """Add files with their windows, replacing those of the same paths."""
        with self.writing() as connection:
            for file, starts, ends, vectors in entries:
                connection.execute("DELETE FROM files WHERE path = ?", (file.path,))
                number = self._insert_file(connection, file)
                first = self._next_window(connection)
                connection.executemany(
                    "INSERT INTO windows VALUES (?, ?, ?, ?)",
                    (
                        (first + i, number, float(start), float(end))
                        for i, (start, end) in enumerate(zip(starts, ends, strict=True))
                    ),
                )
                for space in SPACES:
                    rows = np.ascontiguousarray(vectors[space], dtype="<f4")
                    connection.executemany(
                        f"INSERT INTO {space} VALUES (?, ?)",
                        ((first + i, row.tobytes()) for i, row in enumerate(rows)),
                    )

    @staticmethod
    def _insert_file(connection: sqlite3.Connection, file: FileRecord) -> int:
        cursor = connection.execute(
            f"INSERT INTO files ({FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", astuple(file)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    @staticmethod
    def _next_window(connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'windows'").fetchone()
        return 1 if row is None else row[0] + 1

    def copy(self, source: str, file: FileRecord) -> None:
        """Add a file with the content of another one, replacing the one of the same path."""
        with self.writing() as connection:
            joined = "files LEFT JOIN windows ON file = files.id"
            find = f"SELECT files.id, min(windows.id) FROM {joined} WHERE path = ?"
            old, first = connection.execute(find, (source,)).fetchone()
            connection.execute("DELETE FROM files WHERE path = ?", (file.path,))
            number, shift = self._insert_file(connection, file), self._next_window(connection) - (first or 0)
            of_old = "FROM windows WHERE file = ?"
            columns = "id + ?, ?, start, end"
            connection.execute(f"INSERT INTO windows SELECT {columns} {of_old}", (shift, number, old))
            for space in SPACES:
                vectors = f"SELECT id + ?, vector FROM {space} WHERE id IN (SELECT id {of_old})"
                connection.execute(f"INSERT INTO {space} {vectors}", (shift, old))

    def update(self, source: str, file: FileRecord) -> None:
        """Give a file another path, in place of the one there, size or time; its windows stay."""
        with self.writing() as connection:
            connection.execute("DELETE FROM files WHERE path = ? AND path != ?", (file.path, source))
            connection.execute(
                f"UPDATE files SET ({FILE_COLUMNS}) = (?, ?, ?, ?, ?, ?) WHERE path = ?",
                (*astuple(file), source),
            )

    def remove(self, paths: Iterable[str]) -> int:
        """Remove files with their windows; returns how many there were."""
        with self.writing() as connection:
            return sum(
                connection.execute("DELETE FROM files WHERE path = ?", (path,)).rowcount for path in paths
            )

    # --- windows ---

    def window_ids(
        self, folders: Sequence[str] | None = None, after: int = 0, path: str | None = None
    ) -> npt.NDArray[np.int64]:
        """Numbers of windows above `after`, ascending; only of the files in `folders`, or of this `path`."""
        joined = "SELECT windows.id FROM windows JOIN files ON files.id = file WHERE windows.id > ?"
        if path is not None:
            rows = self.select(f"{joined} AND path = ? ORDER BY windows.id", (after, path))
        elif folders is not None:
            where, bounds = inside(folders)
            rows = self.select(f"{joined} AND ({where}) ORDER BY windows.id", (after, *bounds))
        else:
            rows = self.select("SELECT id FROM windows WHERE id > ? ORDER BY id", (after,))
        return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def describe(self, ids: npt.NDArray[np.int64]) -> dict[int, tuple[str, float, float, float]]:
        """(path, start, end, duration of the file) of windows, as far as they exist."""
        rows = self.select(
            "SELECT windows.id, path, start, end, duration FROM windows JOIN files ON files.id = file "
            "WHERE windows.id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids.tolist()),),
        )
        found = {row[0]: row[1:] for row in rows}
        if not all(_are_seconds(times) for _, *times in found.values()):
            raise _damaged("windows whose times make no sense", self.file)
        return found

    def vectors(
        self,
        space: Space,
        dim: int,
        after: int = 0,
        ids: npt.NDArray[np.int64] | None = None,
        size: int = 16_384,
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """(numbers, vectors) in blocks of `size` windows, ascending: of those above `after`, or of `ids`."""
        if ids is None:
            rows = self.select(f"SELECT id, vector FROM {space} WHERE id > ? ORDER BY id", (after,))
        else:
            rows = self.select(
                f"SELECT id, vector FROM {space} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(ids.tolist()),),
            )
        while block := list(islice(rows, size)):
            if any(not isinstance(row[1], bytes) or len(row[1]) != 4 * dim for row in block):
                raise _damaged(f"vectors of `{space}` that do not have {dim} values", self.file)
            found = np.frombuffer(b"".join([row[1] for row in block]), dtype="<f4").reshape(len(block), dim)
            if not np.isfinite(found).all():
                raise _damaged(f"vectors of `{space}` that are not finite", self.file)
            yield np.array([row[0] for row in block], dtype=np.int64), found


INSIDE = "(path >= %s AND path < %s)"


def folder_bounds(folder: str) -> tuple[str, str]:
    """Values of [`INSIDE`], around the paths that begin with "folder/" ("0" comes after "/")."""
    return f"{folder}/", f"{folder}0"


def inside(folders: Sequence[str]) -> tuple[str, list[str]]:
    """Condition of SQL for files in some folders, and its values."""
    condition = " OR ".join([INSIDE] * len(folders)) or "FALSE"
    return condition, [bound for folder in folders for bound in folder_bounds(folder)]


def _make_tables(file: Path, meta: dict[str, Any]) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_SIZE}")
        connection.execute("BEGIN")
        for name, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE {name} {columns}")
        for name, columns in _INDEXES.items():
            connection.execute(f"CREATE INDEX {name} ON {columns}")
        rows = [(key, json.dumps(value)) for key, value in meta.items()]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _damaged(reason: str, file: Path) -> IndexDamaged:
    return IndexDamaged(f"{file}: {reason}. Remove the folder and index again.")


def _code(error: BaseException) -> int:
    """Primary error code of SQLite, 0 for other errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turns errors of SQLite into those of the machine or the database."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # its messages quote what is damaged
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            raise OSError(
                f"{file}: the disk is full. Free some space; what was written before is kept."
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise PermissionError(
                f"{file}: cannot be opened to write ({error}). Let its owner do it, or copy the folder."
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TimeoutError(
                f"{file}: another process has been writing for {_WAIT:g} s. Wait until it has ended."
            ) from error
        if code == sqlite3.SQLITE_IOERR:
            raise OSError(f"{file}: cannot be read or written ({error}). Check the disk.") from error
        raise _damaged(str(error), file) from error


def _are_seconds(values: Iterable[Any]) -> bool:
    """Whether values are seconds, as SQLite's columns hold any type."""
    return all(isinstance(value, int | float) and 0 <= value < math.inf for value in values)


def _makes_sense(file: FileRecord) -> bool:
    texts = (file.path, file.hash, "" if file.error is None else file.error)
    numbers = (file.size, file.mtime_ns)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) for number in numbers)
        and _are_seconds([file.duration])
    )


def check_path(path: str, index: str | os.PathLike = "The index") -> str:
    """The path; IndexDamaged, which names `index`, if it leaves the folder it is relative to."""
    good = isinstance(path, str) and path and not path.startswith("/") and "\0" not in path
    if not good or ".." in PurePosixPath(path).parts or (os.name == "nt" and ("\\" in path or ":" in path)):
        raise IndexDamaged(f"{index} names {path!r}, which is not a path inside its folder. Do not use it.")
    return path
