# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Search engines side by side: build time, latency at a recall@10 of 0.95, disk and memory.

    python benchmarks/bench_index.py --moments 1000000 [--dims 512 256] [--engines ours exact faiss ...]

The moments are synthetic and clustered as windows of videos are: 50 windows a video, 500 topics; all lies in
64 dimensions, with a little noise in the others. Queries are moments with noise as long as they are (cosine
0.7), as those of another modality are near the moments but not among them. The truth is an exact search.

`ours` is a `VattIndex` as `vatt index` leaves it: both spaces in one store, approximate search beyond 100,000
moments, merging off. `exact` is a NumPy product with all vectors in memory. `faiss`, `usearch` and `lancedb`
are the bare libraries; the last two need `pip install usearch lancedb`. Each engine builds and searches in
processes of its own, on `--threads` threads. Settings of the search are raised until the recall is reached;
ours comes with its setting. Wall times suffer from whatever else runs; processor times hardly do.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np


GOAL, TOP, QUERIES, BLOCK = 0.95, 10, 200, 50_000
ENGINES = ("ours", "exact", "faiss", "usearch", "lancedb")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_data(folder: Path, moments: int, dim: int) -> None:
    """Moments, queries and their true neighbours."""
    file = folder / f"{dim}.npy"
    generator = np.random.default_rng(dim)
    spread = generator.standard_normal((64, dim), dtype=np.float32) / np.sqrt(64)
    topics = generator.standard_normal((500, 64), dtype=np.float32)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (moments, dim))
    for first in range(0, moments, BLOCK):
        count = min(BLOCK, moments - first)
        videos = -(-count // 50)
        centres = topics[generator.integers(0, 500, videos)]
        centres = centres + 0.7 * generator.standard_normal(centres.shape, dtype=np.float32)
        latent = np.repeat(centres, 50, axis=0)[:count]
        latent = latent + 0.4 * generator.standard_normal(latent.shape, dtype=np.float32)
        noise = generator.standard_normal((count, dim), dtype=np.float32)
        rows[first : first + count] = unit(latent @ spread + 0.05 * noise)
    chosen = rows[np.sort(generator.choice(moments, QUERIES, replace=False))]
    noise = generator.standard_normal(chosen.shape, dtype=np.float32) / np.sqrt(dim)
    queries = unit(chosen + noise)
    ids, scores = np.zeros((QUERIES, 0), np.int64), np.zeros((QUERIES, 0), np.float32)
    for first in range(0, moments, BLOCK):
        block = queries @ rows[first : first + BLOCK].T
        names = np.broadcast_to(np.arange(first, first + block.shape[1]), block.shape)
        scores, ids = np.concatenate([scores, block], 1), np.concatenate([ids, names], 1)
        best = np.argsort(-scores, axis=1)[:, :TOP]
        scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
    np.save(folder / f"{dim}.queries.npy", queries)
    np.save(folder / f"{dim}.truth.npy", ids)


def blocks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(rows), BLOCK):
        yield first, np.ascontiguousarray(rows[first : first + BLOCK])
        forget(rows)


def forget(rows: Any) -> None:
    """Let go of what was read of a file that is mapped, lest it counts for the memory of the process."""
    if isinstance(rows, np.memmap):
        rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


# --- engines: build(folder, data, dim, threads), then open(folder, data, dim, threads) -> [(setting, search)]

Search = Callable[[np.ndarray], Any]


def build_ours(folder: Path, data: Path, dims: list[int], threads: int) -> None:
    import faiss

    from modeling_vatt.retrieval import FileRecord, VattIndex
    from modeling_vatt.retrieval.index import EXACT_LIMIT

    faiss.omp_set_num_threads(threads)
    va, vt = (np.load(data / f"{dim}.npy", mmap_mode="r") for dim in (dims[0], dims[-1]))
    with VattIndex.open(folder) as index:
        for number, first in enumerate(range(0, len(va), 50)):
            count = min(50, len(va) - first)
            starts = 3.2 * np.arange(count)
            file = FileRecord(f"{number // 1000:04d}/{number:07d}.mp4", 1, 1, str(number), 3.2 * count)
            index.add(file, starts, starts + 3.2, va[first : first + count], vt[first : first + count])
            if number % 1000 == 999:
                forget(va)
                forget(vt)
        stored = time.perf_counter()
        if len(va) > EXACT_LIMIT:
            index.build()
        print(json.dumps({"building the approximate search": round(time.perf_counter() - stored, 1)}))
        print(json.dumps(index.info()["approximate"]))


def time_commands(folder: Path) -> None:
    """Processor time of `vatt search` in the index, whole processes."""
    from bench_startup import BEGINNING, seconds

    whole = "import sys; from modeling_vatt.cli import main; main(sys.argv[1:])"
    words, like = ["search", "clip 1"], ["search", "--like", "0000/0000001.mp4@70"]
    for name, program, arguments in (
        ("`vatt search WORDS`, before torch", BEGINNING, words),
        ("`vatt search WORDS`", whole, words),
        ("`vatt search --like` a moment of the index", whole, like),
    ):
        taken, code = seconds([program, *arguments, "--index", str(folder)], 5)
        print(f"{name}: {taken:.2f} s" + (f", exit code {code}" if code else ""), flush=True)


def open_ours(folder: Path, data: Path, dim: int, threads: int) -> list[tuple[str, Search]]:
    from modeling_vatt.retrieval import VattIndex

    index = VattIndex.open(folder)
    space: Any = "va" if index.dims["va"] == dim else "vt"

    def search(query: np.ndarray) -> list[int]:
        found = index.search(query, space, top_k=TOP, merge=False)
        return [50 * int(Path(moment.path).stem) + round(moment.start / 3.2) for moment in found]

    return [("as built", search)]


def build_exact(folder: Path, data: Path, dim: int, threads: int) -> None:
    shutil.copy(data / f"{dim}.npy", folder / "rows.npy")


def open_exact(folder: Path, data: Path, dim: int, threads: int) -> list[tuple[str, Search]]:
    rows = np.load(folder / "rows.npy")

    def search(query: np.ndarray) -> np.ndarray:
        scores = rows @ query
        best = np.argpartition(-scores, TOP)[:TOP]
        return best[np.argsort(-scores[best])]

    return [("", search)]


def build_faiss(folder: Path, data: Path, dim: int, threads: int) -> None:
    import faiss

    faiss.omp_set_num_threads(threads)
    rows = np.load(data / f"{dim}.npy", mmap_mode="r")
    lists = 1 << round(np.log2(4 * np.sqrt(len(rows))))
    index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.linspace(0, len(rows) - 1, min(len(rows), 50 * lists)).astype(np.int64)
    index.train(np.ascontiguousarray(rows[sample]))
    for _, block in blocks(rows):
        index.add(block)
    faiss.write_index(index, str(folder / "index.faiss"))


def open_faiss(folder: Path, data: Path, dim: int, threads: int) -> list[tuple[str, Search]]:
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"))

    def at(probes: int) -> Search:
        parameters = faiss.SearchParametersIVF(nprobe=probes)
        return lambda query: index.search(query[None], TOP, params=parameters)[1][0]

    return [(f"nprobe {probes}", at(probes)) for probes in (4, 8, 16, 32, 64, 128, 256)]


def build_usearch(folder: Path, data: Path, dim: int, threads: int) -> None:
    from usearch.index import Index

    index = Index(ndim=dim, metric="cos", dtype="f16", connectivity=16, expansion_add=64)
    for first, block in blocks(np.load(data / f"{dim}.npy", mmap_mode="r")):
        index.add(np.arange(first, first + len(block)), block, threads=threads)
    index.save(str(folder / "index.usearch"))


def open_usearch(folder: Path, data: Path, dim: int, threads: int) -> list[tuple[str, Search]]:
    from usearch.index import Index

    index = Index.restore(str(folder / "index.usearch"), view=True)

    def at(width: int) -> Search:
        def search(query: np.ndarray) -> np.ndarray:
            index.expansion_search = width
            return index.search(query, TOP).keys

        return search

    return [(f"expansion {width}", at(width)) for width in (16, 32, 64, 128, 256, 512, 1024)]


def build_lancedb(folder: Path, data: Path, dim: int, threads: int) -> None:
    import lancedb
    import pyarrow as pa

    rows = np.load(data / f"{dim}.npy", mmap_mode="r")
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])

    def batches() -> Iterator[pa.RecordBatch]:
        for first, block in blocks(rows):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), dim)
            ids = pa.array(np.arange(first, first + len(block)))
            yield pa.RecordBatch.from_arrays([ids, vectors], schema=schema)

    table = lancedb.connect(folder).create_table("moments", batches(), schema=schema)
    lists = 1 << round(np.log2(np.sqrt(len(rows))))
    table.create_index(metric="dot", num_partitions=lists, num_sub_vectors=dim // 8)


def open_lancedb(folder: Path, data: Path, dim: int, threads: int) -> list[tuple[str, Search]]:
    import lancedb

    table = lancedb.connect(folder).open_table("moments")

    def at(probes: int, refine: int) -> Search:
        def search(query: np.ndarray) -> list[int]:
            found = table.search(query).distance_type("dot").nprobes(probes).refine_factor(refine)
            return found.limit(TOP).select(["id"]).to_arrow()["id"].to_pylist()

        return search

    settings = [(probes, refine) for refine in (5, 20) for probes in (16, 32, 64, 128)]
    return [(f"nprobes {probes}, refine {refine}", at(probes, refine)) for probes, refine in settings]


# --- measuring ---


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_mb(field: str = "VmRSS") -> float:
    """Now (`VmRSS`), its anonymous part (`RssAnon`: what no other process can use), or the peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) / 1024


def run_build(arguments: argparse.Namespace, folder: Path, data: Path) -> dict[str, Any]:
    wide = arguments.dims if arguments.engine == "ours" else arguments.dims[0]
    began, used = time.perf_counter(), processor_seconds()
    globals()[f"build_{arguments.engine}"](folder, data, wide, arguments.threads)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "build s": round(time.perf_counter() - began, 1),
        "build CPU s": round(processor_seconds() - used, 1),
        "build peak MB": round(resident_mb("VmHWM")),
        "disk MB": round(size / 1e6),
    }


def run_search(arguments: argparse.Namespace, folder: Path, data: Path) -> dict[str, Any]:
    dim = arguments.dims[0]
    queries, truth = np.load(data / f"{dim}.queries.npy"), np.load(data / f"{dim}.truth.npy")
    if arguments.engine == "exact":  # slow, and no two queries differ
        queries, truth = queries[:30], truth[:30]
    result: dict[str, Any] = {}
    for setting, search in globals()[f"open_{arguments.engine}"](folder, data, dim, arguments.threads):
        for query in queries[:5]:
            search(query)
        times, recalls = [], []
        used = processor_seconds()
        for query, true in zip(queries, truth, strict=True):
            began = time.perf_counter()
            found = search(query)
            times.append(1e3 * (time.perf_counter() - began))
            recalls.append(len(set(map(int, found)) & set(true.tolist())) / TOP)
        result = {
            "setting": setting,
            "recall@10": round(statistics.mean(recalls), 3),
            "ms, median": round(statistics.median(times), 2),
            "ms, 95 %": round(float(np.percentile(times, 95)), 2),
            "CPU ms": round(1e3 * (processor_seconds() - used) / len(queries), 2),
            "search MB": round(resident_mb("RssAnon")),
        }
        if result["recall@10"] >= GOAL:
            break
    return result


def child(arguments: argparse.Namespace, phase: str, engine: str, dims: list[int], folder: Path) -> Any:
    command = [sys.executable, __file__, "--phase", phase, "--engine", engine, "--keep", str(arguments.keep)]
    command += ["--dims", *map(str, dims), "--moments", str(arguments.moments), "--folder", str(folder)]
    command += ["--threads", str(arguments.threads)]
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    environment |= {"LANCE_CPU_THREADS": threads}
    output = subprocess.run(command, env=environment, capture_output=True, text=True)
    if output.returncode:
        sys.exit(f"{engine}, {phase}:\n{output.stderr[-3000:]}")
    *notes, last = output.stdout.strip().splitlines()
    print(*notes, sep="\n", file=sys.stderr, end="\n" if notes else "")
    return json.loads(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the moments, used again if they are there")
    parser.add_argument("--phase", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        run = run_build if arguments.phase == "build" else run_search
        print(json.dumps(run(arguments, arguments.folder, arguments.keep)))
        return
    from bench_startup import make_index  # loads torch, which is not to count for the memory of an engine

    with tempfile.TemporaryDirectory() as temporary:
        arguments.keep = arguments.keep or Path(temporary)
        arguments.keep.mkdir(parents=True, exist_ok=True)
        for dim in arguments.dims:
            if not (arguments.keep / f"{dim}.truth.npy").is_file():
                make_data(arguments.keep, arguments.moments, dim)
        names = []
        for name in ("numpy", "faiss-cpu", "usearch", "lancedb"):
            try:
                names.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                continue
        print(f"{arguments.moments:,} moments, {arguments.threads} threads; {', '.join(names)}, Python "
              f"{platform.python_version()}; load {os.getloadavg()[0]:.1f}\n", flush=True)  # fmt: skip
        header: list[str] = []
        for engine in arguments.engines:
            built: dict[str, Any] = {}
            for number, dim in enumerate(arguments.dims):
                folder = Path(temporary) / "index"
                if engine != "ours" or number == 0:
                    folder.mkdir()
                    if engine == "ours":
                        make_index(folder, va_projection_size=dim, vt_projection_size=arguments.dims[-1])
                    dims = arguments.dims if engine == "ours" else [dim]
                    built = child(arguments, "build", engine, dims, folder)
                else:
                    built = dict.fromkeys(built, "as above")
                found = child(arguments, "search", engine, [dim], folder)
                row = {"engine": engine, "dim": dim, **built, **found}
                if not header:
                    header = list(row)
                    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
                print("| " + " | ".join(str(row[key]) for key in header) + " |", flush=True)
                if engine != "ours" or number == len(arguments.dims) - 1:
                    if engine == "ours":
                        time_commands(folder)
                    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
