# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Zero-shot retrieval: find videos by their captions and by their sound, without any training on the set.

    python examples/run_zero_shot_retrieval.py --model my_model --dataset YouCook2 --layout youcook2 \\
        --output_dir out

Every clip is embedded as four windows, averaged as embeddings and as similarities. The output folder gets
`results.json` and the embeddings, with which a second run is quick.
"""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Literal

import datasets
from common import held_out, parse
from frozen_model import ModelArguments, embed, load, report_skipped, write_results
from transformers.hf_argparser import HfArg

from modeling_vatt.data import all_captions, load_clips, load_msrvtt, load_youcook2
from modeling_vatt.evaluation import zero_shot_retrieval
from modeling_vatt.processors import VattProcessor
from modeling_vatt.retrieval import embed_texts
from modeling_vatt.training import table_fingerprint


SPLITS = {"msrvtt": "test", "youcook2": "validation"}


@dataclass
class RetrievalArguments:
    """What to search."""

    dataset: str = HfArg(help="Folder, or name of a dataset (layout `folder`).")
    layout: Literal["folder", "msrvtt", "youcook2"] = HfArg(
        default="folder", help="How the folder is laid out; see docs/evaluate.md."
    )
    annotations: str | None = HfArg(
        default=None, help="File of the captions; found in the folder by its official name."
    )
    split: str | None = HfArg(
        default=None, help="If left out: `test`, or else `validation`; YouCook2: `validation`."
    )
    captions: Literal["all", "first"] = HfArg(default="all", help="Which captions of a clip ask for it.")
    windows: int = HfArg(default=4, help="Windows of a clip, spread uniformly.")
    sound: bool = HfArg(default=True, help="Search by sound too.")
    max_clips: int | None = HfArg(default=None, help="Only the first so many.")


def load_table(args: RetrievalArguments) -> datasets.Dataset:
    """Clips with `video`, `captions` or `sentences` and, inside long videos, `start` and `end`."""
    args.split = args.split or SPLITS.get(args.layout)
    if args.layout == "msrvtt":
        table = load_msrvtt(args.dataset, args.annotations, args.split)
    elif args.layout == "youcook2":
        table = load_youcook2(args.dataset, args.annotations, args.split)
    else:
        args.split, table = held_out(lambda split: load_clips(args.dataset, split), args.split)
    return table if args.max_clips is None else table.select(range(min(args.max_clips, len(table))))


def with_words(processor: VattProcessor, captions: list[list[str]]) -> list[list[str]]:
    """The captions of each clip in which the tokenizer finds words: the others are one and the same text."""
    texts = [caption for clip in captions for caption in clip]
    known = iter(processor(text=texts)["text_mask"].tolist() if texts else ())
    found = [[caption for caption in clip if next(known)] for clip in captions]
    if left_out := len(texts) - sum(map(len, found)):
        print(f"{left_out} captions have no words: they ask for nothing")
    return found


def print_table(metrics: dict[str, float]) -> None:
    """Retrieval next to chance."""
    clips = int(metrics["gallery_size"])
    print(
        f"\n{'windows averaged as':32s}{'queries':>8s}{'R@1':>8s}{'R@5':>8s}{'R@10':>8s}{'median rank':>14s}"
    )
    for title, query in (("text -> video", "txt2vid"), ("sound -> video", "audio2vid")):
        for average, short in (("embeddings", "embd"), ("similarities", "cosine")):
            prefix = f"{query}_{short}_"
            if f"{prefix}R1" not in metrics:
                continue
            recalls = "".join(f"{100 * metrics[f'{prefix}R{k}']:7.1f}%" for k in (1, 5, 10))
            row = f"{title + ', ' + average:32s}{metrics[f'{query}_queries']:8d}{recalls}"
            print(f"{row}{metrics[f'{prefix}MedianRank']:14.1f}")
    chance = "".join(f"{100 * min(1, k / clips):7.1f}%" for k in (1, 5, 10))
    print(f"{'chance':40s}{chance}{(clips + 1) / 2:14.1f}")


def main() -> None:
    args, model_args = parse(__doc__, RetrievalArguments, ModelArguments)
    try:
        table = load_table(args)
        model, processor = load(model_args)
        found = embed(
            model_args,
            model,
            processor,
            table,
            "video",
            "Embedding",
            modalities=("video", "audio") if args.sound else ("video",),
            windows=args.windows,
        )
        captions_of = with_words(processor, list(all_captions(table)))
        asked = [captions_of[int(index)] for index in found.kept]
        if args.captions == "first":
            asked = [captions[:1] for captions in asked]
        texts = [caption for captions in asked for caption in captions]
        targets = [clip for clip, captions in enumerate(asked) for _ in captions]
        queries = embed_texts(model, processor, texts) if texts else None
        metrics = zero_shot_retrieval(found.arrays, queries, targets)
    except (OSError, ValueError) as error:
        sys.exit(str(error))

    print(f"{len(found.kept)} clips in the gallery, {args.windows} windows each")
    print_table(metrics)
    skipped = [str(error) for error in found.errors]
    report_skipped(skipped, len(table))
    if skipped:
        print("They are not in the gallery, and nothing asks for them: compare with care.")
    known = ("video", "captions", "sentences", "start", "end")
    write_results(
        model_args,
        {
            "metrics": metrics,
            "clips": len(table),
            "skipped": skipped,
            "settings": {**dataclasses.asdict(args), **dataclasses.asdict(model_args)},
        },
        "zero-shot retrieval",
        model,
        table_fingerprint(table, *(name for name in known if name in table.column_names)),
    )


if __name__ == "__main__":
    main()
