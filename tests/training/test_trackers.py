# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Trackers of Accelerate get the metrics and the settings of a pretraining run, and no secrets."""

import importlib
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import fields
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import accelerate.tracking
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import LoggerType
from scripts import EXAMPLES


TOKEN = "hf_" + "a" * 34
METRICS = {"loss": 0.5, "learning_rate": 1e-3}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("run_pretraining")


def arguments(script, monkeypatch, output, tracker):
    words = f"x --dataset https://user:{TOKEN}@host/videos --output_dir {output} --report_to {tracker}"
    monkeypatch.setattr(sys, "argv", words.split())
    kinds = [field.type for field in fields(script.Arguments)]
    return script.Arguments(*script.parse("A run.", *kinds))


def run(script, monkeypatch, output, tracker):
    args = arguments(script, monkeypatch, output, tracker)
    accelerator = script.set_up(args)
    script.describe(args, accelerator)
    with script.Progress(accelerator, 2) as progress:
        progress.log(1, METRICS)
    accelerator.end_training()


def test_trackio(script, tmp_path, monkeypatch):
    """The real one, without a network; where it is installed, as its releases want other versions than the
    pinned ones."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", exc_type=ImportError)
    run(script, monkeypatch, tmp_path / "my_run", "trackio")
    with closing(sqlite3.connect(tmp_path / "trackio" / "my_run.db")) as database:
        ((step, metrics),) = database.execute("SELECT step, metrics FROM metrics")
        ((config,),) = database.execute("SELECT config FROM configs")
    assert (step, json.loads(metrics)) == (1, METRICS)
    settings = json.loads(config)
    assert settings["RunArguments.report_to"] == "trackio" and TOKEN not in str(settings)


def test_several_trackers(script, tmp_path, monkeypatch):
    """TensorBoard writes into the folder that is not uploaded, whichever others there are."""
    pytest.importorskip("tensorboard")
    run(script, monkeypatch, tmp_path / "my_run", "tensorboard")
    assert list((tmp_path / "my_run" / "logs" / "my_run").glob("**/events*"))
    assert [path.name for path in (tmp_path / "my_run").iterdir()] == ["logs"]
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.AIM, LoggerType.COMETML])
    for words, names in (
        ("all", ["aim", "comet_ml"]),
        ("Comet aim comet-ml", ["comet_ml", "aim"]),
        ("none", []),
        ("tensorboard", []),  # the default
    ):
        assert script.trackers(words.split()) == names
    for words in ("neptune", "none aim"):
        with pytest.raises(ValueError, match=r"no such tracker\. Take some of aim, comet_ml,"):
            script.trackers(words.split())


def test_metrics_and_settings_reach_the_tracker(script, tmp_path, monkeypatch):
    """Trackio, of which a stand-in keeps what Accelerate hands over."""
    trackio = MagicMock(__spec__=ModuleSpec("trackio", None))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [LoggerType.TRACKIO])
    run(script, monkeypatch, tmp_path / "my_run", "trackio")
    trackio.init.assert_called_once_with(project="my_run")
    tracked = trackio.init.return_value
    tracked.log.assert_called_once_with(METRICS, step=1)
    tracked.finish.assert_called_once()
    settings = trackio.config.update.call_args.args[0]
    assert settings["RunArguments.report_to"] == "trackio" and TOKEN not in str(trackio.mock_calls)


def test_every_tracker_of_accelerate_is_offered(script, tmp_path, monkeypatch):
    """One that is not installed ends the run: its metrics would be lost in silence."""
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    for name in LOGGER_TYPE_TO_CLASS.keys() - {"tensorboard"}:
        args = arguments(script, monkeypatch, tmp_path, name)
        with pytest.raises(ValueError, match=f"{name} is not installed"):
            script.set_up(args)
