# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune VATT on labelled videos and evaluate it.

    python examples/run_video_classification.py --dataset my_videos --model my_model --output_dir out

`my_videos` holds a folder for each split, with a folder for each class, or videos and a `metadata.csv` or
`metadata.jsonl` with `file_name` and `label`; or it is the name of a dataset. `--recipe kinetics400` takes
the paper's settings. The same command continues a stopped run. The output folder gets model, processor, model
card, `results.json`, `per_class.csv` and `confusion.png`.
"""

import classification


def main() -> None:
    classification.main("video", __doc__.splitlines()[0])


if __name__ == "__main__":
    main()
