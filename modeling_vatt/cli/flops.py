# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt flops`."""

from pathlib import Path
from typing import Annotated

import typer

from ..repositories import require_repository
from .common import explained, finite, say_json


@explained("Nothing was changed.")
def flops(
    model: Annotated[
        str | None, typer.Argument(help="Preset (mbs, ma_medium, tiny, ...), config folder or Hub id.")
    ] = None,
    frames: Annotated[
        list[int] | None, typer.Option(help="Video frames; by default the config's. Repeatable.", min=1)
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Height and width of a frame, pixels. Repeatable.", min=1)
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples of the sound.", min=1)] = None,
    words: Annotated[int | None, typer.Option(help="Words of the text.", min=1)] = None,
    keep: Annotated[
        list[float] | None,
        typer.Option(help="Share of tokens that DropToken keeps. Repeatable.", callback=finite),
    ] = None,
    views: Annotated[int, typer.Option(help="Views of a video (windows x crops).", min=1)] = 1,
    paper: Annotated[bool, typer.Option("--paper", help="Compare with the paper's tables.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON records.")] = False,
) -> None:
    """Count parameters and operations of one forward pass, in the paper's unit and truly.

    The paper's count has one of the two attention products and no projections; the true count has every
    matrix product and convolution. A multiply-add is 2 operations in both.
    """
    if paper == (model is not None):
        raise typer.BadParameter("Give a model, or --paper.")
    is_preset = model is not None and not Path(model).exists() and "/" not in model
    cached = model is not None and not is_preset and require_repository(model)
    import itertools

    import pandas as pd

    from ..analysis import CostCounter, InputSize, paper_comparison
    from ..configuration import VattConfig

    if model is None:
        table = paper_comparison()
    else:
        if is_preset:
            config = VattConfig.from_preset(model)
        else:
            config = VattConfig.from_pretrained(model, local_files_only=cached)
        counter = CostCounter(config)
        tables = []
        # None: the config's
        for time, side, share in itertools.product(frames or (None,), size or (None,), keep or (1.0,)):
            costs = counter.table(InputSize(time, side, samples, words), share, views)
            costs.insert(2, "kept_share", share)
            tables.append(costs)
        table = pd.concat(tables, ignore_index=True)
    if as_json:
        say_json(table.to_dict("records"))
        return
    formats = dict.fromkeys(table.select_dtypes("int"), "{:,d}".format)
    typer.echo(table.to_string(index=False, formatters=formats, float_format="{:,.3f}".format))
