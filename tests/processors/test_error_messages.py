# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Every message of an exception that the package raises names what is wrong and what to do about it.

A message says what is wrong by a value it shows, or by an argument, option or file it names; and what to do
by an instruction, or by what is allowed. That is read from the words, so it errs now and then: `REVIEWED`
lists what was found good enough all the same, with the reason.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import modeling_vatt.configuration
import modeling_vatt.processors


ROOTS = [
    Path(module.__file__).parent
    for module in (modeling_vatt, modeling_vatt.configuration, modeling_vatt.processors)
]
# A value in braces, a `name`, an --option, or a word in capitals that stands for a file or field.
CAUSE = re.compile(r"[{<]|`[^`]+`|--\w|\b[A-Z]{2,}\b")
# An instruction (at the beginning of a clause), or what would have been right.
_INSTRUCTIONS = (
    "add|allow|call|check|choose|convert|copy|correct|delete|divide|do not|download|drop|enlarge|fetch|fit|"
    "free|give|go|index|install|leave|lengthen|let|lower|make|mend|merge|mix|move|name|normalise|pass|pip|pull|put|"
    "raise|read|remove|renumber|resample|resize|run|save|search|set|shorten|show|start|take|try|unpack|"
    "update|use|wait|write"
)
_ALLOWED = (
    "must (?:both )?(?:not )?(?:be|lie|hold|have|stand)|expected|needs?|one of|takes?|only|is a|starts "
    "from|the same command"
)
REMEDY = re.compile(
    rf"(?:^|[.:;,(|?}}]|\b(?:or|and|then|first|to)\b)\s*(?:{_INSTRUCTIONS})\b|\b(?:{_ALLOWED})\b",
    re.IGNORECASE,
)
# Exceptions that no user sees: ends of a protocol, exit codes; and answers of the web page, which its own
# tests look at.
INTERNAL = {"EOFError", "Exit", "HTTPException"}
# Why messages may stay, by their beginnings.
REVIEWED: dict[str, tuple[str, ...]] = {
    "made elsewhere, with cause and remedy": (
        *("<error>", "<str(error)>", "<_sentence(error)>", "<found>", "{address}: {reason}"),
        *("{source}: {error}", "{name} tower: {error}"),
        *("<name> | <reason> | <remedy>", "<clip.path> | <error>", "<path> | <error>"),
    ),
    "caught, and raised again with the file and what to do": (
        # shards
        *("<MANIFEST>", "<INDEX>", "odd names", "odd counts", "other columns than", "shards out of order"),
        *("other numbers of clips", "clips outside of their shards", "a name that no table takes"),
        *("cut off after {tar.offset}", "no header of a member", "more after the end mark"),
        *("no JSON object", "missing values"),
        # indexes of checkpoints and of videos
        *("a field of type", "a number without end", "it does not end as a table", "it has no header"),
        *("it names no data", "a block is cut short", "not the database of an index", "`{key}` is no JSON"),
        *("files whose properties", "windows whose times", "vectors of `{space}`", "{_file(store, space"),
        # lists, word tables, downloads, checkpoints
        *("the name {name} leads out", "{value} is no text", "{value} is no moment"),
        *("refused, it changes a class", "the server answers", "more than {_MAX_REDIRECTS}"),
        *("cannot be fetched", "{checkpoint} was written with other"),
    ),
    "says what or how many there must be": (
        *("{type(self).__name__} knows no argument", "{name}: a model of type", "{name}: a dataset without"),
        *("{len(starts)} starts", "`start` has {len(starts)}", "`video_metadata` has {len(metadata)}"),
        *("The query {text} holds no words", "The index knows no folder", "{data}: no column"),
        *("Limits of media are a JSON object", "A clip without frames", "{annotations}: {row} is not"),
        *("video and audio are both False", "A clip of {len(frames)", "A sound of {len(waveform)"),
    ),
    "says what is not there, damaged, or why it cannot be": (
        *("{folder}: no such folder", "{data}: no such folder", "{annotations}: cannot be read"),
        *("{store.file}: settings that cannot", "{path}: refused, more than"),
        *("The process for decoding does not start",),
    ),
    "there is no value to show; what is wrong is said in words, and what to do after it": (
        *("A fine-tuned checkpoint has no words", "A pretraining checkpoint has no classes"),
        *("A modality-agnostic model has one encoder", "The towers of a modality-agnostic model share"),
        *("A worker process died", "Ray is not installed", "Reading TensorFlow checkpoints"),
        *("There are no captions to train on", "The sound holds no samples", "This model has no"),
        *("no video and no audio stream",),
    ),
    "no user sees it": ("no {scope", "preprocess() makes", "{name}: some modules import"),
}


def words_of(node: ast.expr) -> str:
    """The text of a message, with `{...}` for what is filled in; `<...>` if it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (part if isinstance(part, ast.Constant) else part.value for part in node.values)
        return "".join(
            str(p.value) if isinstance(p, ast.Constant) else f"{{{ast.unparse(p)}}}" for p in parts
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words_of(node.left) + words_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{words_of(node.body)} / {words_of(node.orelse)}"
    return f"<{ast.unparse(node)}>"


def messages() -> Iterator[tuple[str, str]]:
    """(place, message) of every exception that is made where it is raised."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    made_by = ast.unparse(node.exc.func).rpartition(".")[2]
                    if made_by in INTERNAL or (made_by[0].islower() and not node.exc.args):
                        continue  # a helper without arguments makes all of it
                    parts = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
                    text = " | ".join(map(words_of, parts))
                    yield f"{path.relative_to(root.parent)}:{node.lineno}", text


FOUND = sorted(set(messages()))


def is_reviewed(message: str) -> bool:
    return message.startswith(sum(REVIEWED.values(), ()))


def test_messages_are_found():
    assert len(FOUND) > 250 and any("must be in (0, 1]" in text for _, text in FOUND)


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ("`windows` must be at least 1, got {windows}.", True),
        ("{path}: no such file. Unpack it there.", True),
        ("{path} is broken.", False),
        ("Something went wrong.", False),
        ("", False),
    ],
)
def test_the_rule_tells_good_messages_from_poor_ones(message, good):
    assert bool(len(message) > 15 and CAUSE.search(message) and REMEDY.search(message)) is good


def test_every_message_names_cause_and_remedy():
    poor = [
        f"{place} {text!r}"
        for place, text in FOUND
        if not is_reviewed(text) and not (len(text) > 15 and CAUSE.search(text) and REMEDY.search(text))
    ]
    assert not poor, "\n".join([f"{len(poor)} messages:", *poor])
