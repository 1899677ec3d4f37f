# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of converting a full-size checkpoint with random weights.

    python benchmarks/bench_convert.py --size tx_fac_lbs --work DIR [--slots]

Writes a TensorFlow checkpoint with the real names and shapes (with `--slots` also two Adam slots per trained
variable, as the published files have), converts it by `vatt convert` in a process of its own, and reports the
wall-clock time and that process' peak of resident memory against the checkpoint's size. Needs the `tf` extra.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


VARIABLES = Path(__file__).parents[1] / "tests" / "fixtures" / "checkpoint_variables"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def write_checkpoint(size: str, prefix: Path, slots: bool) -> None:
    """A checkpoint with the variables of a table and random numbers in them."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    names, tensors = [], []
    for line in (VARIABLES / f"{size}.tsv").read_text().splitlines():
        name, shape, dtype = line.split("\t") if not line.startswith("#") else ("", "", "")
        if dtype != "float32":
            continue
        extents = [int(extent) for extent in shape.split("x")]
        names.append(name)
        tensors.append(tf.constant(generator.standard_normal(extents, dtype=np.float32)))
        if slots and "moving_" not in name and "embedding/embeddings" not in name:
            for slot in "mv":
                names.append(f"{name.removesuffix(SUFFIX)}/.OPTIMIZER_SLOT/optimizer/{slot}{SUFFIX}")
                tensors.append(tf.zeros(extents))
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
    )


def run(*command: str) -> tuple[float, int]:
    """Seconds and peak resident bytes of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed.")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = sorted(path.stem for path in VARIABLES.glob("*.tsv"))
    parser.add_argument("--size", default="tx_fac_lbs", choices=sizes)
    parser.add_argument("--work", type=Path, required=True, help="folder with room for 4 times the model")
    parser.add_argument("--slots", action="store_true", help="write Adam slots too")
    parser.add_argument("--write-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prefix = arguments.work / "ckpt-1"
    if arguments.write_only:
        write_checkpoint(arguments.size, prefix, arguments.slots)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    run(__file__, *sys.argv[1:], "--write-only")
    output = arguments.work / "converted"
    _, imports = run("-c", "import modeling_vatt.convert, tensorflow")
    seconds, peak = run("-m", "modeling_vatt.convert", str(prefix), "--output", str(output), "--overwrite")
    model = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    result = {
        "size": arguments.size,
        "slots": arguments.slots,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "checkpoint_bytes": Path(f"{prefix}.data-00000-of-00001").stat().st_size,
        "model_bytes": model,
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "imports_bytes": imports,
        "peak_over_model": round(peak / model, 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
