# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Plugin that makes `docs/support.md` from test results: `pytest -m support --support-table=docs/support.md`.

`@pytest.mark.support(feature, *models, no=None)` says what a test shows. Without `models` it is the model
class of the parameter `model_class` or `kind`. With `no="reason"` the test shows that the feature is refused.
A cell with several tests is "yes" if none of them failed and one at least ran.
"""

from pathlib import Path
from typing import Any

import pytest


MODELS = (
    "VattModel",
    "VattForPreTraining",
    "VattForVideoClassification",
    "VattForAudioClassification",
    "VattForImageClassification",
)
KINDS = {kind: f"VattFor{kind.capitalize()}Classification" for kind in ("video", "audio", "image")}
FEATURES = {
    "Model checks": (
        "Initialisation, also of weights missing from a checkpoint",
        "Save and load (safetensors)",
        "Load with other sizes (`ignore_mismatched_sizes`)",
        "`resize_token_embeddings`",
        "Tuples (`return_dict=False`)",
        "`output_hidden_states`, `output_attentions`",
        "Gradients of hidden states and attentions",
        "Every parameter gets a gradient",
        "Evaluation is deterministic",
        "Batching changes nothing",
        "Forward hooks",
    ),
    "Attention": ("eager against `sdpa`", "`flex_attention`", "`flash_attention_2`"),
    "Precision": (
        "`dtype=` bfloat16 and float16",
        "autocast bfloat16 and float16",
        "int8 weights (`TorchAoConfig`)",
    ),
    "Devices": ("Sharded save, `device_map`", "Offload to disk"),
    "Training": (
        "Gradient checkpointing",
        "LoRA with merge",
        "DoRA with merge",
        "Accelerate",
        "`Trainer`",
        "`Trainer` with gradient accumulation",
    ),
    "Compilation and export": (
        "`torch.compile(fullgraph=True)`",
        "`torch.compile` with inductor",
        "`torch.export`, free batch size",
        "ONNX, free batch size",
    ),
}
NOT_RUN = "not run here"
HEADER = """# What works with which model

Made by `pytest -m support --support-table=docs/support.md` from the tests named in the last column: **yes**
if they passed, **no** with the reason if they show that it is refused, **not run here** if they need what the
machine lacks. transformers' own common tests are not part of its wheel, so the model checks are tests of the
same properties.
"""
NOTES = """## Notes

- ONNX: export in evaluation mode under `torch.no_grad()` with `dynamo=True`. With gradients on, torch picks
  another attention kernel for the text tower, whose export fails.
- Of `VattModel` the towers are compiled and exported one by one, of `VattForPreTraining` the whole.
- flash attention takes no position bias: the T5-style text tower then uses SDPA.
- `Trainer` on `VattForPreTraining` gathers the four embeddings only. `compute_metrics` can be
  `modeling_vatt.evaluation.pretraining_metrics`; with `label_names=["audio_mask", "text_mask"]` clips without
  sound or caption are not used as queries. The contrastive loss depends on the batch size: a smaller last
  batch has a smaller loss.
- int8: weights of dense layers, on CPU, by torchao; the word table stays as it is.
"""


class SupportTable:
    """Collects marked tests and their outcomes, and writes the table."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.tests: dict[tuple[str, str], dict[str, str | None]] = {}  # cell -> test -> reason for "no"
        self.outcomes: dict[str, tuple[str, str]] = {}  # test -> outcome, reason for skipping

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before deselection; the test of the table comes last."""
        for item in items:
            for mark in item.iter_markers("support"):
                parameters = item.callspec.params if hasattr(item, "callspec") else {}
                models = mark.args[1:]
                if "model_class" in parameters:
                    models = models or (parameters["model_class"].__name__,)
                elif "kind" in parameters:
                    models = models or (KINDS[parameters["kind"]],)
                self.add(item.nodeid, mark.args[0], models, mark.kwargs.get("no"))
        items.sort(key=lambda item: item.path.name == "test_support_table.py")

    def add(self, test: str, feature: str, models: tuple[str, ...], no: str | None = None) -> None:
        """Note what a test shows."""
        if not any(feature in features for features in FEATURES.values()) or not models:
            raise pytest.UsageError(f"{test}: support mark with an unknown feature or no model: {feature!r}.")
        for model in models:
            if model not in MODELS:
                raise pytest.UsageError(f"{test}: support mark with an unknown model: {model!r}.")
            self.tests.setdefault((feature, model), {})[test] = no

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The call decides; set-up and clean-up count if they fail or skip."""
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.outcomes[report.nodeid] = (report.outcome, reason.removeprefix("Skipped: "))

    def cell(self, feature: str, model: str) -> str | None:
        """Text of a cell; None if not all of its tests were run."""
        tests = self.tests.get((feature, model), {})
        if not tests or any(test not in self.outcomes for test in tests):
            return None
        outcomes = [self.outcomes[test] for test in tests]
        if any(outcome == "failed" for outcome, _ in outcomes):
            return "no (test fails)"
        if all(outcome == "skipped" for outcome, _ in outcomes):
            return f"{NOT_RUN} ({outcomes[0][1]})"
        reasons = [reason for reason in tests.values() if reason]
        return f"no ({reasons[0]})" if reasons else "yes"

    def render(self) -> str:
        """The page."""
        lines = [HEADER]
        for group, features in FEATURES.items():
            lines += [f"## {group}\n", f"| | {' | '.join(f'`{model}`' for model in MODELS)} | tests |"]
            lines.append("| --- " * (len(MODELS) + 2) + "|")
            for feature in features:
                cells = [self.cell(feature, model) or NOT_RUN for model in MODELS]
                nodes = {node for model in MODELS for node in self.tests.get((feature, model), {})}
                tests = sorted({node.split("[")[0].removeprefix("tests/") for node in nodes})
                names = ", ".join(f"`{test}`" for test in tests)
                lines.append(f"| {feature} | {' | '.join(cells)} | {names} |")
            lines.append("")
        return "\n".join([*lines, NOTES])

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the page, unless the run was broken off."""
        if self.path and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            Path(self.path).write_text(self.render(), encoding="utf-8")


def read_table(text: str) -> dict[tuple[str, str], str]:
    """Cells of a written page."""
    cells = {}
    for line in text.splitlines():
        columns = [column.strip() for column in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(columns) == len(MODELS) + 2 and columns[0] not in ("", "---"):
            cells.update(
                {(columns[0], model): cell for model, cell in zip(MODELS, columns[1:], strict=False)}
            )
    return cells


def add_option(parser: Any) -> None:
    """For `pytest_addoption` of conftest.py."""
    parser.addoption("--support-table", metavar="PATH", help="write the table of supported features there")


def register(config: pytest.Config) -> None:
    """For `pytest_configure` of conftest.py."""
    config.addinivalue_line("markers", "support(feature, *models, no=None): a cell of docs/support.md")
    config.pluginmanager.register(SupportTable(config.getoption("--support-table")), "support_table")
