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
# Beginning of a message -> why it may stay.
REVIEWED: dict[str, str] = {
    "<error>": "the command line shows the message of the package",
    "<empty>": "made above, with what is missing and where to put it",
    "<str(error)>": "shown as it was made",
    "{address}: {reason}": "the reason is a sentence of the server",
    "<_sentence(error)>": "a remedy is added where the system gives none",
    "<file> | <str(error)>": "a helper adds what to do",
    "<MANIFEST>": "a helper adds what to do",
    "<INDEX>": "a helper adds what to do",
    "<found>": "`explain` makes cause and remedy",
    "{source}: {error}": "the error says both",
    "{variables.source}": "says what was expected",
    "{type(self).__name__} knows no argument": "names the argument; what is known stands in the "
    "documentation",
    **dict.fromkeys(
        (
            "odd names",
            "odd counts",
            "other columns than",
            "shards out of order",
            "other numbers of clips",
            "clips outside of their shards",
            "times are finite numbers",
            "unexpected end of data",
            "captions are strings",
            "a name that no table takes",
            "cut off after {tar.offset}",
            "no header of a member",
            "more after the end mark",
            "no JSON object",
            "missing values",
        ),
        "caught where shards are read, with what to do added",
    ),
    **dict.fromkeys(
        (
            "a field of type",
            "a number without end",
            "it does not end as a table",
            "it has no header",
            "it names no data",
            "a block is cut short",
        ),
        "caught where sizes are compared, with the index and what to do added",
    ),
    **dict.fromkeys(
        (
            "{captions} is neither a caption",
            "the name {name} leads out",
            "{value} is no text",
            "{value} is no moment",
            "{value} is no time",
        ),
        "caught where lists are read, with file and row added",
    ),
    **dict.fromkeys(
        (
            "not the database of an index",
            "`{key}` is no JSON",
            "`generation` is no number",
            "files whose properties",
            "windows whose times",
            "vectors of `{space}`",
            "{_file(store, space",
        ),
        "a helper adds the index and what to do",
    ),
    "refused, it changes a class": "caught where the word table is read, with the file added",
    "{path}: refused, more than": "an archive that is none of the release's: nothing to be done with it",
    "{folder}: no such folder": "a path that is not there",
    "{name}: a model of type": "says what it is and what it should be",
    "{name}: a dataset without": "says what is missing",
    "<missing>": "made above: how to make an index",
    "{missing}": "made above: how to make an index",
    "The query {text} holds no words": "shows the query; words are to be given",
    "{len(starts)} starts": "says how many there must be",
    "A query in `{space}` has": "says how many there must be",
    "{store.file}: settings that cannot": "damage; the class of the error says so",
    "The index knows no folder": "`root` of the method says how to name one",
    "no {scope": "never reaches a user",
    "Settings of a model are": "says what they must be",
    "The process for decoding does not start": "says why, and how to do without it",
    "<name> | <reason> | <remedy>": "made above",
    "<clip.path> | <error>": "`_storage_fails` says what to do",
    "<path> | <error>": "`_storage_fails` says what to do",
    "<*map(str": "the isolated process's own message, made there",
    "Limits of media are a JSON object": "says what is allowed",
    "preprocess() makes": "cannot happen",
    "the server answers": "a helper adds what to do",
    "more than {_MAX_REDIRECTS}": "a helper adds what to do",
    "cannot be fetched": "a helper adds what to do",
    **dict.fromkeys(
        (
            "A fine-tuned checkpoint has no words",
            "A pretraining checkpoint has no classes",
            "A modality-agnostic model has one encoder",
            "The towers of a modality-agnostic model share",
            "A worker process died",
            "Ray is not installed",
            "Reading TensorFlow checkpoints",
            "There are no captions to train on",
            "The sound holds no samples",
            "This model has no",
            "no video and no audio stream",
        ),
        "there is no value to show; what is wrong is said in words, and what to do after it",
    ),
    "{name}: some modules import": "for who writes the package",
    "`start` has {len(starts)}": "says how many there must be",
    "video and audio are both False": "both arguments are named, and that one is to be True is plain",
    "{checkpoint} was written with other": "`advice` says what to do",
    "{name} tower: {error}": "`require_repository` made the message",
    "Stopped by": "`how_to_continue` ends it",
    "A clip of {len(frames)": "says how long the clip is",
    "A sound of {len(waveform)": "says how long the sound is",
    "`video_metadata` has {len(metadata)}": "says how many there must be",
    "A clip without frames": "an argument without content; frames are to be given",
    "A source is": "says what is one",
    "{data}: no such folder": "a path that is not there",
    "{data}: no column": "lists the columns there are",
    "{annotations}: cannot be read": "shows the reason that reading failed for",
    "{annotations}: {row} is not": "shows the row and what it should be",
    "{path}: cannot understand": "shows the place and the reason",
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
    return any(message.startswith(known) for known in REVIEWED)


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
