# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tasks of mteb with a pretrained model: retrieval, classification, clustering of video and sound.

    python examples/run_mteb.py --model my_model --tasks MSRVTTT2V YouCook2T2VRetrieval --output_dir out

Data sets come from the Hub. The output folder gets mteb's own results in `results/`, which a second run
reuses, and the main scores in `results.json`.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from common import check_output_dir, parse
from transformers.hf_argparser import HfArg


@dataclass
class MtebArguments:
    """What to measure, and with what."""

    model: str = HfArg(help="Folder or Hub name of a pretrained model with its processor.")
    tasks: list[str] = HfArg(help="Names of mteb's tasks; docs/evaluate.md lists the paper's.")
    output_dir: str = HfArg(help="Folder for the results.")
    windows: int = HfArg(default=4, help="Windows of a clip, spread uniformly.")
    batch_size: int = HfArg(default=16, help="Clips or texts at a time.")
    device: str = HfArg(default="cpu", help="cpu, cuda, ...")


def main() -> None:
    (args,) = parse(__doc__, MtebArguments)
    try:
        import mteb

        from modeling_vatt.embedding.mteb import model_meta

        check_output_dir(args.output_dir)
        tasks = list(mteb.get_tasks(tasks=args.tasks))
        meta = model_meta(args.model, windows=args.windows)
        model = meta.load_model(device=args.device)
        found = mteb.evaluate(
            model,
            tasks,
            cache=mteb.ResultCache(args.output_dir),
            co2_tracker=False,
            encode_kwargs={"batch_size": args.batch_size},
        )
    except ImportError as error:
        sys.exit(f"{error} Install it: pip install 'modeling_vatt[mteb]'.")
    except (KeyError, OSError, ValueError) as error:
        sys.exit(str(error))
    scores = {result.task_name: result.get_score() for result in found.task_results}
    for name, score in scores.items():
        print(f"{name:40s}{score:8.4f}")
    file = Path(args.output_dir) / "results.json"
    file.write_text(json.dumps({"model": meta.name, "revision": meta.revision, "scores": scores}, indent=2))
    print(f"\nResults: {file}")


if __name__ == "__main__":
    main()
