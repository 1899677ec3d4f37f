# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizer of VATT: whole words as in the official release, or SentencePiece pieces for any script.

There are two rules for words. A vocabulary of the release (so converted models too) uses the rule of DMVR's
`WordTokenizer`: ASCII punctuation is deleted (not replaced by a space), ASCII letters are lower-cased, and
the rest is split at ASCII white space. Tokenizers trained here split at punctuation of any script, and delete
only apostrophes inside a word. No begin or end tokens are added. `tokenizer.json` describes all of it.
"""

import io
import os
import re
import string
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Any, Self

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import Unigram, WordLevel
from tokenizers.trainers import WordLevelTrainer
from transformers import BatchEncoding, TokenizersBackend

from ..repositories import asked_once


SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
MAX_WORDS = 16
MAX_LENGTH = 1_000_000  # of a caption; transformers says 1e30 for "unknown"


class VattTokenizer(TokenizersBackend):
    r"""Turns captions into `input_ids` and `attention_mask` (both `(16,)` per caption; id 0 is padding).

    Make one with [`~VattTokenizer.from_vocabulary`] (official word list),
    [`~VattTokenizer.train_from_iterator`] (words of your captions), [`~VattTokenizer.train_sentencepiece`]
    (pieces; any script) or `from_pretrained`. Unlike other tokenizers it pads and cuts to `model_max_length`
    unless `padding` and `truncation` say otherwise.

    ```python
    >>> tokenizer = VattTokenizer.train_from_iterator(["Stir the soup.", "Don't stir!"], vocab_size=100)
    >>> tokenizer.decode(tokenizer("STIR the don’t-know")["input_ids"], skip_special_tokens=True)
    'stir the dont'
    ```
    """

    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "right"
    truncation_side = "right"

    def __call__(
        self, text: Any = None, *args: Any, padding: Any = "max_length", truncation: Any = True, **kwargs: Any
    ) -> BatchEncoding:
        length = kwargs.get("max_length")
        length = self.model_max_length if length is None else length
        if padding == "max_length" and length > MAX_LENGTH:  # would fill the memory with padding
            raise ValueError(
                f"{self.name_or_path or 'The tokenizer'}: captions cannot be padded to {length} words. Set "
                "`model_max_length` or pass `max_length`."
            )
        return super().__call__(text, *args, padding=padding, truncation=truncation, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """See transformers. FileNotFoundError for neither a folder nor a repository; where the Hub does not
        answer, its cache is used."""
        if not os.path.isfile(pretrained_model_name_or_path):  # a tokenizer.json alone will do
            kwargs = asked_once(pretrained_model_name_or_path, "tokenizer_config.json", kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_vocabulary(cls, path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Word tokenizer with the release's rules from a vocabulary file (e.g. the official
        `howto100m_en.txt`, 65,536 words).

        Args:
            path: text file with one `word` or `index word` on each line. It holds `<pad>` (index 0), `<bos>`,
                `<eos>` and `<unk>`, no word twice and no upper-case ASCII letters.
            kwargs: e.g. `model_max_length`.

        Raises:
            ValueError: naming file and line, if the file breaks one of these rules.
        """
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.split() for line in file]
        except UnicodeDecodeError as error:
            raise ValueError(f"{os.fspath(path)}: not UTF-8 ({error.reason}). Save it as UTF-8.") from error
        while lines and not lines[-1]:
            lines.pop()
        indexed = bool(lines) and len(lines[0]) == 2
        vocabulary: dict[str, int] = {}
        for number, fields in enumerate(lines, start=1):
            where = f"{os.fspath(path)}, line {number}"
            if len(fields) != 1 + indexed or (indexed and not fields[0].isdecimal()):
                form = "'index word'" if indexed else "one word"
                raise ValueError(f"{where}: expected {form}, found {' '.join(fields)!r}. Mend the line.")
            word = fields[-1]
            if word in vocabulary:
                raise ValueError(f"{where}: {word!r} occurs twice. Remove one of them.")
            if re.search("[A-Z]", word):
                raise ValueError(f"{where}: {word!r} can never match, words are lower-cased. Lower-case it.")
            vocabulary[word] = int(fields[0]) if indexed else number - 1
        missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
        if missing:
            raise ValueError(f"{os.fspath(path)}: {', '.join(missing)} missing. Add a line for each.")
        if vocabulary["<pad>"] != 0:
            raise ValueError(f"{os.fspath(path)}: <pad> must have index 0, the models mask it. Put it first.")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError(f"{os.fspath(path)}: indices must be 0, 1, 2, ... without gaps. Renumber them.")
        return cls._wrap(_word_backend(vocabulary, *_release_rule()), **kwargs)

    @classmethod
    def train_from_iterator(
        cls, captions: Iterable[str], vocab_size: int = 65_536, *, min_frequency: int = 1, **kwargs: Any
    ) -> Self:
        """Word tokenizer of the most frequent words of `captions`; the order of captions does not matter.

        Text is NFKC-normalised and lower-cased, and split at white space and punctuation.

        Args:
            vocab_size: words kept, the four special tokens included.
            min_frequency: rarer words become `<unk>`.
            kwargs: e.g. `model_max_length`.
        """
        if vocab_size < len(SPECIAL_TOKENS):
            raise ValueError(f"`vocab_size` must be at least {len(SPECIAL_TOKENS)}, got {vocab_size}.")
        backend = _word_backend({"<unk>": 0}, *_word_rule())
        trainer = WordLevelTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(SPECIAL_TOKENS.values()),
            show_progress=False,
        )
        backend.train_from_iterator(captions, trainer=trainer)
        return cls._wrap(backend, **kwargs)

    @classmethod
    def train_sentencepiece(
        cls,
        captions: Iterable[str],
        vocab_size: int = 8_000,
        *,
        character_coverage: float = 0.9995,
        num_threads: int = 1,
        **kwargs: Any,
    ) -> Self:
        """Tokenizer of subword pieces (SentencePiece Unigram) for captions in any script.

        Text is NFKC-normalised and lower-cased, punctuation stays; characters never seen become UTF-8 bytes,
        so that nothing is unknown.

        Args:
            vocab_size: pieces at most, 4 special tokens and 256 bytes included.
            character_coverage: share of the characters that get pieces of their own.
            kwargs: e.g. `model_max_length`; pieces are shorter than words, so 16 of them hold less.

        Raises:
            ValueError: if there are no captions, or `vocab_size` is too small for their characters.
        """
        import sentencepiece

        normalizer = _piece_normalizer()
        texts = (normalizer.normalize_str(caption) for caption in captions)
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_non_empty(texts),
                model_writer=model,
                model_type="unigram",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=character_coverage,
                byte_fallback=True,
                normalization_rule_name="identity",
                **{f"{name.removesuffix('_token')}_id": i for i, name in enumerate(SPECIAL_TOKENS)},
                **{f"{name.removesuffix('_token')}_piece": piece for name, piece in SPECIAL_TOKENS.items()},
                num_threads=num_threads,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePiece cannot make {vocab_size} pieces of these captions ({error}). "
                "Change `vocab_size` or pass more captions."
            ) from error
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
        backend = Tokenizer(Unigram(vocabulary, unk_id=pieces.unk_id(), byte_fallback=True))
        backend.normalizer = normalizer
        spaces = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([spaces, _never_whole(pieces, normalizer)])
        words = decoders.Metaspace(prepend_scheme="always", split=True)
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), words])
        return cls._wrap(backend, **kwargs)

    @classmethod
    def _wrap(cls, backend: Tokenizer, **kwargs: Any) -> Self:
        # A caption that spells a special token is never parsed as one.
        defaults = {**SPECIAL_TOKENS, "model_max_length": MAX_WORDS, "split_special_tokens": True}
        return cls(tokenizer_object=backend, **{**defaults, **kwargs})


Rule = tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]


def _word_backend(
    vocabulary: dict[str, int], normalizer: normalizers.Normalizer, splitter: pre_tokenizers.PreTokenizer
) -> Tokenizer:
    backend = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    return backend


def _release_rule() -> Rule:
    punctuation = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), "")
    lower = [normalizers.Replace(letter, letter.lower()) for letter in string.ascii_uppercase]
    splitter = pre_tokenizers.Split(Regex(r"[\t-\r ]+"), "removed")
    return normalizers.Sequence([punctuation, *lower]), splitter


def _word_rule() -> Rule:
    apostrophe = normalizers.Replace(Regex(r"(?<=\w)['\u2018\u2019\u02bc\u2032](?=\w)"), "")
    # Punctuation, white space, controls and ASCII symbols; other symbols, such as emoji, may be words.
    between = r"[\p{P}\p{Z}\p{Cc}$+<=>^`|~\u200b\ufeff]+"
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), apostrophe])
    return normalizer, pre_tokenizers.Split(Regex(between), "removed")


def _piece_normalizer() -> normalizers.Normalizer:
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), spaces, normalizers.Strip()])


def _never_whole(pieces: Any, normalizer: normalizers.Normalizer) -> pre_tokenizers.PreTokenizer:
    """Split captions within the spelling of a control or byte piece, which SentencePiece reads as characters
    but the `tokenizers` model would look up; if possible where no learned piece lies across."""
    spelled, pairs = [], set()
    for index in range(pieces.get_piece_size()):
        piece = pieces.id_to_piece(index)
        if not (pieces.is_control(index) or pieces.is_unknown(index) or pieces.is_byte(index)):
            pairs.update(map("".join, pairwise(piece)))
        elif normalizer.normalize_str(piece) == piece:
            spelled.append(piece)
    heads = []
    for piece in spelled:
        free = (end for end in range(1, len(piece)) if piece[end - 1 : end + 1] not in pairs)
        end = next(free, 1)
        heads.append(f"{re.escape(piece[:end])}(?={re.escape(piece[end:])})")
    return pre_tokenizers.Split(Regex("|".join(heads)), "merged_with_previous")


def _non_empty(texts: Iterator[str]) -> Iterator[str]:
    # The trainer's own error for an empty corpus has no message.
    first = next(texts, None)
    if first is None:
        raise ValueError("There are no captions to train on: pass at least one.")
    return chain([first], texts)
