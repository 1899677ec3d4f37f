# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder are left out of its index: those that fit patterns as in `.gitignore`, and those
that were forgotten by name."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .index import VattIndex


IGNORE_FILE = ".vattignore"  # in the folder of the videos
FORGOTTEN = "forgotten"  # note in the index: paths
_PARTS = re.compile(
    r"/\*\*+/|(?:^|(?<=/))\*\*+/|/\*\*+$|\*|\?|\[[!^]?+\]?+(?:\\.|[^\]\\])*\]|\\.|.", re.DOTALL
)
_SPECIAL = re.compile(r"(?=[*?\[\\])")
_BLANK_END = re.compile(r"(?<!\\)\s+$")


class Ignored:
    r"""Whether patterns leave a file or folder out; the last one that fits decides.

    A pattern without `/` fits a name at any depth, others fit paths from the root; one that ends with `/`
    fits folders alone; `*`, `?`, `[a-z]` stay within a name, `**` as a whole name does not; `!` takes back,
    and `\` makes the sign after it a plain one. How letters are composed (Unicode NFC or NFD) makes no
    difference.

    Args:
        patterns: one or more.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[tuple[bool, bool, re.Pattern[str]]] = []
        for line in patterns:
            pattern = _composed(_BLANK_END.sub("", line))
            leaves_out = not pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            folders_only = pattern.endswith("/")
            pattern = pattern.rstrip("/")
            if "[:" in pattern:
                raise ValueError(f"{line!r}: classes such as [[:alpha:]] are not known. Write the signs.")
            if pattern:
                begin = "" if "/" in pattern else "(?:.*/)?"
                # Plain text is compared first, as by git, so that what follows is a beginning.
                plain, *rest = _SPECIAL.split(pattern.lstrip("/"), maxsplit=1)
                text = begin + re.escape(plain) + "".join(map(_translated, _PARTS.findall("".join(rest))))
                self._rules.append((leaves_out, folders_only, _compiled(line, text)))

    def __call__(self, path: str, is_folder: bool = False) -> bool:
        """Whether a path is left out.

        Args:
            path: relative to the root, POSIX.
            is_folder: whether it is one; what lies in a folder that is left out is left out too.
        """
        parts = _composed(path).split("/")
        for depth in range(1, len(parts) + 1):
            if self._fits("/".join(parts[:depth]), is_folder or depth < len(parts)):
                return True
        return False

    def _fits(self, path: str, is_folder: bool) -> bool:
        result = False
        for leaves_out, folders_only, pattern in self._rules:
            if (is_folder or not folders_only) and pattern.fullmatch(path):
                result = leaves_out
        return result


def _compiled(line: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise ValueError(f"{line!r} must be a pattern as in .gitignore ({error}).") from None


def _translated(part: str) -> str:
    if part.endswith("**/"):
        return "/(?:.*/)?" if part.startswith("/") else "(?:.*/)?"
    if part.startswith("/**"):
        return "/.*"
    if part.startswith("[") and len(part) > 1:
        inside = part[1:-1]
        negated = inside[0] in "!^"
        signs = re.findall(r"\\?.", inside[negated:], re.DOTALL)
        chosen = "".join(sign if sign == "-" else re.escape(sign[-1]) for sign in signs)
        return f"(?!/)[{'^' * negated}{chosen}]"
    return {"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part[-1]))


def read_patterns(root: Path) -> list[str]:
    """Patterns of the `.vattignore` of a folder; blank lines and those that begin with `#` are none.

    Raises:
        ValueError: it is no text.
    """
    file = root / IGNORE_FILE
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: must be UTF-8 text ({error.reason}).") from None
    return [line for line in lines if line.strip() and not line.startswith("#")]


def forget_files(index: VattIndex, paths: Iterable[str]) -> int:
    """Remove files, or all in folders, and leave them out from now on. The caller holds [`writer_lock`].

    Args:
        index: of any folder.
        paths: as the index names them.

    Returns:
        number of files that were removed.

    Raises:
        ValueError: a path that the index does not hold; nothing is removed then.
    """
    places = {file["path"]: with_parents(file["path"]) for file in index.files()}
    known = {place for above in places.values() for place in above}
    chosen: set[str] = set()
    for path in paths:
        spelled = _as_spelled(path, known)
        if not spelled:
            raise ValueError(f"The index holds no {path!r}. Check the path, below the folder of the videos.")
        chosen |= spelled
    index.store.set_meta(FORGOTTEN, sorted({*(index.store.meta(FORGOTTEN) or []), *chosen}))
    return index.remove([path for path, above in places.items() if not chosen.isdisjoint(above)])


def remember_files(index: VattIndex, paths: Iterable[str]) -> None:
    """Take files in again that were left out by [`forget_files`], with the next update.

    Raises:
        ValueError: a path that was not forgotten.
    """
    forgotten = set(index.store.meta(FORGOTTEN) or [])
    chosen: set[str] = set()
    for path in paths:
        spelled = _as_spelled(path, forgotten)
        if not spelled:
            shown = ", ".join(map(repr, sorted(forgotten))) or "none"
            raise ValueError(f"{path!r} was not forgotten. Take one of {shown}.")
        chosen |= spelled
    index.store.set_meta(FORGOTTEN, sorted(forgotten - chosen))


def _as_spelled(path: str, known: set[str]) -> set[str]:
    """A path as one of those known is spelled, or as those are whose letters are composed otherwise."""
    path = str(PurePosixPath(path))
    return {path} & known or {other for other in known if _composed(other) == _composed(path)}


def _composed(text: str) -> str:
    """macOS takes letters and their accents apart in names (Unicode NFD), others do not (NFC)."""
    return unicodedata.normalize("NFC", text)


def with_parents(path: str) -> list[str]:
    """A path and the folders above it."""
    return [path, *map(str, PurePosixPath(path).parents)]
