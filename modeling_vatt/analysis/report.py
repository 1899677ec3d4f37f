# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Figures, tables and one HTML page with all of them, for a browser without a network (extra `analysis`)."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ..files import csv_cell, write_whole


@dataclass
class Section:
    """One analysis in a report.

    Args:
        name: of its files, without an ending.
        title: heading.
        help: one or two sentences on how to read it.
        figure: matplotlib figure.
        table: all numbers, for the CSV file.
        summary: a few numbers for the page, if any.
    """

    name: str
    title: str
    help: str
    figure: Figure
    table: pd.DataFrame
    summary: pd.DataFrame | None = None


def write_report(
    folder: Path, title: str, sections: Sequence[Section], facts: Mapping[str, object] | None = None
) -> Path:
    """Write `figures/NAME.png`, `figures/NAME.svg` and `tables/NAME.csv` of every section, and `report.html`
    with a title and `facts` (name -> value); returns the path of the page."""
    figures, tables = folder / "figures", folder / "tables"
    for part in (figures, tables):
        part.mkdir(parents=True, exist_ok=True)
    shown = []
    for section in sections:
        picture = figures / f"{section.name}.png"
        section.figure.savefig(picture, dpi=110)
        section.figure.savefig(picture.with_suffix(".svg"), metadata={"Date": None})
        table = section.table.rename(columns=csv_cell).map(csv_cell)
        write_whole(tables / f"{section.name}.csv", table.to_csv(index=False).encode())
        shown.append(
            {
                "name": section.name,
                "title": section.title,
                "help": section.help,
                "image": "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode(),
                "summary": None if section.summary is None else _html_table(section.summary),
            }
        )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja")
    path = folder / "report.html"
    path.write_text(page.render(title=title, sections=shown, facts=facts or {}), encoding="utf-8")
    return path


def _html_table(table: pd.DataFrame) -> Markup:
    named = table.rename(columns=lambda name: str(name).replace("_", " "))
    # pandas escapes the cells
    return Markup(named.to_html(index=False, border=0, float_format=lambda value: f"{value:.3g}"))


__all__ = ["Section", "write_report"]
