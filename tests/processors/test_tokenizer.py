# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizer: the word rules of the release, vocabulary files, training, pieces for other scripts, saving."""

import io
import pickle

import pytest
import sentencepiece
from tokenizers import normalizers
from transformers import AutoTokenizer

from modeling_vatt.configuration import VattTextConfig
from modeling_vatt.processors import VattTokenizer, register_processors


WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "dont", "stir", "the", "soup", "caf\u00e9", "\u00c9clair"]
CAPTIONS = ["Stir the soup.", "Don't stir!", "the soup, the SOUP"]
MANY = [
    "a dog barks at the postman",
    "the rain falls on a tin roof",
    "\uac1c\uac00 \uc9d6\ub294\ub2e4",
    "\uc9c0\ubd95\uc5d0 \ube44\uac00 \ub0b4\ub9b0\ub2e4",
    "\u72ac\u304c\u5420\u3048\u308b",
] * 4


@pytest.fixture
def tokenizer(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return VattTokenizer.from_vocabulary(path)


def words(tokenizer, text, **kwargs):
    return [WORDS[i] for i in tokenizer(text, padding=False, **kwargs)["input_ids"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Stir the SOUP", ["stir", "the", "soup"]),
        ("don't", ["dont"]),
        ("stir-the soup", ["<unk>", "soup"]),  # punctuation is deleted, it separates nothing
        ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~the", ["the"]),
        (" stir\tthe\n\r\x0b\x0csoup ", ["stir", "the", "soup"]),
        ("the\u00a0soup the\u3000soup", ["<unk>", "<unk>"]),  # only ASCII white space separates
        ("caf\u00e9 CAF\u00e9 \u00c9CLAIR CAF\u00c9", ["caf\u00e9", "caf\u00e9", "\u00c9clair", "<unk>"]),
        ("the <pad> <unk> <bos> pad", ["the", "<unk>", "<unk>", "<unk>", "<unk>"]),
        ("", []),
        ("?!", []),
    ],
)
def test_word_rules(tokenizer, text, expected):
    assert words(tokenizer, text) == expected


def test_padding_and_cutting(tokenizer):
    encoding = tokenizer(["Stir the soup", "the " * 20, ""])
    assert [len(ids) for ids in encoding["input_ids"]] == [16] * 3
    assert encoding["input_ids"][0] == [5, 6, 7] + [0] * 13
    assert encoding["attention_mask"][0] == [1, 1, 1] + [0] * 13
    assert encoding["input_ids"][1] == [6] * 16
    assert encoding["attention_mask"][2] == [0] * 16
    assert len(tokenizer("the " * 20, max_length=5)["input_ids"]) == 5
    assert len(tokenizer("the " * 20, truncation=False, padding=False)["input_ids"]) == 20
    assert tokenizer(["the", "the soup"], return_tensors="pt")["input_ids"].shape == (2, 16)
    assert set(tokenizer("the")) == {"input_ids", "attention_mask"}


def test_special_tokens_and_decoding(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.unk_token_id == 3
    assert len(tokenizer) == len(WORDS)
    assert (
        tokenizer.decode(tokenizer("Stir the soup!")["input_ids"], skip_special_tokens=True)
        == "stir the soup"
    )


def test_vocabulary_with_indices(tmp_path, tokenizer):
    path = tmp_path / "indexed.txt"
    lines = [f"{index} {word}" for index, word in enumerate(WORDS)]
    path.write_text("\n".join(reversed(lines)), encoding="utf-8")
    indexed = VattTokenizer.from_vocabulary(path, model_max_length=4)
    assert indexed("the soup")["input_ids"] == [6, 7, 0, 0]
    assert indexed.get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*WORDS, "stir"], r"line 11: 'stir' occurs twice"),
        ([*WORDS, "Soup"], r"line 11: 'Soup'.*Lower-case"),
        ([*WORDS, "two words"], r"line 11: expected one word"),
        ([*WORDS[:3], "", *WORDS[3:]], r"line 4: expected one word"),
        (WORDS[:3], "<unk> missing"),
        (WORDS[::-1], "<pad> must have index 0"),
        ([f"{index} {word}" for index, word in enumerate(WORDS)] + ["99 gap"], "without gaps"),
        (
            [f"{index} {word}" for index, word in enumerate(WORDS)] + ["x gap"],
            "line 11: expected 'index word'",
        ),
        ([], "missing"),
    ],
)
def test_vocabulary_errors_name_file_and_line(tmp_path, lines, message):
    path = tmp_path / "bad.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        VattTokenizer.from_vocabulary(path)
    assert str(path) in str(error.value)


def test_training_keeps_the_most_frequent_words():
    tokenizer = VattTokenizer.train_from_iterator(iter(CAPTIONS), vocab_size=6)
    assert tokenizer.convert_ids_to_tokens(range(6)) == ["<pad>", "<bos>", "<eos>", "<unk>", "soup", "the"]
    assert VattTokenizer.train_from_iterator(CAPTIONS[::-1], 100).get_vocab() == (
        VattTokenizer.train_from_iterator(CAPTIONS, 100).get_vocab()
    )
    assert "dont" not in VattTokenizer.train_from_iterator(CAPTIONS, min_frequency=2).get_vocab()
    with pytest.raises(ValueError, match="vocab_size"):
        VattTokenizer.train_from_iterator(CAPTIONS, vocab_size=3)


def test_train_new_from_iterator_of_transformers(tokenizer):
    new = tokenizer.train_new_from_iterator([["Chop the ONIONS!"]], vocab_size=50)
    assert isinstance(new, VattTokenizer)
    assert new.pad_token_id == 0
    assert new.decode(new("chop onions")["input_ids"], skip_special_tokens=True) == "chop onions"


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_save_and_load(tmp_path, kind):
    register_processors(VattTextConfig)
    if kind == "words":
        tokenizer = VattTokenizer.train_from_iterator(CAPTIONS, model_max_length=7)
    else:
        tokenizer = VattTokenizer.train_sentencepiece(MANY, vocab_size=320, model_max_length=7)
    texts = ["Stir the soup!", "\uac1c\uac00 the dog <pad> \u00e9", ""]
    expected = tokenizer(texts)
    tokenizer.save_pretrained(tmp_path)
    for loaded in (VattTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert isinstance(loaded, VattTokenizer)
        assert loaded.model_max_length == 7
        assert dict(loaded(texts)) == dict(expected)
        assert loaded.decode(expected["input_ids"][0]) == tokenizer.decode(expected["input_ids"][0])
    assert dict(pickle.loads(pickle.dumps(tokenizer))(texts)) == dict(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u201cStir\u201d the \u2018soup\u2019", "stir the soup"),
        ("stir/the_soup", "stir the soup"),
        ("stir-the\u2013soup\u2014stir", "stir the soup stir"),
        ("don't don\u2019t 'dont' dont'", "dont dont dont dont"),
        ("stir\u3001the\u3002(soup)\u2026stir,the", "stir the soup stir the"),
        ("stir\u00a0the\u3000soup", "stir the soup"),
        ("STIR=<the>+soup", "stir the soup"),
        ("caf\u00e9 cafe\u0301 CAF\u00c9", "caf\u00e9 caf\u00e9 caf\u00e9"),
        ("the \U0001f372!", "the \U0001f372"),
        ("_-/ \u201c\u201d", ""),
    ],
)
def test_rules_of_trained_words(text, expected):
    tokenizer = VattTokenizer.train_from_iterator(["stir the soup don't caf\u00e9 \U0001f372"], 20)
    ids = tokenizer(text, padding=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == expected.split()


@pytest.mark.parametrize("more", [[], ["x < y > z"], ["<br> <3 0x41 <pad <bos> 41> os> ad> <0x"]])
def test_pieces_are_those_of_sentencepiece(more):
    """Captions that spell control and byte pieces too: they are read as characters."""
    captions = MANY + 4 * more
    tokenizer = VattTokenizer.train_sentencepiece(captions, vocab_size=340, model_max_length=64)
    model = io.BytesIO()
    rule = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(rule.normalize_str, captions),
        model_writer=model,
        vocab_size=340,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        byte_fallback=True,
        normalization_rule_name="identity",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="<eos>",
        num_threads=1,
        minloglevel=2,
    )
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert len(tokenizer) == reference.get_piece_size()
    ordinary = (*MANY[:5], "The POSTMAN  barks ", "\u0434\u043e\u0436\u0434\u044c \U0001f327", "\u72ac the")
    spelled = (
        "<pad>",
        "a <PAD>dog<eos>",
        "<unk><bos>",
        "<<0x41>>",
        "rain <0x00><0x99> <0xC3>",
        "<0x4",
        "\uff1cpad>",
    )
    for text in (*ordinary, *spelled):
        assert tokenizer(text, padding=False)["input_ids"] == reference.encode(rule.normalize_str(text)), text


def test_pieces_of_unseen_scripts_survive():
    tokenizer = VattTokenizer.train_sentencepiece(MANY, vocab_size=320, model_max_length=64)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 3)
    for text in (
        MANY[2],
        "\u0434\u043e\u0436\u0434\u044c \U0001f327\ufe0f",
        "\u0645\u0637\u0631 !",
        "rain on dogs",
    ):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_pieces_need_captions():
    with pytest.raises(ValueError, match="at least one"):
        VattTokenizer.train_sentencepiece([])
    with pytest.raises(ValueError, match="vocab_size"):
        VattTokenizer.train_sentencepiece(MANY, vocab_size=20)


def test_endless_padding_is_refused():
    """A stranger's settings may ask for more padding than there is memory."""
    tokenizer = VattTokenizer.train_from_iterator(["stir the soup"], 20)
    for length in (2**31, 2**63, int(1e30)):
        tokenizer.model_max_length = length
        with pytest.raises(ValueError, match=r"cannot be padded to \d+ words. Set `model_max_length`"):
            tokenizer("stir")
        assert len(tokenizer("stir", max_length=8)["input_ids"]) == 8
        assert len(tokenizer("stir", padding=False)["input_ids"]) == 1
