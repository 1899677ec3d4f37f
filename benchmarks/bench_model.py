# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Speed of the encoders against transformers' of equal shape and against the machine's matrix products.

    python benchmarks/bench_model.py [--sections base medium audio] [--dtypes float32] [--dropouts 0]

The models are run in turns in one process. Times are medians; a ratio is the median of the ratios of
neighbouring runs, which a load on the machine disturbs less. Sections:

- `limits`: rates of the matrix products of a Base block through `torch.mm` and, on the CPU, oneDNN;
- `base`, `medium`, `audio`: forward and training step (forward and backward) of the Base and Medium video
  encoder against VideoMAE and of the Base audio encoder against ViT, both with SDPA, with as many tokens;
  on the CPU also of ours without its fast paths;
- `droptoken`: training step of the Base video encoder against the kept share of its tokens;
- `tokens`: training step of the Base video encoder against the length of the clip;
- `packed`: query, key and value of a Base block from one matrix, packed once and for all, against three;
- `compile`: forward and training step of the Base video encoder through `torch.compile` against eager;
- `optimizer`: a step of AdamW on the Base video encoder, fused against PyTorch's default;
- `kinds`: a whole pretraining step of the Base model, as `utilisation` has it but with its gradient's norm
  limited, uncompiled on the CPU: operators by kind, as shares of their time (the clock's, of this thread;
  other work on the machine slows all down alike), and the largest of each kind;
- `utilisation`: whole pretraining steps of `--presets` under bf16 autocast with fused AdamW, five texts a
  clip and `--dropouts` (`--frames 32` for the paper's size), uncompiled and as `--compile` says; on CUDA
  with the largest batch that fits, doubling from `--batch`: the share of the bf16 product rate. Counted are
  the products of the encoders, not those of patches, words and heads.

Without `--sections`: limits, base, droptoken and optimizer, a few minutes on two cores.
"""

import argparse
import platform
import resource
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import transformers
from bench_training import TEXTS, random_part
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import VideoMAEConfig, VideoMAEModel, ViTConfig, ViTModel

from modeling_vatt import VattConfig, VattForPreTraining, VattModel
from modeling_vatt.fast_cpu import VattLinear, fast_cpu, set_fast_cpu
from modeling_vatt.models.encoder import VattEncoderLayer


Runs = dict[str, Callable[[], Any]]
# Operators of PyTorch by kind: parts of their names, the first kind that has one. What has none is the last.
KINDS = {
    "products": ("mm", "_linear_pointwise", "convolution"),
    "attention": ("scaled_dot_product", "softmax"),
    "contrastive loss": ("losses_",),
    "optimizer": ("adam",),
    "norm of the gradient, clipping": ("_foreach_norm", "linalg_vector_norm", "_foreach_mul", "clip"),
    "layer norms": ("layer_norm",),
    "activations": ("gelu", "relu"),
    "dropout": ("dropout", "bernoulli", "random_"),
    "copies, conversions, gathers": ("copy", "cat", "index", "clone", "embedding", "fill", "zero", "empty"),
    "sums (gradients of biases, means)": ("sum", "mean"),
    "additions, multiplications": ("add", "mul", "div", "sub"),
    "rest": ("",),
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "position_dropout_prob")


class Bench:
    """Settings of all sections, timing and printing."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.options = arguments
        self.device = torch.device(arguments.device)
        torch.manual_seed(0)

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.options.cpu_time else time.perf_counter()

    def time(self, runs: Runs, repeats: int = 0) -> dict[str, list[float]]:
        """Seconds of each, in turns, after a turn to warm up."""
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range((repeats or self.options.repeats) + 1):
            for name, run in runs.items():
                start = self.clock()
                run()
                if turn:
                    times[name].append(self.clock() - start)
        return times

    def compare(self, label: str, runs: Runs, flops: float, rate: float) -> list[list[str]]:
        """Rows of a table; ratios are against the last run, `rate` is the machine's in FLOP/s."""
        times = self.time(runs)
        last = list(times.values())[-1]
        rows = []
        for name, seconds in times.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, last, strict=True))
            middle = statistics.median(seconds)
            share = f"{flops / middle / rate:.2f}" if flops else ""
            rows.append([label, name, f"{1e3 * middle:.0f}", f"{ratio:.2f}", share])
        return rows

    def context(self, dtype: str) -> AbstractContextManager:
        if dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, dtype))

    def best_rate(self, dtype: str) -> float:
        """FLOP/s of the fastest way to the last of the products."""
        return max(rate for _, rate in self.product_rates(dtype)[-1][1])

    def product_rates(self, dtype: str) -> list[tuple[str, list[tuple[str, float]]]]:
        """Of products as in a Base block; on a GPU as in large batches and, last, of a large square one."""
        shapes = ((784, 768, 768), (784, 768, 3072))
        if self.device.type == "cuda":
            shapes = ((25_088, 768, 3072), (25_088, 1024, 4096), (8192, 8192, 8192))
        rates = []
        for rows, inner, wide in shapes:
            left = torch.randn(rows, inner, device=self.device, dtype=getattr(torch, dtype))
            right = torch.randn(wide, inner, device=self.device, dtype=getattr(torch, dtype))
            runs: Runs = {"torch.mm": partial(torch.mm, left, right.t())}
            if self.device.type == "cpu" and onednn_has(dtype):
                product = partial(torch.ops.mkldnn._linear_pointwise, left, right)
                runs["oneDNN"] = partial(product, None, "none", [], "")
            times = self.time(runs, max(10, self.options.repeats))
            work = 2 * rows * inner * wide
            found = [(name, work / statistics.median(seconds)) for name, seconds in times.items()]
            rates.append((f"{rows} x {inner} -> {wide}", found))
        return rates

    # --- sections ------------------------------------------------------------------------------------------

    def limits(self) -> None:
        rows = []
        for dtype in self.options.dtypes:
            for shape, rates in self.product_rates(dtype):
                rows += [[dtype, shape, name, f"{rate / 1e9:.0f}"] for name, rate in rates]
        show(["type", "product", "through", "GFLOP/s"], rows)

    def our_tower(self, section: str, dropout: float = 0.0, keep: float = 1.0) -> nn.Module:
        config = VattConfig.from_preset("mbs" if section == "medium" else "bbs")
        modality = "audio" if section == "audio" else "video"
        tower = getattr(config, f"{modality}_config")
        tower.update({**dict.fromkeys(DROPOUTS, dropout), "drop_token_rate": 1 - keep})
        if self.options.layers:
            tower.num_hidden_layers = self.options.layers
        return VattModel(config).get_submodule(f"{modality}_model").to(self.device)

    def their_encoder(self, ours: Any, dropout: float) -> nn.Module:
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        shape = {name: getattr(ours, name) for name in names}
        shape |= dict.fromkeys(DROPOUTS[:2], dropout)
        if hasattr(ours, "num_samples"):  # as many patches, in one row
            config = ViTConfig(image_size=(16, 16 * self.audio_tokens(ours)), patch_size=16, **shape)
            config._attn_implementation = "sdpa"
            return ViTModel(config, add_pooling_layer=False).to(self.device)
        frames, tubelet = self.options.frames, ours.tubelet_size
        config = VideoMAEConfig(num_frames=frames, tubelet_size=tubelet, image_size=224, **shape)
        config._attn_implementation = "sdpa"
        return VideoMAEModel(config).to(self.device)

    def audio_tokens(self, tower: Any) -> int:
        return self.options.samples // tower.patch_size

    def inputs(self, tower: Any, frames: int = 0) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Ours, theirs, and the tokens."""
        frames = frames or self.options.frames
        batch = self.options.batch
        if hasattr(tower, "num_samples"):
            tokens = self.audio_tokens(tower)
            ours, theirs = torch.randn(batch, self.options.samples), torch.randn(batch, 3, 16, 16 * tokens)
            return ours.to(self.device), theirs.to(self.device), tokens
        video = torch.randn(batch, frames, 3, 224, 224, device=self.device)
        return video, video, frames // tower.tubelet_size * 14 * 14

    def forward(self, model: nn.Module, values: torch.Tensor, dtype: str) -> Callable[[], Any]:
        def run() -> None:
            model.eval()
            with torch.no_grad(), self.context(dtype):
                model(values)

        return run

    def step(self, model: nn.Module, values: torch.Tensor, dtype: str) -> Callable[[], Any]:
        def run() -> None:
            model.train()
            with self.context(dtype):
                loss = model(values).last_hidden_state.float().square().mean()
            loss.backward()
            model.zero_grad()

        return run

    def tower(self, section: str) -> None:
        """Forward and step against transformers'."""
        rows = []
        for dtype in self.options.dtypes:
            rate = self.best_rate(dtype)
            for dropout in self.options.dropouts:
                ours = self.our_tower(section, dropout)
                theirs = self.their_encoder(ours.config, dropout)
                our_input, their_input, tokens = self.inputs(ours.config)
                flops = self.options.batch * encoder_flops(ours.config, tokens)
                for kind, run, passes in (("forward", self.forward, 1), ("step", self.step, 3)):
                    if kind == "forward" and dropout != self.options.dropouts[0]:
                        continue  # has none
                    runs = {"ours": run(ours, our_input, dtype)}
                    differs = "products" in fast_cpu() or (dropout and passes > 1 and fast_cpu())
                    if differs and self.device.type == "cpu":
                        runs["ours, VATT_FAST_CPU=0"] = slowly(runs["ours"])
                    runs[type(theirs).__name__] = run(theirs, their_input, dtype)
                    label = f"{section}, {dtype}, {kind}" + (f", dropout {dropout}" if passes > 1 else "")
                    rows += self.compare(label, runs, passes * flops, rate)
        show(["encoder", "model", "ms", "against the last", "of the best product rate"], rows)

    def base(self) -> None:
        self.tower("base")

    def medium(self) -> None:
        self.tower("medium")

    def audio(self) -> None:
        self.tower("audio")

    def droptoken(self) -> None:
        for dtype in self.options.dtypes:
            runs = {}
            for keep in (0.25, 0.5, 0.75, 1.0):
                model = self.our_tower("base", self.options.dropouts[-1], keep)
                runs[f"{keep:.0%} kept"] = self.step(model, self.inputs(model.config)[0], dtype)
            rows = self.compare(f"base, {dtype}, step", runs, 0, 1)
            show(["encoder", "tokens", "ms", "against all tokens"], [row[:4] for row in rows])

    def tokens(self) -> None:
        for dtype in self.options.dtypes:
            model, runs = self.our_tower("base", self.options.dropouts[-1]), {}
            for part in (4, 2, 1):
                values, _, tokens = self.inputs(model.config, self.options.frames // part)
                runs[str(tokens)] = self.step(model, values, dtype)
            rows = self.compare(f"base, {dtype}, step", runs, 0, 1)
            show(["encoder", "tokens", "ms", "against the last"], [row[:4] for row in rows])

    def packed(self) -> None:
        rows = []
        for dtype in self.options.dtypes:
            inputs = torch.randn(self.options.batch, 784, 768, device=self.device, requires_grad=True)
            one = VattLinear(768, 3 * 768).to(self.device)
            three = nn.ModuleList(VattLinear(768, 768) for _ in range(3)).to(self.device)

            def forward(layers: list[nn.Module], inputs: Any = inputs, dtype: str = dtype) -> list[Any]:
                with self.context(dtype):
                    return [layer(inputs) for layer in layers]

            def step(layers: list[nn.Module], forward: Any = forward) -> None:
                torch.autograd.backward([out.float().sum() for out in forward(layers)])

            for kind, run in (("forward", forward), ("step", step)):
                runs = {"one matrix": partial(run, [one]), "three": partial(run, list(three))}
                rows += self.compare(f"projections, {dtype}, {kind}", runs, 0, 1)
        show(["layer", "how", "ms", "against three"], [row[:4] for row in rows])

    def compile(self) -> None:
        rows = []
        for dtype in self.options.dtypes:
            eager = self.our_tower("base", self.options.dropouts[-1])
            compiled = torch.compile(eager, dynamic=False)
            values = self.inputs(eager.config)[0]
            for kind, run in (("forward", self.forward), ("step", self.step)):
                runs = {"compiled": run(compiled, values, dtype), "eager": run(eager, values, dtype)}
                rows += self.compare(f"base, {dtype}, {kind}", runs, 0, 1)
        show(["encoder", "how", "ms", "against eager"], [row[:4] for row in rows])

    def optimizer(self) -> None:
        runs = {}
        for name, fused in (("fused", True), ("default", None)):
            model = self.our_tower("base")
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter) * 1e-3
            runs[name] = torch.optim.AdamW(model.parameters(), fused=fused).step
        rows = self.compare("base, AdamW", runs, 0, 1)
        show(["encoder", "optimizer", "ms", "against the default"], [row[:4] for row in rows])

    def kinds(self) -> None:
        config = self.sized("bbs", self.options.dropouts[0])
        shares: dict[str, dict[str, str]] = defaultdict(dict)
        for dtype in self.options.dtypes:
            step = self.pretraining_step(config, self.options.batch, "no", dtype, max_norm=1.0)
            step()
            with profile(activities=[ProfilerActivity.CPU]) as found:
                for _ in range(self.options.repeats):
                    step()
            times: dict[str, Counter[str]] = defaultdict(Counter)
            for event in found.key_averages():
                times[kind_of(event.key)][event.key] += event.self_cpu_time_total
            total = sum(part.total() for part in times.values())
            for kind, part in times.items():
                names = [name for name, taken in part.most_common(3) if taken > total / 500]
                largest = ", ".join(f"{name.split(':')[-1]} {100 * part[name] / total:.1f}" for name in names)
                shares[kind][dtype] = f"{100 * part.total() / total:.1f}" + (f" ({largest})" if names else "")
        rows = [[kind, *(shares[kind].get(dtype, "") for dtype in self.options.dtypes)] for kind in KINDS]
        show(["kind", *(f"{dtype}, % of the time" for dtype in self.options.dtypes)], rows)

    def sized(self, preset: str, dropout: float) -> VattConfig:
        """Config of a whole model for inputs of the size that is asked for."""
        config = VattConfig.from_preset(preset)
        config.video_config.num_frames = self.options.frames
        config.audio_config.num_samples = self.options.samples
        for tower in (config.video_config, config.audio_config, config.text_config):
            tower.update(dict.fromkeys(DROPOUTS, dropout))
            if self.options.layers:
                tower.num_hidden_layers = self.options.layers
        return config

    def utilisation(self) -> None:
        rate = self.best_rate("bfloat16")
        rows = []
        for preset in self.options.presets:
            for dropout in self.options.dropouts:
                config = self.sized(preset, dropout)
                batch = self.largest_batch(config)
                work = 3 * batch * pretraining_flops(config)
                for how in dict.fromkeys(("no", self.options.compile)):
                    if self.device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats()
                    times = self.time({"step": self.pretraining_step(config, batch, how)})["step"]
                    seconds = statistics.median(times)
                    row = [preset, str(dropout), how, str(batch), f"{1e3 * seconds:.0f}"]
                    row += [f"{batch / seconds:.1f}", f"{work / seconds / 1e12:.3g}"]
                    rows.append([*row, f"{work / seconds / rate:.3f}", f"{self.peak():.1f}"])
        head = ["model", "dropout", "compiled", "batch", "ms", "clips/s", "TFLOP/s"]
        show([*head, "of the bf16 product rate", "peak, GB"], rows)

    def largest_batch(self, config: VattConfig) -> int:
        """That fits into a GPU's memory, among doublings of the one asked for."""
        batch = self.options.batch
        if self.device.type != "cuda":
            return batch
        while True:
            try:
                self.pretraining_step(config, 2 * batch, "no")()
            except torch.OutOfMemoryError:
                break
            batch *= 2
        torch.cuda.empty_cache()
        return batch

    def pretraining_step(
        self, config: VattConfig, batch: int, how: str, dtype: str = "bfloat16", max_norm: float = 0
    ) -> Callable[[], Any]:
        """Of a new model; `how` it is compiled: not, block by block, or as a whole."""
        with self.device:
            model = VattForPreTraining(config).train()
        if how == "model":
            model.compile(dynamic=False)
        for module in model.modules() if how == "blocks" else ():
            if isinstance(module, VattEncoderLayer):
                module.compile(dynamic=False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        inputs = random_part(config, batch, self.device)

        def run() -> None:
            with self.context(dtype):
                loss = model(**inputs, return_logits=False).loss
            loss.backward()
            if max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()

        return run

    def peak(self) -> float:
        """Gigabytes of the GPU's memory or the process's."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def kind_of(operator: str) -> str:
    return next(kind for kind, parts in KINDS.items() if any(part in operator.lower() for part in parts))


def onednn_has(dtype: str) -> bool:
    """Not every processor has its products in bfloat16."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == "float32" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def slowly(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same without our fast paths on the CPU."""

    def plain() -> None:
        set_fast_cpu(False)
        try:
            run()
        finally:
            set_fast_cpu(None)

    return plain


def encoder_flops(tower: Any, tokens: int) -> int:
    """Of a forward pass of one clip: dense layers and attention, two a multiplication."""
    inner = tower.num_attention_heads * tower.head_dim
    dense = 2 * tokens * tower.hidden_size * (4 * inner + 2 * tower.intermediate_size)
    return tower.num_hidden_layers * (dense + 4 * tokens**2 * inner)


def pretraining_flops(config: VattConfig) -> int:
    """Of the encoders for one clip with its texts, after DropToken."""
    video, audio, text = (getattr(config, f"{name}_config") for name in ("video", "audio", "text"))
    patches = video.num_frames // video.tubelet_size * (video.image_size // video.patch_size) ** 2
    tokens = {
        "video": int(patches * (1 - video.drop_token_rate)),
        "audio": int(audio.num_samples // audio.patch_size * (1 - audio.drop_token_rate)),
        "text": text.max_position_embeddings,
    }
    towers = {"video": video, "audio": audio, "text": text}
    work = {name: encoder_flops(towers[name], 1 + count) for name, count in tokens.items()}
    return work["video"] + work["audio"] + TEXTS * work["text"]


def show(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = (
        *("limits", "base", "medium", "audio"),
        *("droptoken", "tokens", "packed", "compile", "optimizer", "kinds", "utilisation"),
    )
    default = ("limits", "base", "droptoken", "optimizer")
    parser.add_argument("--sections", nargs="+", choices=sections, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=("float32",))
    parser.add_argument("--dropouts", nargs="+", type=float, default=(0.0, 0.1))
    parser.add_argument("--presets", nargs="+", default=("mbs", "ma_medium"), help="of `utilisation`")
    parser.add_argument("--compile", choices=("no", "blocks", "model"), default="blocks")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=16, help="16 give 784 tokens")
    parser.add_argument("--samples", type=int, default=153_600, help="153600 give 1200 tokens")
    parser.add_argument("--layers", type=int, help="fewer blocks, for a quick look")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--cpu-time", action="store_true", help="of all threads, for machines with other work; use 1 thread"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; all by default")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else platform.machine()
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__},", end=" ")
    print(f"transformers {transformers.__version__}, fast paths: {', '.join(fast_cpu()) or 'none'}\n")
    for section in arguments.sections:
        getattr(bench, section)()
    print(f"peak memory {bench.peak():.1f} GB")


if __name__ == "__main__":
    main()
