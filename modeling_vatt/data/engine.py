# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Independent tasks on several processes of this machine, or on a cluster through Ray Data."""

import importlib
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar


Task = TypeVar("Task")
Result = TypeVar("Result")

_OBJECT_STORE = 256 * 1024**2  # of Ray on this machine alone; tasks and results are small
_function: Callable[[Any], Any]


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_workers: int,
    engine: Literal["processes", "ray"] = "processes",
) -> Iterator[Result]:
    """Results of tasks, in order.

    Args:
        function: does a task. Each worker gets one copy, which may keep what it loads at its first call.
        tasks: independent of each other; they and the results are sent between processes.
        num_workers: processes, or Ray actors.
        engine: `"processes"` of this machine, or `"ray"`: the cluster at `RAY_ADDRESS` (where paths in tasks
            must be valid on all machines), or else Ray on this machine.

    Raises:
        RuntimeError: a worker died.
        ValueError: Ray is not installed.
    """
    if engine == "ray":
        yield from _run_on_ray(function, tasks, num_workers)
        return
    try:
        with ProcessPoolExecutor(num_workers, initializer=_begin, initargs=(function,)) as pool:
            yield from pool.map(_do, tasks)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A worker process died, perhaps for want of memory. Run the command again to continue, with "
            "fewer workers if it happens again."
        ) from error


def _begin(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    # A killed process cannot end its workers, which would go on writing beside the next run.
    threading.Thread(target=_end_with_caller, daemon=True).start()


def _end_with_caller() -> None:
    caller = multiprocessing.parent_process()
    if caller is not None:
        caller.join()
        os._exit(1)


def _do(task: Any) -> Any:
    return _function(task)


class _Actor:
    """Worker of Ray Data: rows hold pickled tasks and results."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"result": pickle.dumps(self.function(pickle.loads(row["task"])))}


def _run_on_ray(
    function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int
) -> Iterator[Result]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ValueError("Ray is not installed: pip install 'modeling_vatt[ray]'.") from error
    began = not ray.is_initialized()
    if began and "RAY_ADDRESS" in os.environ:
        ray.init(logging_level="WARNING", log_to_driver=False)
    elif began:
        ray.init(
            num_cpus=num_workers,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            logging_level="WARNING",
            log_to_driver=False,
        )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it reports each step of a plan
        context.execution_options.preserve_order = True
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor, fn_constructor_args=(function,), compute=ray.data.ActorPoolStrategy(size=num_workers)
        )
        for row in done.iter_rows():
            yield pickle.loads(row["result"])
    finally:
        if began:
            ray.shutdown()
