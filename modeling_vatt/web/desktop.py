# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The file manager of this machine."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path


def _command(file: Path) -> list[str] | None:
    if sys.platform == "darwin":
        return ["open", "-R", str(file)]
    if sys.platform == "win32":
        return ["explorer", f"/select,{file}"]
    seen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ["xdg-open", str(file.parent)] if seen else None


def can_show() -> bool:
    """Whether there is a file manager."""
    command = _command(Path())
    return command is not None and shutil.which(command[0]) is not None


def show_in_folder(file: Path) -> bool:
    """Open the folder of a file, with the file selected if possible; False without a file manager."""
    command = _command(file)
    program = None if command is None else shutil.which(command[0])
    if command is None or program is None:
        return False
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [program, *command[1:]], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    threading.Thread(target=process.wait, daemon=True).start()  # avoids a zombie process
    return True
