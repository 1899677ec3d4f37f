# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Trackers of Accelerate get the metrics and the settings of a pretraining run, and no secrets."""

import importlib
import sys
import types
from dataclasses import fields
from importlib.machinery import ModuleSpec

import accelerate.tracking
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import LoggerType
from scripts import EXAMPLES


TOKEN = "hf_" + "a" * 34


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("run_pretraining")


def arguments(script, monkeypatch, output, tracker):
    words = f"x --dataset https://user:{TOKEN}@host/videos --output_dir {output} --report_to {tracker}"
    monkeypatch.setattr(sys, "argv", words.split())
    kinds = [field.type for field in fields(script.Arguments)]
    return script.Arguments(*script.parse("A run.", *kinds))


def test_metrics_and_settings_reach_the_tracker(script, tmp_path, monkeypatch):
    """Trackio, of which a stand-in keeps what Accelerate hands over."""
    seen = {"config": {}, "log": [], "finished": False}

    class Run:
        def log(self, values, step=None):
            seen["log"].append((step, values))

        def finish(self):
            seen["finished"] = True

    module = types.ModuleType("trackio")
    module.__spec__ = ModuleSpec("trackio", None)
    module.init = lambda project: seen.update(project=project) or Run()
    module.config = types.SimpleNamespace(update=lambda values, **_: seen["config"].update(values))
    monkeypatch.setitem(sys.modules, "trackio", module)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TRACKIO])

    args = arguments(script, monkeypatch, tmp_path / "my_run", "trackio")
    accelerator = script.set_up(args)
    script.describe(args, accelerator)
    with script.Progress(accelerator, 2) as progress:
        progress.log(1, {"loss": 0.5, "learning_rate": 1e-3})
    accelerator.end_training()
    assert seen["project"] == "my_run" and seen["finished"]
    assert seen["log"] == [(1, {"loss": 0.5, "learning_rate": 1e-3})]
    assert seen["config"]["RunArguments.report_to"] == "trackio" and TOKEN not in str(seen)


def test_every_tracker_of_accelerate_is_offered(script, tmp_path, monkeypatch):
    """One that is not installed ends the run: its metrics would be lost in silence."""
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    for name in LOGGER_TYPE_TO_CLASS.keys() - {"tensorboard"}:
        args = arguments(script, monkeypatch, tmp_path, name)
        with pytest.raises(ValueError, match=f"{name} is not installed"):
            script.set_up(args)
