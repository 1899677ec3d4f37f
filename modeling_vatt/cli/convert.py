# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt convert`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import explained, say


def _nested(assignments: list[str]) -> dict[str, Any]:
    """`["a.b=1"]` -> `{"a": {"b": 1}}`; values are JSON, or text where they are not."""
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{assignment!r} must be FIELD=VALUE.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *parents, last = key.split(".")
        target = result
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = value
    return result


class _DownloadBar:
    """A progress bar for each file that is fetched."""

    def __init__(self) -> None:
        self.name = ""
        self.bar: Any = None

    def __call__(self, name: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if name != self.name:
            self.close()
            self.name = name
            self.bar = tqdm(total=total or None, initial=0, unit="B", unit_scale=True, desc=name)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _default_cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "vatt"


@explained("No model was written; what was downloaded is kept.")
def convert(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Name of a published checkpoint (see --list), or path of a TensorFlow checkpoint."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to make.")] = None,
    misc_data: Annotated[
        str | None,
        typer.Option(help="misc_data.tgz of the release (path, or 'download'): tokenizer and word table."),
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Word list, for the tokenizer alone.", exists=True, dir_okay=False)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Class names (.txt, .csv or .json) of a classifier.", exists=True, dir_okay=False),
    ] = None,
    head_dim: Annotated[
        int | None, typer.Option(help="Width of an attention head, if not the release's 64.", min=1)
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="Config field, e.g. --set video_config.hidden_act=relu. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the output folder if it is not empty.")] = False,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where downloads are kept; by default vatt/ in the Hugging Face home.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--source",
            "--base-url",
            help="Mirror of the release (URL), or folder that holds a copy of it; see docs/convert.md.",
            show_default=False,
        ),
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the published checkpoints.")] = False,
) -> None:
    """Convert an official checkpoint to weights, config, processor and model card for `from_pretrained`."""
    from ..convert.release import BASE_URL, MISC_DATA, RELEASES, fetch_part, fetch_release
    from ..convert.variables import open_variables

    if list_names:
        width = max(map(len, RELEASES))
        for name, entry in RELEASES.items():
            say(f"{name:<{width}}  {entry.summary}" + (f" ({entry.metrics})" if entry.metrics else ""))
        return
    if checkpoint is None or output is None:
        raise typer.BadParameter("Give a checkpoint and --output DIR, or --list.")
    overrides = _nested(override or [])
    base_url = base_url or BASE_URL
    cache = cache_dir or _default_cache()
    bar = _DownloadBar()
    is_path = checkpoint not in RELEASES  # ./NAME is a path
    try:
        release = None if is_path else RELEASES[checkpoint]
        source = Path(checkpoint) if is_path else fetch_release(checkpoint, cache, base_url, bar)
        if misc_data == "download":
            misc_data = str(fetch_part(MISC_DATA, cache, base_url, bar))
        bar.close()
        variables = open_variables(source)
        from ..convert import convert_checkpoint

        done = convert_checkpoint(
            variables,
            output,
            release=release,
            misc_data=misc_data,
            vocabulary=vocabulary,
            labels=labels,
            head_dim=head_dim,
            overrides=overrides,
            overwrite=overwrite,
        )
    finally:
        bar.close()
    say(
        f"{done.output}: {done.model_class}, {done.num_variables} variables with {done.num_values:,} values "
        f"({done.num_skipped} entries that are not the model were skipped)"
    )
    for note in done.notes:
        say(f"note: {note}")
