# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Time to read a training clip: `read_clip` (PyAV) against torchcodec.

    python benchmarks/bench_decoders.py [--repeats 5] [--seconds 12] [--keep FOLDER]

Generates H.264 + AAC files (a textured scene in motion, x264's usual key frame distance), reads 32 frames at
10 fps and the sound of the same 3.2 s as 48 kHz mono, from the beginning and from places all over the file,
with one decoding thread each, in alternation, and prints the medians as a Markdown table. torchcodec is
optional: `pip install torchcodec` in the version that fits torch, plus the FFmpeg libraries of the system.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

from modeling_vatt.processors.media import read_clip


sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from media_factory import tone, write_media


SIZES = ((480, 360), (1280, 720), (1920, 1080))
FPS, FRAMES, RATE = 10.0, 32, 48_000
DURATION = FRAMES / FPS

Reader = Callable[[str, float, int | None], np.ndarray]


def scene(width: int, height: int, frames: int) -> list[np.ndarray]:
    """A window that wanders over a texture with detail at several scales."""
    rng = np.random.default_rng(0)
    texture = np.zeros((height + 256, width + 256, 3), np.float32)
    for cell in (128, 32, 8, 2):
        rows, columns = (side // cell + 1 for side in texture.shape[:2])
        patch = rng.normal(size=(rows, columns, 3)).astype(np.float32) * cell**0.35
        patch = patch.repeat(cell, axis=0).repeat(cell, axis=1)
        texture += patch[: texture.shape[0], : texture.shape[1]]
    low, high = np.percentile(texture, [1, 99])
    pixels = ((texture - low) / (high - low)).clip(0, 1) * 255
    image = pixels.astype(np.uint8)
    angle = 2 * np.pi * np.arange(frames) / 150
    places = zip(
        (127 + 120 * np.sin(angle)).astype(int), (127 + 120 * np.cos(1.3 * angle)).astype(int), strict=True
    )
    return [np.ascontiguousarray(image[y : y + height, x : x + width]) for x, y in places]


def our_reader(path: str, start: float, size: int | None) -> np.ndarray:
    clip = read_clip(path, start=start, duration=DURATION, fps=FPS, sampling_rate=RATE, size=size)
    assert clip.frames is not None and clip.waveform is not None
    assert len(clip.frames) == FRAMES and len(clip.waveform) == round(DURATION * RATE)
    return clip.timestamps


def torchcodec_reader(seek_mode: str) -> Reader:
    from torchcodec.decoders import AudioDecoder, VideoDecoder
    from torchcodec.transforms import Resize

    def read(path: str, start: float, size: int | None) -> np.ndarray:
        width, height = next(sides for sides in SIZES if f"{sides[1]}p" in path)
        transforms = None
        if size is not None:
            transforms = [Resize((size, round(width * size / height)))]
        decoder = VideoDecoder(
            path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=seek_mode, transforms=transforms
        )
        frames = decoder.get_frames_played_at([start + k / FPS + 1e-4 for k in range(FRAMES)])
        sound = AudioDecoder(path, sample_rate=RATE, num_channels=1)
        samples = sound.get_samples_played_in_range(start, start + DURATION)
        assert len(frames.data) == FRAMES and abs(samples.data.shape[1] - DURATION * RATE) <= 1
        return frames.pts_seconds.numpy()

    return read


def readers() -> dict[str, Reader]:
    found: dict[str, Reader] = {"read_clip": our_reader}
    try:
        found["torchcodec, exact"] = torchcodec_reader("exact")
        found["torchcodec, approximate"] = torchcodec_reader("approximate")
    except (ImportError, RuntimeError, OSError) as error:
        print(f"torchcodec: not installed ({str(error).splitlines()[0]})\n")
    return found


def measure(
    functions: dict[str, Reader], path: str, starts: list[float], size: int | None, repeats: int
) -> list[str]:
    """A cell "CPU ms (wall ms)" for each reader: medians over runs in alternation of the mean clip."""
    wall: dict[str, list[float]] = {name: [] for name in functions}
    busy: dict[str, list[float]] = {name: [] for name in functions}
    chosen = {name: [read(path, start, size) for start in starts] for name, read in functions.items()}
    for name, times in chosen.items():  # also warms up
        if not np.allclose(times, chosen["read_clip"], atol=1e-3):
            print(f"{name} chose other frames of {Path(path).name}")
    for _ in range(repeats):
        for name, read in functions.items():
            before = time.perf_counter(), time.process_time()
            for start in starts:
                read(path, start, size)
            wall[name].append((time.perf_counter() - before[0]) / len(starts))
            busy[name].append((time.process_time() - before[1]) / len(starts))
    return [
        f"{1e3 * statistics.median(busy[n]):.0f} ({1e3 * statistics.median(wall[n]):.0f})" for n in functions
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=12, help="length of the generated files")
    parser.add_argument(
        "--keep", type=Path, help="folder for the generated files, used again if they are there"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    functions = readers()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = []
        for width, height in SIZES:
            path = folder / f"scene_{height}p_{arguments.seconds}s.mp4"
            if not path.exists():
                sound = np.stack([tone(arguments.seconds, RATE), tone(arguments.seconds, RATE, 660.0)])
                frames = scene(width, height, 30 * arguments.seconds)
                write_media(path, frames=frames, fps=30, video_options={"preset": "fast"}, waveform=sound)
            last = arguments.seconds - DURATION - 0.1
            for size in (256, None):
                for label, starts in (("0 s", [0.0]), ("anywhere", np.linspace(0.9, last, 3).tolist())):
                    cells = measure(functions, str(path), starts, size, arguments.repeats)
                    rows.append(
                        [f"{width} x {height}", "as stored" if size is None else str(size), label, *cells]
                    )
    versions = f"PyAV {av.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    if len(functions) > 1:
        import torchcodec

        versions += f", torchcodec {torchcodec.__version__}"
    print(f"{versions}, {platform.machine()}. CPU ms (wall ms) a clip, medians of {arguments.repeats}.\n")
    head = ["stored", "shorter side", "start", *functions]
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
