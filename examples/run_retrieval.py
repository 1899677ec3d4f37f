# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embed a folder of videos and find clips in it by text, sound or video.

python examples/run_retrieval.py --model out --folder my_videos --text "a dog barks" --top_k 5
python examples/run_retrieval.py --model out --folder my_videos --audio bark.wav
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm
from transformers import HfArgumentParser
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import VIDEO_SUFFIXES
from modeling_vatt.processors import MediaError, VattProcessor
from modeling_vatt.retrieval import Gallery


@dataclass
class RetrievalArguments:
    """What to search, and for what."""

    model: str = field(metadata={"help": "Folder or Hub name of a pretrained model with its processor."})
    folder: str = field(metadata={"help": "Videos, searched with all subfolders."})
    text: list[str] = field(default_factory=list, metadata={"help": "Queries in words."})
    audio: list[str] = field(
        default_factory=list, metadata={"help": "Sound files (or videos, for their sound)."}
    )
    video: list[str] = field(default_factory=list, metadata={"help": "Video files."})
    top_k: int = field(default=10, metadata={"help": "Results per query."})
    windows: int = field(default=1, metadata={"help": "Windows per video, averaged; 4 in the paper."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, ..."})


def main() -> None:
    parser = HfArgumentParser(RetrievalArguments, description=__doc__.splitlines()[0])
    try:
        (args,) = parser.parse_args_into_dataclasses()
    except ValueError as error:  # unknown flags
        parser.error(str(error))
    transformers_logging.disable_progress_bar()
    queries = [(kind, query) for kind in ("text", "audio", "video") for query in getattr(args, kind)]
    if not queries:
        sys.exit("Nothing to look for: give --text, --audio or --video.")
    if not Path(args.folder).is_dir():
        sys.exit(f"{args.folder}: no such folder.")
    files = sorted(path for path in Path(args.folder).rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not files:
        sys.exit(f"{args.folder}: no video files in this folder. Check the path.")
    model = VattForPreTraining.from_pretrained(args.model).to(args.device).eval()
    processor = VattProcessor.from_pretrained(args.model)
    gallery, errors = Gallery.from_files(
        model, processor, tqdm(files, unit="file", desc="Embedding"), args.windows
    )
    failed = 0
    for kind, query in queries:
        try:
            hits = gallery.search(model, processor, **{kind: query}, top_k=args.top_k)
        except MediaError as error:
            print(f"\nCannot use the query {error}", file=sys.stderr)
            failed += 1
            continue
        print(f"\n{kind}: {query}")
        for place, hit in enumerate(hits, start=1):
            print(f"{place:3d}  {hit.score:6.3f}  {hit.name}")
    if errors:
        print(f"\nSkipped {len(errors)} of {len(files)} files that could not be read:")
        for error in errors:
            print(f"  {error}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
