# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Damaged files of all other kinds that strangers send, and what is promised of them; see `mutations.py`.

A mutant is a dict of files. Each check returns what came of it and raises anything that was not promised.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import gzip
import io
import json
import os
import pickle
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from clip_folders import small_processor, write_clip
from goldens import GOLDENS
from mutations import mutate
from small_models import seeded, small_config
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining
from modeling_vatt.convert import load_variables, open_variables, read_misc_data
from modeling_vatt.convert.writing import read_labels
from modeling_vatt.data import (
    ShardDataset,
    ShardError,
    all_captions,
    audioset_clips,
    howto100m_clips,
    load_clips,
    load_esc50,
    load_hmdb51,
    load_msrvtt,
    load_ucf101,
    load_youcook2,
    source_of,
    write_index,
    write_shard,
)
from modeling_vatt.processors import MediaError, MediaLimits, VattProcessor, VattTokenizer, read_clip
from modeling_vatt.retrieval import FileRecord, IndexDamaged, IndexMismatch, ModelIdentity, VattIndex


INTACT = "intact"
Files = dict[str, bytes]
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**80, 1e308, -1e-308, float("nan"), float("inf"), 0.5),
    *("", "x", "x" * 5000, "\x00", "\ud800", "../../etc/passwd", "🎬"),
    *([], {}, [[]], [None], {"": None}, [1, "a", None]),
)


def mutate_json(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """JSON that stays JSON: odd values, missing and added keys, mad nesting."""
    value = json.loads(content)
    done = []
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        places: list[tuple[Any, Any]] = []

        def visit(node: Any, places: list = places) -> None:
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    visit(node[key])

        visit(value)
        if not places:
            break
        node, key = places[int(rng.integers(len(places)))]
        way = rng.random()
        if way < 0.7:
            node[key] = copy.deepcopy(_ODD[int(rng.integers(len(_ODD)))])
        elif way < 0.85:
            del node[key]
        elif way < 0.9:
            deep: Any = 0
            for _ in range(200):  # beyond what most readers take, four times within what Python takes
                deep = [deep]
            node[key] = deep
        else:
            other, there = places[int(rng.integers(len(places)))]
            with contextlib.suppress(IndexError, KeyError, TypeError):
                node[key] = copy.deepcopy(other[there])
        done.append(str(key))
    return json.dumps(value).encode(), f"JSON at {', '.join(done)}"


def other_column(table: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, str]:
    """A well-formed table with an odd value, or another column."""
    name = table.column_names[int(rng.integers(table.num_columns))]
    place = table.column_names.index(name)
    way = rng.random()
    if way < 0.2:
        table = table.remove_column(place)
    elif way < 0.4:
        table = table.set_column(place, name, pa.array([{"path": "/etc/passwd", "bytes": None}] * len(table)))
    else:
        values = table[name].to_pylist()
        row = int(rng.integers(len(values)))
        values[row] = _ODD[int(rng.integers(len(_ODD)))]
        with contextlib.suppress(pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
            table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table, f"column {name}"


class FileFuzz:
    """Samples in a folder, made once: a folder of files for each variety.

    `checks` uses the files of a variety; what comes back, if it is text, tells more than that it went well.
    """

    checks: dict[str, Callable[[Path], Any]] = {}

    def __init__(self, folder: Path) -> None:
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        torch.set_num_threads(1)
        self.folder = folder
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self.write_samples(partial)
            partial.rename(folder)
        self.samples = {
            variety.name: {
                str(path.relative_to(variety)): path.read_bytes()
                for path in sorted(variety.rglob("*"))
                if path.is_file()
            }
            for variety in sorted(folder.iterdir())
        }

    def write_samples(self, folder: Path) -> None:
        raise NotImplementedError

    def victims(self, variety: str) -> list[str]:
        """Files of a variety that may be damaged."""
        return list(self.samples[variety])

    def damage(self, file: str, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        if file.endswith(".json") and rng.random() < 0.6:
            return mutate_json(content, rng)
        return mutate(content, rng)

    def mutant(self, rng: np.random.Generator) -> tuple[str, Files, str]:
        varieties = list(self.samples)
        variety = varieties[int(rng.integers(len(varieties)))]
        files = dict(self.samples[variety])
        if rng.random() < 0.04:
            return variety, files, INTACT
        names = self.victims(variety)
        name = names[int(rng.integers(len(names)))]
        files[name], done = self.damage(name, files[name], rng)
        self.mend(variety, files, rng)
        return variety, files, f"{name}: {done}"

    def mend(self, variety: str, files: Files, rng: np.random.Generator) -> None:
        """Make checksums right again, as a forger would."""

    def check(self, name: str, files: Files, done: str, rng: np.random.Generator, folder: Path) -> str:
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        try:
            told = self.checks[name](folder)
            return told if isinstance(told, str) else "used"
        except (AssertionError, MemoryError):
            raise
        except Exception as error:
            damaged = done.split(":")[0]
            if damaged in self.read_by_transformers:
                return f"refused by transformers: {type(error).__name__}"
            if not isinstance(error, self.refusals):
                raise
            assert len(str(error)) > 15 and str(folder) in str(error), f"names no file: {error!r}"
            return f"refused: {type(error).__name__}"

    refusals: tuple[type[Exception], ...] = (ValueError,)
    # Settings that transformers reads, with exceptions of its own.
    read_by_transformers: tuple[str, ...] = ()


def _check_model(folder: Path) -> None:
    model = VattForPreTraining.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) < 1e6, "a large model from a small file"


def _check_misc(folder: Path) -> None:
    table = read_misc_data(folder / "misc_data.tgz").word_embeddings
    assert table.dtype == np.float32 and table.ndim == 2


def _check_labels(folder: Path) -> None:
    (path,) = folder.glob("labels.*")
    assert len(read_labels(path, 2)) == 2


class Checkpoints(FileFuzz):
    """Models in safetensors, and what the converter reads."""

    checks = {
        "model": _check_model,
        "arrays": lambda folder: load_variables(open_variables(folder / "weights.npz"), head_dim=8),
        "tensorflow": lambda folder: load_variables(open_variables(folder / "ckpt-1"), head_dim=8),
        "misc": _check_misc,
        **dict.fromkeys(("labels_json", "labels_csv", "labels_txt"), _check_labels),
    }
    read_by_transformers = ("config.json", "generation_config.json")

    def write_samples(self, folder: Path) -> None:
        model = seeded(VattForPreTraining, small_config())
        model.save_pretrained(folder / "model")
        (folder / "arrays").mkdir()
        shutil.copy(GOLDENS / "wat_classification" / "weights.npz", folder / "arrays" / "weights.npz")
        self._write_tensorflow(folder / "tensorflow")
        (folder / "misc").mkdir()
        table = np.zeros((6, 4), np.float32)
        with tarfile.open(folder / "misc" / "misc_data.tgz", "w:gz") as archive:
            words = b"<pad>\n<bos>\n<eos>\n<unk>\na\nb\n"
            pickled = pickle.dumps({"word_embeddings": table}, protocol=2)
            for name, content in (("misc/howto100m_en.txt", words), ("misc/word2vec.pkl", pickled)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        for ending, text in {
            "json": '{"0": "dog", "1": "cat"}',
            "csv": 'index,mid,display_name\n0,/m/1,"dog, barking"\n1,/m/2,cat\n',
            "txt": "dog\ncat\n",
        }.items():
            (folder / f"labels_{ending}").mkdir()
            (folder / f"labels_{ending}" / f"labels.{ending}").write_text(text)

    def _write_tensorflow(self, folder: Path) -> None:
        import tensorflow

        folder.mkdir()
        with np.load(GOLDENS / "wat_classification" / "weights.npz") as arrays:
            names = list(arrays.files)
            tensors = [tensorflow.constant(arrays[name]) for name in names]
        # The suffix of the object path tells the reader what is a variable.
        full = [name if name.endswith("VALUE") else f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in names]
        tensorflow.raw_ops.SaveV2(
            prefix=str(folder / "ckpt-1"),
            tensor_names=full,
            shape_and_slices=[""] * len(full),
            tensors=tensors,
        )
        for path in folder.glob("ckpt-1*"):
            if ".data-" in path.name:
                path.rename(folder / "ckpt-1.data-00000-of-00001")

    def damage(self, file: str, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        if file.endswith(".safetensors") and rng.random() < 0.5:
            size = int.from_bytes(content[:8], "little")
            header, done = mutate_json(content[8 : 8 + size], rng)
            return len(header).to_bytes(8, "little") + header + content[8 + size :], done
        if file.endswith(".tgz") and rng.random() < 0.8:  # what is inside, not the compression
            inside, done = mutate(gzip.decompress(content), rng)
            return gzip.compress(inside, 1), done
        return super().damage(file, content, rng)

    def check(self, name: str, files: Files, done: str, rng: np.random.Generator, folder: Path) -> str:
        result = super().check(name, files, done, rng, folder)
        if name != "model":  # the converter has one exception
            assert not result.startswith("refused") or result.endswith("ConversionError"), result
        return result


def _read_shards(folder: Path) -> str:
    data = ShardDataset(folder)
    list(all_captions(data))
    read = 0
    for index in range(len(data)):
        with contextlib.suppress(MediaError):
            row = data[index]
            assert zlib.crc32(row["video"]["bytes"]) == row["crc32"]
            read_clip(source_of(row["video"]), duration=0.3, limits=_SMALL)
            read += 1
    return f"used: {read} clips of {len(data)}"


def _index_shards(folder: Path) -> str:
    write_index(folder)
    return _read_shards(folder)


class Shards(FileFuzz):
    """Tar files to be indexed, and shards with an index, whose checksums a forger has made right."""

    checks = {"tar": _index_shards, "indexed": _read_shards}

    def write_samples(self, folder: Path) -> None:
        clips = []
        for number in range(3):
            clip = write_clip(folder / f"{number}.mp4", number)
            sentences = [{"start": 0.1, "end": 0.8, "text": "a tone"}]
            text = {"captions": ["clip"], "sentences": sentences, "source": f"{number}.mp4"}
            clips.append((f"{number:03d}", text, clip.read_bytes()))
            clip.unlink()
        for variety in ("tar", "indexed"):
            (folder / variety).mkdir()
            write_shard(folder / variety / "shard-000000.tar", clips[:2])
            write_shard(folder / variety / "shard-000001.tar", clips[2:])
        write_index(folder / "indexed")

    refusals = (ShardError,)

    def mend(self, variety: str, files: Files, rng: np.random.Generator) -> None:
        if variety == "indexed" and rng.random() < 0.8:
            import hashlib

            with contextlib.suppress(
                ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError
            ):
                manifest = json.loads(files["shards.json"])
                manifest["index_sha256"] = hashlib.sha256(files["index.arrow"]).hexdigest()
                for shard in manifest["shards"]:
                    if shard["name"] in files and rng.random() < 0.9:
                        shard["bytes"] = len(files[shard["name"]])
                files["shards.json"] = json.dumps(manifest).encode()

    def damage(self, file: str, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        if file == "index.arrow" and rng.random() < 0.5:
            return self._other_index(content, rng)
        return super().damage(file, content, rng)

    def _other_index(self, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        table, done = other_column(pa.ipc.open_stream(content).read_all(), rng)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue().to_pybytes(), done


_SMALL = MediaLimits(max_bytes=64 << 20, max_pixels=1 << 22, max_seconds=30.0, wall_seconds=5.0)


def _narrated(clips: list[Any]) -> None:
    for clip in clips:
        for sentence in clip.sentences:
            assert np.isfinite([sentence["start"], sentence["end"]]).all(), f"times of {sentence}"


def _listed(table: datasets.Dataset, folder: Path, column: str = "video") -> None:
    for row in table:
        path = os.path.realpath(row[column]["path"])
        assert path.startswith(os.path.realpath(folder) + os.sep), f"points out of the folder: {path}"


def _check_folder(folder: Path) -> None:
    table = load_clips(folder, "train", cache_dir=str(folder / "cache"))
    for captions in all_captions(table):
        assert all(isinstance(caption, str) for caption in captions), captions


class Captions(FileFuzz):
    """Annotation files and official lists."""

    refusals = (ValueError,)
    checks = {
        "howto_json": lambda folder: _narrated(howto100m_clips(folder / "videos", folder / "caption.json")),
        "howto_csv": lambda folder: _narrated(howto100m_clips(folder / "videos", folder / "captions")),
        "audioset": lambda folder: audioset_clips(folder / "videos", folder / "segments.csv"),
        "ucf": lambda folder: _listed(load_ucf101(folder), folder),
        "hmdb": lambda folder: _listed(load_hmdb51(folder), folder),
        "esc": lambda folder: _listed(load_esc50(folder), folder, "audio"),
        "msrvtt_csv": lambda folder: _listed(load_msrvtt(folder), folder),
        "msrvtt_json": lambda folder: _listed(load_msrvtt(folder, folder / "videodatainfo.json"), folder),
        "youcook": lambda folder: _listed(load_youcook2(folder), folder),
        **dict.fromkeys(("folder", "timed", "table"), _check_folder),
    }

    def write_samples(self, folder: Path) -> None:
        def write(path: str, text: str) -> None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)

        narration = {"a": {"start": [0, 1.5], "end": [1.0, 2.5], "text": ["stir it", "taste it"]}}
        write("howto_json/caption.json", json.dumps(narration))
        write("howto_json/videos/a.mp4", "")
        write("howto_csv/captions/a.csv", 'start,end,text\n0,1.0,stir it\n1.5,2.5,"taste, it"\n')
        write("howto_csv/videos/a.mp4", "")
        write("audioset/segments.csv", '# comment\na, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n')
        write("audioset/videos/a.mp4", "")
        write("ucf/ucfTrainTestlist/classInd.txt", "1 YoYo\n2 Archery\n")
        for split in (1, 2, 3):
            write(f"ucf/ucfTrainTestlist/trainlist0{split}.txt", "YoYo/v_1.avi 1\nArchery/v_1.avi 2\n")
            write(f"ucf/ucfTrainTestlist/testlist0{split}.txt", "YoYo/v_2.avi\nArchery/v_2.avi\n")
            write(
                f"hmdb/testTrainMulti_7030_splits/wave_test_split{split}.txt", "a.avi 1\nb.avi 2\nc.avi 0\n"
            )
        for name in ("YoYo/v_1.avi", "YoYo/v_2.avi", "Archery/v_1.avi", "Archery/v_2.avi"):
            write(f"ucf/{name}", "")
        write("hmdb/wave/a.avi", "")
        write("esc/meta/esc50.csv", "filename,fold,target,category\na.wav,1,0,dog\nb.wav,2,1,cat\n")
        write(
            "msrvtt_csv/MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\nret0,msr1,video1,a dog\n"
        )
        sentences = [{"video_id": "video1", "caption": "a dog"}]
        videos = {"videos": [{"video_id": "video1", "split": "test"}], "sentences": sentences}
        write("msrvtt_json/videodatainfo.json", json.dumps(videos))
        clip = {"id": 0, "segment": [1, 5], "sentence": "cut it"}
        kitchen = {"database": {"abc": {"subset": "validation", "annotations": [clip]}}}
        write("youcook/youcookii_annotations_trainval.json", json.dumps(kitchen))
        rows = [{"file_name": f"{n}.mp4", "captions": [f"clip {n}", "a tone"]} for n in range(2)]
        times = [{"start": 0.0, "end": 1.0, "text": "a tone"}]
        write("folder/train/metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write("timed/train/metadata.jsonl", json.dumps({"file_name": "0.mp4", "sentences": times}) + "\n")
        write("table/train/metadata.csv", "file_name,caption\n0.mp4,a dog\n1.mp4,a cat\n")
        for variety in ("folder", "timed", "table"):
            for number in range(2):
                write_clip(folder / variety / "train" / f"{number}.mp4", number, 0.3)

    def victims(self, variety: str) -> list[str]:
        endings = (".json", ".jsonl", ".csv", ".txt")
        return [name for name in self.samples[variety] if name.endswith(endings)]

    def damage(self, file: str, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        if file.endswith(".jsonl") and rng.random() < 0.6:
            lines = content.splitlines()
            number = int(rng.integers(len(lines)))
            lines[number], done = mutate_json(lines[number], rng)
            return b"\n".join(lines), done
        if file.endswith((".csv", ".txt")) and rng.random() < 0.5:
            rows = list(csv.reader(io.StringIO(content.decode())))
            row = rows[int(rng.integers(len(rows)))]
            if row:
                row[int(rng.integers(len(row)))] = str(_ODD[int(rng.integers(len(_ODD)))])
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            return text.getvalue().encode("utf-8", "surrogatepass"), "another cell"
        return super().damage(file, content, rng)


def _check_words(folder: Path) -> None:
    tokenizer = VattTokenizer.from_vocabulary(folder / "words.txt")
    ids = tokenizer("Stir the SOUP, please!")["input_ids"]
    assert len(ids) == 16 and all(0 <= number < len(tokenizer) for number in ids)


def _check_processor(folder: Path) -> None:
    processor = VattProcessor.from_pretrained(folder)
    video = np.zeros((8, 16, 16, 3), np.uint8)
    batch = processor(videos=[video], audio=[np.zeros(96, np.float32)], text=["clip 3"])
    assert len(batch["pixel_values_videos"]) == len(batch["input_values"]) == len(batch["text_mask"]) == 1


def _check_pieces(folder: Path) -> None:
    ids = VattTokenizer.from_pretrained(folder)("Stir the soup")["input_ids"]
    assert all(isinstance(number, int) for number in ids)


class Vocabularies(FileFuzz):
    """Word lists, and what a processor is saved as."""

    checks = {"processor": _check_processor, "pieces": _check_pieces}
    checks |= dict.fromkeys(("words", "indexed"), _check_words)
    read_by_transformers = ("tokenizer.json", "tokenizer_config.json", "processor_config.json")

    def write_samples(self, folder: Path) -> None:
        words = ["<pad>", "<bos>", "<eos>", "<unk>", *["the", "a", "of", "stir", "soup"]]
        for variety, lines in (
            ("words", words),
            ("indexed", [f"{number} {word}" for number, word in enumerate(words)]),
        ):
            (folder / variety).mkdir()
            (folder / variety / "words.txt").write_text("\n".join(lines) + "\n")
        small_processor().save_pretrained(folder / "processor")
        captions = ["stir the soup", "taste the soup", "rain on a roof"]
        pieces = VattTokenizer.train_sentencepiece(captions, 300)
        pieces.save_pretrained(folder / "pieces")


def _use_index(opened: VattIndex) -> None:
    with opened as index:
        index.info()
        for file in index.files():
            assert not file["path"].startswith("/") and ".." not in file["path"].split("/"), file
        for space in ("va", "vt"):
            query = np.ones(index.dims[space], np.float32)  # type: ignore[index]
            for moment in index.search(query, space, top_k=5):  # type: ignore[arg-type]
                assert np.isfinite([moment.score, moment.start, moment.end]).all(), moment


class Index(FileFuzz):
    """Indexes as databases, and as Parquet and JSON from the Hub."""

    checks = {
        "database": lambda folder: _use_index(VattIndex.open(folder)),
        "tables": lambda folder: _use_index(VattIndex.from_pretrained(folder)),
    }
    refusals = (IndexDamaged, IndexMismatch, FileNotFoundError)

    def write_samples(self, folder: Path) -> None:
        dims = {"va": 6, "vt": 4}
        identity = ModelIdentity("synthetic", None, "0", {}, {}, "", dims)
        random = np.random.default_rng(0)
        with VattIndex.create(folder / "database", None, identity, 1.0) as index:
            for number in range(5):
                vectors = [random.normal(size=(3, dims[space])) for space in ("va", "vt")]
                file = FileRecord(f"folder/{number}.mp4", 1000, 10**18, "0" * 64, 3.0)
                index.add(file, [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], *vectors)
            index.save_pretrained(folder / "tables")
            index.store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            index.store.connection.execute("PRAGMA journal_mode=DELETE")

    def victims(self, variety: str) -> list[str]:
        return [name for name in self.samples[variety] if not name.endswith((".md", "lock"))]

    def damage(self, file: str, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        if file.endswith(".sqlite") and rng.random() < 0.5:
            return self._other_rows(content, rng)
        if file.endswith(".parquet") and rng.random() < 0.5:
            table, done = other_column(pq.read_table(io.BytesIO(content)), rng)
            sink = io.BytesIO()
            pq.write_table(table, sink)
            return sink.getvalue(), done
        return super().damage(file, content, rng)

    def _other_rows(self, content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
        """A database that SQLite finds good."""
        values = [value for value in _ODD if not isinstance(value, list | dict)]
        values = [value for value in values if not isinstance(value, int) or abs(value) < 2**63]
        values = [value for value in values if value != "\ud800"]
        values += [b"", b"\x00" * 16, b"\xff" * 24, "{}", "[]"]
        columns = {
            "meta": ["key", "value"],
            "files": ["id", "path", "size", "mtime_ns", "hash", "duration", "error"],
            "windows": ["id", "file", "start", "end"],
            **{space: ["id", "vector"] for space in ("va", "vt")},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index.sqlite")
            path.write_bytes(content)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                table = list(columns)[int(rng.integers(len(columns)))]
                column = columns[table][int(rng.integers(len(columns[table])))]
                value = values[int(rng.integers(len(values)))]
                statement = f"UPDATE {table} SET {column} = ? WHERE rowid % 3 = 1"
                if table == "meta":
                    statement = f"UPDATE meta SET {column} = ? WHERE key = 'settings'"
                if rng.random() < 0.1:
                    statement = f"DELETE FROM {table} WHERE ? IS NOT 7"
                if rng.random() < 0.1:
                    statement = f"CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM files; END"
                with contextlib.suppress(sqlite3.Error, OverflowError):
                    connection.execute(statement, (value,) if "?" in statement else ())
            return path.read_bytes(), f"{table}.{column} = {value!r}"[:80]


FUZZERS: dict[str, type[FileFuzz]] = {
    "checkpoints": Checkpoints,
    "shards": Shards,
    "index": Index,
    "captions": Captions,
    "vocabularies": Vocabularies,
}
