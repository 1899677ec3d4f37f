# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, shards, annotations and vocabularies that strangers send: used as promised or refused by name.

A small part of what `benchmarks/fuzz.py` does, always the same, and properties of the parsers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_files import FUZZERS, INTACT, FileFuzz
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling_vatt.convert import ConversionError
from modeling_vatt.convert.misc_data import load_array_pickle
from modeling_vatt.convert.writing import read_labels
from modeling_vatt.data import load_esc50, load_msrvtt, load_ucf101, load_youcook2, nearest_sentences
from modeling_vatt.processors import VattTokenizer


FEW = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module", params=list(FUZZERS))
def fuzz(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileFuzz]:
    yield FUZZERS[request.param](tmp_path_factory.mktemp("fuzz") / request.param)


def test_good_files_are_used(fuzz: FileFuzz, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, files in fuzz.samples.items():
        (tmp_path / name).mkdir()
        result = fuzz.check(name, files, INTACT, rng, tmp_path / name)
        assert result.startswith("used"), (name, result)


def test_mutants(fuzz: FileFuzz, tmp_path: Path) -> None:
    results = []
    for number in range(60):
        rng = np.random.default_rng((5, number))
        name, files, done = fuzz.mutant(rng)
        (tmp_path / str(number)).mkdir()
        results.append(fuzz.check(name, files, done, rng, tmp_path / str(number)))
    refused = sum(result.startswith("refused") for result in results)
    assert 10 < refused < 60  # neither harmless nor hopeless


# Properties


@given(
    st.lists(st.text(alphabet=st.sampled_from("aA1 <>pad\tü\x00\n"), max_size=12), max_size=8), st.booleans()
)
@FEW
def test_word_lists(lines: list[str], specials: bool) -> None:
    """Any list is refused by file and line, or each of its words has its own number."""
    words = ["<pad>", "<bos>", "<eos>", "<unk>"] if specials else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "words.txt")
        path.write_text("\n".join([*words, *lines]), encoding="utf-8")
        try:
            tokenizer = VattTokenizer.from_vocabulary(path)
        except ValueError as error:
            assert str(path) in str(error)
            return
    known = tokenizer.get_vocab()
    assert specials and sorted(known.values()) == list(range(len(known)))
    for word in known:
        if not any(letter in word for letter in "<>\x00 \t"):
            assert tokenizer(word)["input_ids"][0] == known[word]


@given(st.binary(max_size=200))
@FEW
def test_pickles_of_any_bytes(content: bytes) -> None:
    with pytest.raises(ConversionError, match=r"^x\.pkl"):
        load_array_pickle(content, "x.pkl", "word_embeddings")


@given(st.sampled_from(["json", "csv", "txt"]), st.text(max_size=80))
@FEW
def test_class_lists_of_any_text(ending: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"labels.{ending}")
        path.write_bytes(text.encode("utf-8", "replace"))
        try:
            assert len(set(read_labels(path, 2))) == 2
        except ConversionError as error:
            assert str(path) in str(error)


_KEYS = ["videos", "sentences", "database", "video_id", "split", "subset", "annotations", "segment", "id"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
@FEW
def test_annotations_of_any_json(content: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "annotations.json")
        path.write_text(json.dumps(content))
        for load in (load_msrvtt, load_youcook2):
            try:
                load(folder, path)
            except ValueError as error:
                assert str(folder) in str(error)


_SENTENCE = st.fixed_dictionaries(
    {"start": st.floats(-1e6, 1e6), "end": st.floats(-1e6, 1e6), "text": st.text(max_size=3)}
)


@given(st.lists(_SENTENCE, max_size=8), st.floats(0, 100), st.floats(0.1, 10), st.integers(0, 9))
@FEW
def test_nearest_sentences(sentences: list[dict], start: float, length: float, count: int) -> None:
    found = nearest_sentences(sentences, start, start + length, count)
    assert len(found) == min(count, len(sentences))

    def distance(sentence: dict) -> float:
        return max(0.0, sentence["start"] - start - length, start - sentence["end"])

    left_out = [s for s in sentences if s["text"] not in found]
    chosen = sorted(map(distance, sentences))[: len(found)]
    assert all(distance(sentence) >= chosen[-1] for sentence in left_out) if found else True


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../secret"])
def test_names_in_lists_lead_nowhere(tmp_path: Path, name: str) -> None:
    """A list names files below its folder."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 YoYo\n")
    for split in "123":
        (lists / f"trainlist0{split}.txt").write_text(f"YoYo/{name} 1\n")
        (lists / f"testlist0{split}.txt").write_text(f"{name} 1\n")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(f"filename,fold,target,category\n{name},1,0,dog\n")
    content = {"videos": [{"video_id": name, "split": "test"}], "sentences": []}
    (tmp_path / "msrvtt.json").write_text(json.dumps(content))
    for load in (load_ucf101, load_esc50, lambda root: load_msrvtt(root, tmp_path / "msrvtt.json")):
        with pytest.raises(ValueError, match=r"not as .* leads out of the folder"):
            load(tmp_path)
