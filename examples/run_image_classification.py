# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune VATT's video tower on labelled images and evaluate it.

    python examples/run_image_classification.py --dataset my_images --model my_model --output_dir out

`my_images` is laid out as for `run_video_classification.py`. `--recipe imagenet` takes the paper's settings.
"""

import classification


def main() -> None:
    classification.main("image", __doc__.splitlines()[0])


if __name__ == "__main__":
    main()
