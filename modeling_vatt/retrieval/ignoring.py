# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Files of a folder that are left out of its index: by patterns as in `.gitignore`, or forgotten by name."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..files import composed
from .index import VattIndex


IGNORE_FILE = ".vattignore"  # in the folder of the videos
FORGOTTEN = "forgotten"  # note in the index: paths
_PARTS = re.compile(
    r"/\*\*+/|(?:^|(?<=/))\*\*+/|/\*\*+$|\*|\?|\[[!^]?+\]?+(?:\\.|[^\]\\])*\]|\\.|.", re.DOTALL
)
_SPECIAL = re.compile(r"(?=[*?\[\\])")
_BLANK_END = re.compile(r"(?<!\\)\s+$")


class Ignored:
    r"""Whether patterns leave a file or folder out; the last match decides.

    A pattern without `/` matches names at any depth, others match paths from the root, and a `/` at the end
    matches only folders. `*`, `?` and `[a-z]` match within a name, `**` matches any number of folders, `!`
    includes again, and `\` escapes the next character. Unicode NFC and NFD are equal.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[tuple[bool, bool, re.Pattern[str]]] = []
        for line in patterns:
            pattern = composed(_BLANK_END.sub("", line))
            leaves_out = not pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            folders_only = pattern.endswith("/")
            pattern = pattern.rstrip("/")
            if "[:" in pattern:
                raise ValueError(f"{line!r}: classes such as [[:alpha:]] are not known. Write the signs.")
            if pattern:
                begin = "" if "/" in pattern else "(?:.*/)?"
                # Plain text is compared first, as in git.
                plain, *rest = _SPECIAL.split(pattern.lstrip("/"), maxsplit=1)
                text = begin + re.escape(plain) + "".join(map(_translated, _PARTS.findall("".join(rest))))
                self._rules.append((leaves_out, folders_only, _compiled(line, text)))

    def __call__(self, path: str, is_folder: bool = False) -> bool:
        """Whether a path (relative to the root, POSIX) or a folder above it is left out."""
        parts = composed(path).split("/")
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
    """Patterns of the `.vattignore` of a folder, without blank lines and comments (`#`); ValueError if it is
    no text."""
    file = root / IGNORE_FILE
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: must be UTF-8 text ({error.reason}).") from None
    return [line for line in lines if line.strip() and not line.startswith("#")]


def forget_files(index: VattIndex, paths: Iterable[str]) -> int:
    """Remove files, or all files in folders, and leave them out from now on; returns the number of removed
    files. The caller holds [`writer_lock`].

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
    """Let the next update take in files again that [`forget_files`] left out; ValueError for other paths."""
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
    """The known paths that are equal to a path, or else equal up to Unicode composition."""
    path = str(PurePosixPath(path))
    return {path} & known or {other for other in known if composed(other) == composed(path)}


def with_parents(path: str) -> list[str]:
    """A path and the folders above it."""
    return [path, *map(str, PurePosixPath(path).parents)]
