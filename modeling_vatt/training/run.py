# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by pretraining and fine-tuning: stopping, saving and recording a run, refusing bad batches, skipped
clips, and how messages say to continue."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from safetensors import SafetensorError

from ..data import SkippedClip
from .checkpoints import STATE_FILE, checkpoints, files_at_once, recover
from .faults import NonFiniteLossError, RunStopped, StopSignals, TrainingError, explained
from .run_record import without_secrets, write_run_record


logger = logging.getLogger(__name__)


def step_seed(seed: int, step: int, rank: int, part: int = 0) -> int:
    """Seed of dropout and DropToken for a step, process and part of a batch, also in resumed runs."""
    return (((seed * 1_000_003 + step) * 4099 + rank) * 8209 + part) % 2**63


class SkippedClips(dict[str, str]):
    """Name of a clip -> reason; `file` gets a line of JSON for each new clip."""

    def __init__(self, known: Mapping[str, str] | None = None, file: Path | None = None) -> None:
        super().__init__(known or {})
        self.file = file

    def add(self, clips: Iterable[SkippedClip]) -> dict[str, str]:
        """Add the new clips, warn of them and return them."""
        new = {clip.name: clip.reason for clip in clips if clip.name not in self}
        for reason in new.values():
            logger.warning("Skipped %s", reason)
        if new and self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.writelines(json.dumps({"name": name, "reason": new[name]}) + "\n" for name in new)
        self |= new
        return new

    def share(self, new: Mapping[str, str]) -> None:
        """Send `new` to all processes; all must call it."""
        for clips in gather_object([dict(new)]):
            for name, reason in clips.items():
                self.setdefault(name, reason)

    def begin(self, continued: bool) -> None:
        """Read the file if a run is continued, without an incomplete last line; otherwise delete it."""
        if self.file is None or not self.file.is_file():
            return
        if not continued:
            if PartialState().is_main_process:
                self.file.unlink(missing_ok=True)
            return
        kept, text = [], self.file.read_text(errors="replace")
        for line in text.splitlines():
            with suppress(json.JSONDecodeError, KeyError, TypeError):
                found = json.loads(line)
                self[found["name"]] = found["reason"]
                kept.append(line + "\n")
        if "".join(kept) != text and PartialState().is_main_process:
            logger.warning("%s: left out what could not be read of it.", self.file)
            with files_at_once(self.file.parent) as folder:
                (folder / self.file.name).write_text("".join(kept))


@dataclass
class Run:
    """A run in its folder, as seen by one process.

    Args:
        folder: of checkpoints, record and result.
        steps: gives the numbers of steps made and of the whole run.
        save_flag: flag for the interval of checkpoints, for messages.
        state_file: see [`checkpoints`].

    Attributes:
        signals: received since the start.
    """

    folder: Path
    steps: Callable[[], tuple[int, int]]
    save_flag: str
    state_file: str = STATE_FILE
    signals: StopSignals = field(default_factory=StopSignals, init=False)

    @contextmanager
    def guarded(self, memory_advice: str) -> Iterator[None]:
        """Note signals, and explain faults of disk, memory and processes; see [`explained`]."""
        self.signals = StopSignals()
        with explained(self.folder, memory_advice, self.how_to_continue), self.signals:
            yield

    def prepare_folder(self) -> None:
        """Make the folder, or clean up after a killed run."""
        if PartialState().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            recover(self.folder)

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return checkpoints(self.folder, self.state_file)

    def how_to_continue(self) -> str:
        """Sentences for the message of a run that ends early."""
        made = "Steps made: {} of {}.".format(*self.steps())
        found = self.checkpoints()
        if not found:
            return f"{made} There is no checkpoint yet: the same command begins anew (see {self.save_flag})."
        return f"{made} {found[-1]} is whole: the same command continues from it."

    def stopped(self) -> RunStopped:
        """Exception to raise when the checkpoint is written."""
        reason = self.signals.received or "a signal to another process"
        return RunStopped(f"Stopped by {reason}. {self.how_to_continue()}")

    def refuse_unreadable(self, step: int, count: float, skipped: Mapping[str, str]) -> NoReturn:
        """Raise on all processes if `count` of them have nothing to train on."""
        reason, processes = next(iter(skipped.values()), "it is empty"), PartialState().num_processes
        raise ValueError(
            f"Step {step}: no clip of the batch of {count:.0f} of the {processes} processes can be read; one "
            f"because {reason} Remove broken files or enlarge the batch."
        )

    def refuse_non_finite(
        self, step: int, what: str, clips: list[str], advice: str, details: Mapping[str, Any]
    ) -> NoReturn:
        """Raise for a NaN or infinite loss or gradient; the clips of the batch are written to a file."""
        file = self.folder / f"non_finite_step_{step}.json"
        if PartialState().is_main_process:
            found = without_secrets({"step": step, **details, "clips": clips})
            file.write_text(json.dumps(found, indent=2) + "\n")
        shown = ", ".join(map(os.path.basename, clips[:5])) + (", ..." if len(clips) > 5 else "")
        raise NonFiniteLossError(
            f"Step {step}: {what} is not finite. No update was made. Clips of the batch: {shown} (all in "
            f"{file}). Lower --learning_rate, lengthen --warmup_steps or {advice}. {self.how_to_continue()}"
        )

    def record(self, kind: str, config: Any, arguments: Any, data: Any, step: int, **more: Any) -> None:
        """Write `run.json` with the config of the model; see [`write_run_record`]."""
        state = PartialState()
        if state.is_main_process:
            described = config.to_dict()
            write_run_record(self.folder, kind, described, arguments, data, step, state.num_processes, **more)

    def write_checkpoint(
        self,
        target: Path,
        partial: Path,
        writes: bool,
        begin: Callable[[], Any],
        fill: Callable[[], Any],
        finish: Callable[[], Any],
    ) -> None:
        """Write a checkpoint in three steps; a failure in one process is raised in all.

        Args:
            target: the checkpoint, for messages.
            partial: folder that is deleted on a failure, to free its space.
            writes: whether this process begins and finishes; all fill.
            begin, fill, finish: make the folder, fill it, and rename it.

        Raises:
            TrainingError: another process failed. A failure of this one is raised unchanged.
        """
        for task, is_mine in ((begin, writes), (fill, True), (finish, writes)):
            failed: Exception | None = None
            try:
                if is_mine:
                    task()
            except (OSError, RuntimeError, SafetensorError) as error:
                failed = error
                if writes:
                    shutil.rmtree(partial, ignore_errors=True)
            failures = sum_over_processes(failed is not None)[0]
            if failed is not None:
                raise failed
            if failures:
                raise TrainingError(f"Another process could not write {target}: read its own message.")


def sum_over_processes(*values: float) -> list[float]:
    """Sums over all processes; all must call it."""
    row = torch.tensor(values, dtype=torch.float32, device=PartialState().device)
    return reduce(row, reduction="sum").tolist()
