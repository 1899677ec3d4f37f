# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune VATT on labelled sounds and evaluate it.

    python examples/run_audio_classification.py --dataset my_sounds --model my_model --output_dir out

`my_sounds` holds sound files, or videos for their sound, laid out as for `run_video_classification.py`; clips
may have several labels each, in lists or in strings with a `--label_separator`. `--recipe audioset` takes the
paper's settings.
"""

import classification


def main() -> None:
    classification.main("audio", __doc__.splitlines()[0])


if __name__ == "__main__":
    main()
