# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""docs/support.md agrees with the tests of this run."""

from pathlib import Path

import pytest
import support_table
from support_table import FEATURES, HEADER, MODELS, NOTES, SupportTable, read_table


PAGE = Path(__file__).parents[2] / "docs" / "support.md"


def test_cells_follow_from_outcomes():
    """Failed beats skipped beats passed; a partly run cell says nothing."""
    table = SupportTable()
    feature = "Forward hooks"
    for test, model in (("a", 0), ("b", 0), ("c", 1), ("d", 2), ("e", 3), ("f", 3), ("g", 4)):
        table.add(test, feature, (MODELS[model],), no="no tower" if test == "d" else None)
    table.outcomes = {
        "a": ("passed", ""),
        "b": ("skipped", "no GPU"),
        "c": ("skipped", "no GPU"),
        "d": ("passed", ""),
        "e": ("passed", ""),
        "g": ("failed", ""),
    }
    expected = ["yes", "not run here (no GPU)", "no (no tower)", None, "no (test fails)"]
    assert [table.cell(feature, model) for model in MODELS] == expected
    written = read_table(table.render())
    assert [written[feature, model] for model in MODELS] == [cell or "not run here" for cell in expected]
    for wrong in (("x", "Unknown feature", ("VattModel",)), ("x", feature, ()), ("x", feature, ("Vatt",))):
        with pytest.raises(pytest.UsageError):
            table.add(*wrong)


def last_columns(page: str) -> list[str]:
    """The names of the tests, line by line."""
    return [line.rpartition(" | ")[2] for line in page.splitlines() if line.startswith("| ")]


def test_support_table_is_current(request):
    """Every cell whose tests ran says what they found; rows are the known features."""
    table: SupportTable = request.config.pluginmanager.get_plugin("support_table")
    if table.path:
        pytest.skip("the table is being written")
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(HEADER) and page.endswith(NOTES)
    written = read_table(page)
    rows = [feature for features in FEATURES.values() for feature in features]
    assert list(written) == [(feature, model) for feature in rows for model in MODELS]
    stale = {
        key: (cell, table.cell(*key))
        for key, cell in written.items()
        if table.cell(*key) not in (None, cell) and not table.cell(*key).startswith(support_table.NOT_RUN)
    }
    if request.config.args_source == pytest.Config.ArgsSource.TESTPATHS:  # all tests were collected
        assert set(table.tests) == set(written), "cells without a test"
        assert last_columns(page) == last_columns(table.render())
    assert not stale, f"{PAGE} is stale (written, found): {stale}. See tests/support/support_table.py."
