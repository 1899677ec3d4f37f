# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`vatt convert`."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import explained, say


if TYPE_CHECKING:
    from ..convert import Conversion


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
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check the sizes of the checkpoint's files, and that the output folder is as it was "
            "converted. What is there already is not converted again.",
        ),
    ] = False,
) -> None:
    """Convert an official checkpoint to weights, config, processor and model card for `from_pretrained`.

    Examples:

    vatt convert tx_fac_mbs --output vatt-mbs --misc-data download

    vatt convert tx_fac_mbs --verify                      # of the download alone, without TensorFlow

    vatt convert --output vatt-mbs --verify               # of the converted folder alone
    """
    from ..convert.bundle_index import check_sizes
    from ..convert.fingerprint import FINGERPRINT, check_fingerprint
    from ..convert.release import BASE_URL, MISC_DATA, RELEASES, fetch_part, fetch_release
    from ..convert.variables import checkpoint_prefix, open_variables

    if list_names:
        _list_releases()
        return
    given = (checkpoint is not None) + (output is not None)
    if given < (1 if verify else 2):
        raise typer.BadParameter("Give a checkpoint and --output DIR, one of them to --verify, or --list.")
    options: dict[str, Any] = {
        "vocabulary": vocabulary,
        "labels": labels,
        "head_dim": head_dim,
        "overrides": _nested(override or []),
        "overwrite": overwrite,
    }
    where = (cache_dir or _default_cache(), base_url or BASE_URL)
    release = RELEASES.get(checkpoint or "")  # ./NAME is a path
    with closing(_DownloadBar()) as bar:
        source = None
        if checkpoint is not None:
            source = Path(checkpoint) if release is None else fetch_release(checkpoint, *where, bar)
            if verify and source.suffix != ".npz":
                prefix = checkpoint_prefix(source)
                say(f"{prefix}: {check_sizes(prefix):,} bytes of data, as its index says.")
        there = verify and not overwrite and output is not None and (output / FINGERPRINT).is_file()
        if source is not None and output is not None and not there:
            if misc_data == "download":
                misc_data = str(fetch_part(MISC_DATA, *where, bar))
            bar.close()
            variables = open_variables(source)
            from ..convert import convert_checkpoint

            _tell(convert_checkpoint(variables, output, release=release, misc_data=misc_data, **options))
    if verify and output is not None:
        say(f"{output}: {check_fingerprint(output)} files are as they were converted.")


def _list_releases() -> None:
    from ..convert.release import RELEASES

    width = max(map(len, RELEASES))
    for name, entry in RELEASES.items():
        say(f"{name:<{width}}  {entry.summary}" + (f" ({entry.metrics})" if entry.metrics else ""))


def _tell(done: "Conversion") -> None:
    say(
        f"{done.output}: {done.model_class}, {done.num_variables} variables with {done.num_values:,} "
        f"values ({done.num_skipped} entries that are not the model were skipped)"
    )
    for note in done.notes:
        say(f"note: {note}")
