# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Renders the demo corpus: pictures, sounds and captions of the same simple scenes.

Every clip shows one object on a quiet background for 3-4 seconds. Four attributes describe it, and the sound
and the captions follow from them:

| attribute | values                              | seen as                      | heard as            |
| --------- | ----------------------------------- | ---------------------------- | ------------------- |
| shape     | 6: circle, square, triangle, ...    | outline                      | timbre              |
| colour    | 8: red, orange, yellow, green, ...  | fill                         | step of the scale   |
| size      | 3: small, medium, large             | radius                       | high to low pitch   |
| motion    | 6: bouncing, sliding, circling, ... | path, turning, growing, ...  | rhythm, in time     |

No motion depends on left and right, so captions stay true in a mirrored clip. Phase, tempo, place, tilt,
background, noise, tuning, loudness, frame rate, picture size, codec, channels and sampling rate vary at
random.

The 6 x 8 x 3 x 6 = 864 combinations are divided among the splits: those of validation and test never occur in
training. Some training clips have no sound (no audio stream), others no captions (an empty list).

The result is a folder that `datasets.load_dataset("videofolder", data_dir=OUT)` loads:

    OUT/corpus.json                               settings and attribute lists
    OUT/{train,validation,test}/metadata.jsonl    file_name, captions, shape, colour, size, motion, has_audio
    OUT/{train,validation,test}/clip_00000.mp4    H.264 + AAC; or .webm, VP9 + Opus

    python examples/make_corpus.py --output_dir demo/corpus

The files depend only on the options and the versions of the encoders, not on the number of workers. The same
command takes up an interrupted run.
"""

import itertools
import json
import math
import os
import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm


GENERATOR_VERSION = 1
Combination = tuple[str, str, str, str]  # shape, colour, size, motion
SPLITS = ("train", "validation", "test")
# Each pair of shape and motion goes with 24 pairs of colour and size. So many of them are kept from training:
# 108 and 216 in all.
HELD_OUT = {"validation": 3, "test": 6}

COLOURS = {
    "red": (235, 25, 25),
    "orange": (255, 135, 0),
    "yellow": (250, 235, 20),
    "green": (20, 200, 30),
    "cyan": (0, 225, 235),
    "blue": (35, 60, 255),
    "pink": (250, 30, 200),
    "white": (250, 250, 250),
}
RADII = {"small": 0.11, "medium": 0.175, "large": 0.27}  # in units of the picture's shorter side
# Lowest note of each register in Hz, 20 semitones apart. Even the highest notes have overtones below 8 kHz,
# which audio codecs and models at 16 kHz let through.
ROOTS = {"small": 987.8, "medium": 311.1, "large": 98.0}
SCALE = (0, 2, 4, 7, 9, 12, 14, 16)  # semitones above the root, one per colour: a pentatonic scale
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
PERIODS = {  # seconds per cycle of each motion, varied by a sixth
    "bouncing": 0.70,
    "sliding": 1.60,
    "circling": 1.40,
    "spinning": 1.60,
    "pulsing": 1.10,
    "blinking": 0.80,
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(RADII),
    "motion": tuple(PERIODS),
}

# Notes struck by a motion: when in its cycle (0..1), and how fast they fade (seconds).
STRIKES: dict[str, tuple[tuple[float, ...], float]] = {
    "bouncing": ((0.0,), 0.12),  # one at each landing
    "sliding": ((0.25, 0.37, 0.75, 0.87), 0.07),  # two at each turn
    "circling": ((0.0, 0.5, 0.75), 0.14),  # long, short, short in each round
    "spinning": (tuple(step / 10 for step in range(10)), 0.05),  # a steady rattle
}
ATTACK = 0.004  # seconds


# Synonyms. The verbs carry two endings: third person and participle.
WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "wedge", "pyramid"),
    "star": ("star", "pointed star", "five-pointed star"),
    "ring": ("ring", "hoop", "donut"),
    "cross": ("cross", "plus", "plus sign"),
    "red": ("red", "crimson", "scarlet"),
    "orange": ("orange", "tangerine", "amber"),
    "yellow": ("yellow", "lemon", "golden"),
    "green": ("green", "emerald", "jade"),
    "cyan": ("cyan", "turquoise", "aqua"),
    "blue": ("blue", "cobalt", "sapphire"),
    "pink": ("pink", "magenta", "fuchsia"),
    "white": ("white", "snowy", "ivory"),
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "mid-sized", "middle-sized"),
    "large": ("large", "big", "huge"),
    "bouncing": ("bounc[es/ing] up and down", "jump[s/ing] up and down", "hop[s/ping] on the floor"),
    "sliding": ("slid[es/ing] from side to side", "glid[es/ing] back and forth", "drift[s/ing] to and fro"),
    "circling": ("go[es/ing] round and round", "travel[s/ling] in loops", "orbit[s/ing] the middle"),
    "spinning": ("spin[s/ning] in place", "rotat[es/ing] on the spot", "twirl[s/ing] about itself"),
    "pulsing": (
        "puls[es/ing] in size",
        "grow[s/ing] and shrink[s/ing]",
        "swell[s/ing] and shrink[s/ing] again",
    ),
    "blinking": (
        "blink[s/ing] on and off",
        "flash[es/ing] again and again",
        "appear[s/ing] and vanish[es/ing]",
    ),
}
FULL_SENTENCES = (
    "a {size} {colour} {shape} {does}",
    "a {size} {colour} {shape} {doing}",
    "the {size} {colour} {shape} is {doing}",
    "there is a {size} {colour} {shape} {doing}",
    "a {shape}, {size} and {colour}, {does}",
    "watch the {size} {colour} {shape} {doing}",
    "this {colour} {shape} is {size} and {does}",
    "{doing}: a {size} {colour} {shape}",
    "we see a {colour} and {size} {shape} {doing}",
    "it {does}, the {size} {colour} {shape}",
)
SHORT_SENTENCES = (  # leave one attribute out
    "a {colour} {shape} {does}",
    "the {size} {shape} is {doing}",
    "a {size} {colour} {shape}",
    "something {size} and {colour} {does}",
)
SHORT_SHARE = 0.6  # of the clips have one short sentence among their five


@dataclass(frozen=True)
class ClipSpec:
    """All that is decided about a clip: what it means (the first four fields), how it looks and is stored.

    Lengths are in units of the picture's shorter side, times in seconds, angles in radians.
    """

    shape: str
    colour: str
    size: str
    motion: str
    split: str
    index: int
    seed: int  # of the noise in picture and sound
    has_audio: bool
    webm: bool
    fps: int
    num_frames: int
    width: int
    height: int
    sampling_rate: int
    channels: int
    phase: float  # of the motion at the first frame, in cycles
    period: float
    direction: int  # +1 or -1
    centre: tuple[float, float]  # offset of the path from the middle
    reach: float  # length of the path, relative to the room there is
    radius: float
    tilt: float
    shade_angle: float
    background: tuple[int, int, int]
    gradient: float
    gradient_angle: float
    grain: float
    detune: float  # semitones
    gain: float  # dB
    hiss: float  # dB

    @property
    def file_name(self) -> str:
        return f"clip_{self.index:05d}.{'webm' if self.webm else 'mp4'}"

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps

    @property
    def pitch(self) -> float:
        """Fundamental frequency in Hz."""
        step = SCALE[ATTRIBUTES["colour"].index(self.colour)]
        return ROOTS[self.size] * 2 ** ((step + self.detune) / 12)


def make_spec(
    combination: Combination, split: str, index: int, has_audio: bool, args: "CorpusArguments"
) -> ClipSpec:
    """Draw the random properties of a clip from seed, split and index."""
    rng = np.random.default_rng((args.seed, SPLITS.index(split), index))
    shape, colour, size, motion = combination
    radius = RADII[size] * rng.uniform(0.94, 1.06)
    fps = int(rng.choice((10, 12, 15, 20, 24, 25, 30), p=(0.2, 0.1, 0.2, 0.15, 0.1, 0.15, 0.1)))
    width, height = ((96, 96), (128, 128), (128, 96), (96, 128))[rng.choice(4, p=(0.5, 0.3, 0.1, 0.1))]
    webm = bool(rng.random() < args.webm_fraction)
    play = 0.10 if motion in ("spinning", "pulsing", "blinking") else 0.03
    shade, tints = int(rng.integers(25, 85)), rng.integers(-8, 9, size=3)
    return ClipSpec(
        shape=shape,
        colour=colour,
        size=size,
        motion=motion,
        split=split,
        index=index,
        seed=int(rng.integers(2**31)),
        has_audio=has_audio,
        webm=webm,
        fps=fps,
        num_frames=int(rng.integers(math.ceil(3.2 * fps), 4 * fps + 1)),
        width=width,
        height=height,
        # Opus knows 48 kHz only.
        sampling_rate=48_000 if webm else int(rng.choice((48_000, 44_100), p=(0.75, 0.25))),
        channels=int(rng.integers(1, 3)),
        phase=float(rng.random()),
        period=PERIODS[motion] * float(rng.uniform(5 / 6, 7 / 6)),
        direction=int(rng.choice((-1, 1))),
        centre=(float(rng.uniform(-play, play)), float(rng.uniform(-play, play))),
        reach=float(rng.uniform(0.8, 1.0)),
        radius=float(radius),
        tilt=float(rng.uniform(-0.15, 0.15)),
        shade_angle=float(rng.uniform(0, 2 * math.pi)),
        background=(shade + int(tints[0]), shade + int(tints[1]), shade + int(tints[2])),
        gradient=float(rng.uniform(0, 25)),
        gradient_angle=float(rng.uniform(0, 2 * math.pi)),
        grain=float(rng.uniform(0, 5)),
        detune=float(rng.uniform(-0.15, 0.15)),
        gain=float(rng.uniform(-12, -3)),
        hiss=float(rng.uniform(-70, -45)),
    )


def make_captions(spec: ClipSpec, rng: np.random.Generator) -> list[str]:
    """Five different captions of at most 14 words; one of the last four may leave an attribute out."""
    sentences = list(rng.choice(FULL_SENTENCES, size=5, replace=False))
    if rng.random() < SHORT_SHARE:
        sentences[rng.integers(1, 5)] = rng.choice(SHORT_SENTENCES)
    captions = []
    for sentence in sentences:
        words = {name: str(rng.choice(WORDS[getattr(spec, name)])) for name in ATTRIBUTES}
        motion = words.pop("motion")
        does, doing = (re.sub(r"\[(\w+)/(\w+)\]", ending, motion) for ending in (r"\1", r"\2"))
        caption = sentence.format(does=does, doing=doing, **words).split(" ")
        for place, word in enumerate(caption[:-1]):
            if word == "a" and caption[place + 1][0] in "aeiou":
                caption[place] = "an"
        text = " ".join(caption) + str(rng.choice(("", ".", "!"), p=(0.6, 0.35, 0.05)))
        style = rng.random()
        captions.append(text.upper() if style < 0.03 else text[0].upper() + text[1:] if style < 0.4 else text)
    return captions


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of a shape of radius about 1 (negative inside); y points down."""
    if shape == "circle":
        return np.hypot(x, y) - 0.95
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.78) - 0.22
    x, above = np.abs(x), -y
    if shape == "square":
        return np.maximum(x, np.abs(y)) - 0.82
    if shape == "triangle":
        return np.maximum(0.866 * x + 0.5 * above, -above) - 0.58
    if shape == "cross":
        y = np.abs(y)
        return np.minimum(np.maximum(x - 1.0, y - 0.3), np.maximum(x - 0.3, y - 1.0))
    # Star: folded onto one half of one point, which is bounded by a straight line.
    angle = np.abs((np.arctan2(x, above) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    return np.hypot(x, y) * np.cos(angle - 1.226) - 0.388


def _cycles(spec: ClipSpec, times: np.ndarray) -> np.ndarray:
    """Cycles of the motion gone by at the given times: what picture and sound share."""
    return spec.phase + times / spec.period


def _swell(cycles: np.ndarray) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * math.pi * cycles)


def _lit(cycles: np.ndarray) -> np.ndarray:
    return (cycles % 1 < 0.5).astype(np.float32)


def render_frames(spec: ClipSpec) -> np.ndarray:
    """The picture, uint8 (num_frames, height, width, 3)."""
    rng = np.random.default_rng((spec.seed, 0))
    side = min(spec.width, spec.height)
    cycles = _cycles(spec, np.arange(spec.num_frames) / spec.fps)
    turns = 2 * math.pi * cycles * spec.direction
    still = (*spec.centre, spec.tilt, spec.radius, 1.0)
    x, y, angle, radius, light = (np.full_like(cycles, value) for value in still)
    room = spec.reach * (0.44 - spec.radius)  # from the middle to the farthest place of the object
    if spec.motion == "bouncing":
        beat = cycles % 1
        y = room * (1 - 8 * beat * (1 - beat))  # parabolas; lands where cycles is whole
    elif spec.motion == "sliding":
        x = room * np.sin(turns)
    elif spec.motion == "circling":
        x, y = x + room * np.sin(turns), y - room * np.cos(turns)
    elif spec.motion == "spinning":
        angle = angle + turns
    elif spec.motion == "pulsing":
        radius = radius * (0.7 + 0.6 * _swell(cycles))
    elif spec.motion == "blinking":
        light = _lit(cycles)

    columns = (np.arange(spec.width) + 0.5 - spec.width / 2) / side
    rows = (np.arange(spec.height) + 0.5 - spec.height / 2) / side
    slope = math.cos(spec.gradient_angle) * columns + math.sin(spec.gradient_angle) * rows[:, None]
    grain = rng.normal(0, spec.grain, size=(spec.height, spec.width, 1))
    background = np.array(spec.background) + (2 * spec.gradient * slope)[..., None] + grain
    frames = np.repeat(background.clip(0, 255).astype(np.uint8)[None], spec.num_frames, axis=0)

    # Only the window around the object is computed: `half` pixels to each side of its centre.
    half = math.ceil(1.2 * radius.max() * side) + 1
    left = np.clip(np.rint(x * side + spec.width / 2).astype(int) - half, 0, spec.width - 2 * half)
    top = np.clip(np.rint(y * side + spec.height / 2).astype(int) - half, 0, spec.height - 2 * half)
    pixels = np.arange(2 * half) + 0.5
    right = np.float32((left[:, None] + pixels - spec.width / 2) / side - x[:, None])[:, None, :]
    below = np.float32((top[:, None] + pixels - spec.height / 2) / side - y[:, None])[:, :, None]
    cos, sin = (np.float32(f(angle) / radius)[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * right + sin * below, cos * below - sin * right  # in the frame of the object
    soft = np.float32(radius * side)[:, None, None]  # pixels per unit of the shape
    cover = (0.5 - soft * _distance(spec.shape, u, v)).clip(0, 1) * np.float32(light)[:, None, None]
    # One half is darker, which makes turning visible even for a circle.
    border = math.cos(spec.shade_angle) * u + math.sin(spec.shade_angle) * v
    shading = 0.84 + 0.16 * (soft * border).clip(-1, 1)
    colour = np.array(COLOURS[spec.colour], dtype=np.float32)
    for frame, mask, shade, i, j in zip(frames, cover, shading, top, left, strict=True):
        patch = frame[i : i + 2 * half, j : j + 2 * half]
        patch[:] = patch + mask[..., None] * (shade[..., None] * colour - patch)
    return frames


def _timbre(spec: ClipSpec, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A lasting tone of the clip's pitch, coloured by the shape; root mean square 1."""
    turns = 2 * math.pi * spec.pitch * times
    highest = 0.4 * spec.sampling_rate  # no partial above it, against aliasing
    if spec.shape == "star":  # frequency modulation: a dense, clangorous spectrum
        tone = np.sin(turns + 1.5 * np.sin(0.41 * turns))
    elif spec.shape == "cross":  # breath: a tone in a wide band of noise
        points = np.arange(0, times[-1] + 1, 1 / spec.pitch)
        slow = [np.interp(times, points, rng.standard_normal(len(points))) for _ in range(2)]
        tone = (slow[0] + 0.5) * np.sin(turns) + slow[1] * np.cos(turns)
    else:
        partials = {
            "circle": ((1, 1.0),),  # pure
            "square": tuple((n, n**-0.5) for n in range(1, 14, 2)),  # hollow: odd partials
            "triangle": tuple((n, n**-0.4) for n in range(1, 13)),  # buzzing: all partials
            "ring": ((1, 1.0), (1.5, 0.9), (2.25, 0.8), (3.375, 0.7), (5.06, 0.6)),  # a chime of fifths
        }[spec.shape]
        waves = [a * np.sin(n * turns + rng.uniform(0, 6)) for n, a in partials if n * spec.pitch < highest]
        tone = np.sum(waves, axis=0)
    return tone / np.sqrt(np.mean(tone**2))


def _envelope(spec: ClipSpec, times: np.ndarray) -> np.ndarray:
    """Loudness over time, 0..1: the rhythm of the motion."""
    cycles = _cycles(spec, times)
    if spec.motion == "pulsing":
        return _swell(cycles) ** 2
    if spec.motion == "blinking":  # with edges of a few milliseconds instead of clicks
        width = max(1, round(ATTACK * spec.sampling_rate))
        return np.convolve(_lit(cycles), np.full(width, 1 / width), mode="same")
    strikes, fade = STRIKES[spec.motion]
    beat = cycles % 1
    since = np.min([(beat - strike) % 1 for strike in strikes], axis=0) * spec.period
    return np.minimum(since / ATTACK, 1) * np.exp(-since / fade)


def render_waveform(spec: ClipSpec) -> np.ndarray:
    """The sound, float32 (samples,) in [-1, 1]; what `has_audio` says is not looked at."""
    rng = np.random.default_rng((spec.seed, 1))
    times = np.arange(round(spec.seconds * spec.sampling_rate)) / spec.sampling_rate
    note = _timbre(spec, times, rng) * _envelope(spec, times)
    loudest = np.abs(note).max()
    hiss = 10 ** (spec.hiss / 20) * rng.standard_normal(len(times))
    return np.float32(10 ** (spec.gain / 20) * note / loudest + hiss).clip(-1, 1)


def render_clip(spec: ClipSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Frames uint8 (num_frames, height, width, 3); waveform float32 (samples,), None for a mute clip."""
    return render_frames(spec), render_waveform(spec) if spec.has_audio else None


def write_clip(spec: ClipSpec, folder: Path) -> None:
    """Renders and encodes a clip; the file appears under its name when it is complete."""
    frames, waveform = render_clip(spec)
    path = folder / spec.split / spec.file_name
    unfinished = path.with_name(path.name + ".tmp")
    # Without "bitexact" the containers carry dates, versions and random identifiers.
    container = "webm" if spec.webm else "mp4"
    with av.open(str(unfinished), "w", format=container, options={"fflags": "bitexact"}) as file:
        if spec.webm:
            codec, options = "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "34", "b": "0"}
        else:
            # With mbtree, small pictures are not encoded alike each time, even in one thread.
            codec, options = "libx264", {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
        picture = file.add_stream(codec, rate=spec.fps, options=options | {"g": str(2 * spec.fps)})
        picture.width, picture.height, picture.pix_fmt = spec.width, spec.height, "yuv420p"
        picture.thread_count = 1
        streams = [picture]
        if waveform is not None:
            layout = "stereo" if spec.channels == 2 else "mono"
            codec, options = ("libopus", {}) if spec.webm else ("aac", {"aac_coder": "fast"})
            sound = file.add_stream(codec, rate=spec.sampling_rate, layout=layout, options=options)
            sound.bit_rate = 64_000 * spec.channels
            streams.append(sound)
        for stream in streams:
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if waveform is not None:
            samples = np.repeat(waveform[None], spec.channels, axis=0)
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            heard.sample_rate = spec.sampling_rate
            heard.pts, heard.time_base = 0, Fraction(1, spec.sampling_rate)
            file.mux(sound.encode(heard))
            file.mux(sound.encode(None))
        for number, image in enumerate(frames):
            seen = av.VideoFrame.from_ndarray(image, format="rgb24")
            seen.pts, seen.time_base = number, Fraction(1, spec.fps)
            file.mux(picture.encode(seen))
        file.mux(picture.encode(None))
    os.replace(unfinished, path)


@dataclass
class CorpusArguments:
    """What to render, and where."""

    output_dir: str = field(metadata={"help": "Folder to make; refused if it holds anything else."})
    seed: int = field(default=0, metadata={"help": "Decides everything that is drawn."})
    train_clips: int = field(default=1000, metadata={"help": "Clips to train on."})
    validation_clips: int = field(default=108, metadata={"help": "Clips to validate on; up to 108 differ."})
    test_clips: int = field(default=216, metadata={"help": "Clips to test on; up to 216 differ."})
    silent_fraction: float = field(default=0.08, metadata={"help": "Training clips without sound, 0 to 1."})
    uncaptioned_fraction: float = field(default=0.08, metadata={"help": "And without captions."})
    webm_fraction: float = field(default=0.1, metadata={"help": "Clips as VP9 + Opus, not H.264 + AAC."})
    num_workers: int = field(default=0, metadata={"help": "Processes; 0: one for each processor core."})

    def __post_init__(self) -> None:
        for name in ("silent_fraction", "uncaptioned_fraction", "webm_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; give a number from 0 to 1.")
        if self.silent_fraction + self.uncaptioned_fraction > 1:
            raise ValueError("--silent_fraction and --uncaptioned_fraction are more than 1 together.")
        if min(self.train_clips, self.validation_clips, self.test_clips) < 1:
            raise ValueError("Every split needs at least one clip.")


def plan_corpus(args: CorpusArguments) -> dict[str, list[tuple[ClipSpec, list[str]]]]:
    """For each split its clips and their captions."""
    rng = np.random.default_rng((args.seed, len(SPLITS)))
    pools: dict[str, list[Combination]] = {split: [] for split in SPLITS}
    for shape, motion in itertools.product(ATTRIBUTES["shape"], ATTRIBUTES["motion"]):
        group = list(itertools.product((shape,), ATTRIBUTES["colour"], ATTRIBUTES["size"], (motion,)))
        owners = [split for split, count in HELD_OUT.items() for _ in range(count)]
        places: list[int] = rng.permutation(len(group)).tolist()
        for owner, place in itertools.zip_longest(owners, places, fillvalue="train"):
            pools[owner].append(group[place])
    plan: dict[str, list[tuple[ClipSpec, list[str]]]] = {}
    for split in SPLITS:
        count = getattr(args, f"{split}_clips")
        pool = [pools[split][k] for k in rng.permutation(len(pools[split]))]
        order = rng.permutation(count)
        silent = round(args.silent_fraction * count) if split == "train" else 0
        uncaptioned = round(args.uncaptioned_fraction * count) if split == "train" else 0
        plan[split] = []
        for index, place in enumerate(order):
            spec = make_spec(pool[index % len(pool)], split, index, bool(place >= silent), args)
            captions = make_captions(spec, np.random.default_rng((spec.seed, 2)))
            # Clips without captions are taken from those with sound: each clip keeps a pair to learn from.
            plan[split].append((spec, [] if silent <= place < silent + uncaptioned else captions))
    return plan


def describe_corpus(args: CorpusArguments) -> dict[str, Any]:
    """What `corpus.json` says; two corpora with the same description are the same."""
    names = [f.name for f in fields(args) if f.name not in ("output_dir", "num_workers")]
    settings = {name: getattr(args, name) for name in names}
    attributes = {name: list(values) for name, values in ATTRIBUTES.items()}
    return {"generator_version": GENERATOR_VERSION, "settings": settings, "attributes": attributes}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def make_corpus(args: CorpusArguments) -> bool:
    """Makes the corpus, or takes up an interrupted run.

    Returns:
        False if the corpus was there already.

    Raises:
        FileExistsError: `output_dir` holds something else.
    """
    output = Path(args.output_dir).resolve()
    description = describe_corpus(args)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} is a file. Choose another --output_dir.")
    if output.exists() and any(output.iterdir()):
        if _read_json(output / "corpus.json") == description:
            return False
        raise FileExistsError(
            f"{output} is not empty and holds no corpus with these settings. "
            "Choose another --output_dir, or remove this one."
        )
    # All is made beside the folder, which so comes into being complete.
    partial = output.with_name(f".{output.name}.partial")
    begun = _read_json(partial / "corpus.json")
    if begun is not None and begun != description:
        shutil.rmtree(partial)
    for split in SPLITS:
        (partial / split).mkdir(parents=True, exist_ok=True)
    (partial / "corpus.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    plan = plan_corpus(args)
    clips = [clip for split in SPLITS for clip in plan[split]]
    missing = [spec for spec, _ in clips if not (partial / spec.split / spec.file_name).exists()]
    with (
        ProcessPoolExecutor(args.num_workers or os.cpu_count()) as pool,
        tqdm(desc=output.name, total=len(clips), initial=len(clips) - len(missing), unit="clip") as bar,
    ):
        for _ in pool.map(write_clip, missing, itertools.repeat(partial), chunksize=4):
            bar.update()
    for split in SPLITS:
        with open(partial / split / "metadata.jsonl", "w", encoding="utf-8") as file:
            for spec, captions in plan[split]:
                row = {"file_name": spec.file_name, "captions": captions}
                row |= {name: getattr(spec, name) for name in ATTRIBUTES} | {"has_audio": spec.has_audio}
                file.write(json.dumps(row) + "\n")
    os.replace(partial, output)
    return True


def main() -> None:
    # Imported here because each worker process imports this file again where processes are spawned.
    from transformers import HfArgumentParser

    parser = HfArgumentParser(CorpusArguments, description=__doc__.splitlines()[0])
    try:
        (args,) = parser.parse_args_into_dataclasses()
    except ValueError as error:
        parser.error(str(error))
    try:
        made = make_corpus(args)
    except FileExistsError as error:
        sys.exit(str(error))
    size = sum(path.stat().st_size for path in Path(args.output_dir).rglob("clip_*")) / 1e6
    print(f"{args.output_dir}: {'made' if made else 'was there already, complete'}; {size:.1f} MB of clips.")


if __name__ == "__main__":
    main()
