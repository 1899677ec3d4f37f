# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Every code block of README.md and docs/ is executed, and every public name is documented.

The blocks of a page become one program, run in a folder that holds the files the text speaks of. Commands run
too: scripts with the tiny settings of `RUN_WITH` appended, which override those of the page. What cannot run
here is read by the command's own argument parser (`PARSED`) or stands in `NOT_EXECUTED` with the reason. A
command or language that none of these knows fails the test.
"""

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest
import typer
from clip_folders import make_folder, small_processor
from hub_stand_in import TOKEN, HubStandIn
from media_factory import numbered_frames, tone, write_media
from public_modules import public_modules
from scripts import CLASSIFICATION, PRETRAINING, flags
from transformers import HfArgumentParser

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.cli import app
from modeling_vatt.cli.common import NOTHING_FOUND


ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Scripts: options appended to those of the page. Only size and duration; what the page shows stays in force.
TINY_RUN = {**PRETRAINING, "num_steps": 2, "eval_every": 2}
RUN_WITH: dict[str, list[str]] = {
    "examples/run_pretraining.py": flags(**TINY_RUN),
    "examples/search_precision.py": [],
    "examples/prepare_shards.py": [],
    "examples/embed_corpus.py": [],
    "examples/run_video_classification.py": flags(**{**CLASSIFICATION, "max_steps": 2, "warmup_steps": 1}),
    "examples/run_linear_probe.py": ["--head_epochs", "3"],
    "examples/run_zero_shot_retrieval.py": [],
    "examples/analyse.py": ["--keep", "0.5", "1.0"],
}
VATT_RUN = ("flops", "index", "search", "compare", "embed", "info")
# Read by their own parser only, with the reason.
PARSED = {
    "accelerate launch": "several processes and a GPU; see test_distributed.py",
    "python examples/run_audio_classification.py": "as that of videos; test_classification_scripts.py",
    "python examples/run_image_classification.py": "as that of videos; test_classification_scripts.py",
    "python examples/run_mteb.py": "fetches data sets of the Hub; see tests/embedding/test_mteb.py",
    "vatt convert": "fetches a checkpoint, or reads one with TensorFlow; see tests/convert/test_convert.py",
    "make": "builds an environment of its own; here make says what it would do",
}
NOT_EXECUTED = {
    "cd": "every page runs in a folder of its own",
    "git clone": "needs the network",
    "pip install": "needs a package index; CI installs the package in `make test-all` and `make check-wheel`",
    "hf auth login": "asks for a token",
    "python benchmarks/": "measures for minutes; a wrong name is noticed, see `check_command`",
}
# Fences without code that could run.
DATA_BLOCKS = {"json": json.loads, "bibtex": str, "text": str}
# Commands beside the blocks to run: in the text, indented, in fences of text, in docstrings of scripts.
BESIDE = re.compile(r"(?:`|^(?: {4})?)((?:python examples/|vatt \w+ )(?:[^`\n\\]|\\\n)+)", re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of every fence of a page."""
    text = (ROOT / page).read_text()
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(FENCE.findall(text)), f"{page}: open fence"
    return FENCE.findall(text)


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block, as words; `a && b` makes two."""
    lines = block.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    result: list[list[str]] = []
    for line in words:
        for word in ["&&", *line] if line else []:
            if word == "&&":
                result.append([])
            else:
                result[-1].append(word)
    return result


def beside(text: str) -> list[list[str]]:
    """Commands of a text, its fences of commands aside."""
    text = re.sub(r"^```bash\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [words for line in BESIDE.findall(text) for words in commands(line) if len(words) > 2]


def runnable(words: list[str]) -> list[str] | None:
    """What to run for a command, None if it is not run."""
    if words[0] == "python" and words[1] in RUN_WITH:
        return [str(ROOT / words[1]), *words[2:], *RUN_WITH[words[1]]]
    runs = words[0] == "vatt" and words[1] in VATT_RUN and "--server" not in words  # nobody serves here
    if words == ["vatt", "convert", "--list"] or runs:
        return words
    return None


def known(words: list[str], table: dict[str, str]) -> bool:
    line = " ".join(words)
    return any(line == start or line.startswith(start.rstrip("/") + end) for start in table for end in " /")


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail for a command that is not known, or that its own parser does not understand."""
    if words[0] == "vatt" and runnable(words) is not None:
        return
    if words[0] == "python" and words[1].startswith("examples/"):
        parse_script(words[1:], monkeypatch)
    elif words[:2] == ["accelerate", "launch"]:
        parse_script(words[2:], monkeypatch)
    elif words[0] == "vatt":
        parse_vatt(words[1:])
    elif words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "python" and words[1].startswith("benchmarks/"):
        assert (ROOT / words[1]).is_file(), words
    else:
        assert known(words, NOT_EXECUTED), f"say in this test what becomes of: {' '.join(words)}"


class ParsedError(Exception):
    """The parser of a script is content."""


def parse_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a script up to the moment when it has read its arguments."""
    original = HfArgumentParser.parse_args_into_dataclasses

    def parse(self: HfArgumentParser, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(HfArgumentParser, "parse_args_into_dataclasses", parse)
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(ROOT / "examples"))
        with pytest.raises(ParsedError):
            importlib.import_module(Path(words[0]).stem).main()


def parse_vatt(words: list[str]) -> None:
    group = typer.main.get_command(app)
    context = group.make_context("vatt", list(words))
    name, command, rest = group.resolve_command(context, words)
    assert command is not None
    command.make_context(name, list(rest), parent=context)


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page, monkeypatch):
    found = blocks(page)
    for language, content in found:
        if language == "bash":
            for words in commands(content):
                check_command(words, monkeypatch)
        elif language in DATA_BLOCKS:
            DATA_BLOCKS[language](content)
        else:
            assert language == "python", f"{page}: a block of the unknown language {language!r}"
            ast.parse(content)
    for words in beside((ROOT / page).read_text()):
        check_command(words, monkeypatch)


def test_commands_in_docstrings_are_understood(monkeypatch):
    checked = set()
    for path in sorted((ROOT / "examples").glob("*.py")):
        for words in beside(ast.get_docstring(ast.parse(path.read_text())) or ""):
            check_command(words, monkeypatch)
            checked.add(words[1])
    assert len(checked) >= 10


def test_a_renamed_option_is_noticed(monkeypatch):
    for line in (
        "python examples/run_pretraining.py --dataset a --output_dir b --steps 3",
        "python examples/search_precision.py --index a --matches b",
    ):
        with pytest.raises((SystemExit, ValueError)):
            check_command(line.split(), monkeypatch)
    with pytest.raises(Exception, match="No such option"):
        check_command(["vatt", "convert", "tx_fac_mbs", "--out", "x"], monkeypatch)
    with pytest.raises(AssertionError, match="say in this test"):
        check_command(["curl", "http://example.org"], monkeypatch)


def program(page: str) -> str:
    """The blocks of a page as one program; "" if nothing in it runs."""
    parts = []
    for language, content in blocks(page):
        if language == "python":
            parts.append(content)
        for words in commands(content) if language == "bash" else ():
            command = runnable(words)
            if command is None:
                continue
            # In the process of the page: starting takes longer than the work. Untrained models find nothing
            # that is likely.
            good = (None, 0, NOTHING_FOUND) if "--at-least" in command else (None, 0)
            call = (
                f"main({command[1:]!r})"
                if command[0] == "vatt"
                else "runpy.run_path(sys.argv[0], None, '__main__')"
            )
            parts.append(
                f"import runpy, sys\nfrom modeling_vatt.cli import main\nsys.argv = {command!r}\n"
                f"try: {call}\nexcept SystemExit as ended: assert ended.code in {good}, ended.code\n"
            )
    return "\n".join(parts)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """What the pages speak of, tiny."""
    folder = tmp_path_factory.mktemp("files")
    for split, first, count in (("train", 0, 10), ("validation", 10, 5)):  # as README.md says
        make_folder(folder / "my_videos", count, split=split, first=first)
        metadata = folder / "my_videos" / split / "metadata.jsonl"
        rows = [json.loads(line) for line in metadata.read_text().splitlines()]
        lines = [json.dumps({**row, "label": ("dog", "rain")[i % 2]}) for i, row in enumerate(rows)]
        metadata.write_text("\n".join(lines) + "\n")
    frames = numbered_frames(40)
    write_media(folder / "clip.mp4", frames=frames, fps=10, waveform=tone(4, 16000), sampling_rate=16000)
    sound = tone(1, 16000)
    write_media(folder / "bark.wav", waveform=sound, sampling_rate=16000, audio_codec="pcm_s16le")
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    video = {"num_frames": 8, "image_size": 32, **tower}
    config = VattConfig(video_config=video, audio_config={**tower, "num_samples": 12800}, text_config=tower)
    processor = small_processor(config)
    config.text_config.vocab_size = len(processor.tokenizer)
    for name in ("my_model", "another_model", "vatt-mbs"):
        VattForPreTraining(config).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


RUN_PAGES = [page for page in PAGES if program(page)]


def test_every_page_with_code_is_run():
    with_python = {page for page in PAGES for language, _ in blocks(page) if language == "python"}
    assert with_python <= set(RUN_PAGES) and len(RUN_PAGES) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_PAGES)
def test_code_of_page_runs(page, files, tmp_path):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    code = program(page)
    if "run_pretraining.py" in code:  # the page makes the model itself
        shutil.rmtree(tmp_path / "my_model")
    script = tmp_path / "page.py"
    script.write_text(code)
    with HubStandIn() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "HF_TOKEN": TOKEN}
        environment["PYTHONPATH"] = str(ROOT / "examples")  # where the scripts find each other
        result = processes.run(script, cwd=tmp_path, env=environment, timeout=600)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    assert TOKEN not in output


# --- docstrings ---


def public_objects() -> dict[str, Any]:
    """Public classes and functions of the package, and the public methods that these classes define."""
    found: dict[str, Any] = {}
    for module_name, module in public_modules().items():
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in names:
            value = getattr(module, name)
            if not getattr(value, "__module__", "").startswith("modeling_vatt") or not callable(value):
                continue
            found[f"{module_name}.{name}"] = value
            if inspect.isclass(value):
                for attribute, member in vars(value).items():
                    member = getattr(member, "__func__", getattr(member, "fget", member))
                    own = inspect.isfunction(member) and member.__module__.startswith("modeling_vatt")
                    if own and not attribute.startswith("_"):
                        found[f"{module_name}.{name}.{attribute}"] = member
    return found


def own_docstring(value: Callable[..., Any]) -> str:
    """Not that of a base class, nor the signature that `dataclass` writes."""
    text = inspect.cleandoc(value.__doc__ or "")
    if inspect.isclass(value) and text.startswith(f"{value.__name__}("):
        return ""
    return text


def test_every_public_name_has_a_docstring():
    objects = public_objects()
    assert len(objects) > 80
    assert not [name for name, value in objects.items() if not own_docstring(value)]
    # A first sentence comes before the lists.
    assert not [
        name for name, value in objects.items() if re.match(r"(Args|Returns|Raises):", own_docstring(value))
    ]


def test_arguments_in_docstrings_exist():
    """A renamed argument leaves no trace in the documentation."""
    wrong = []
    for name, value in public_objects().items():
        described = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", own_docstring(value), re.MULTILINE | re.DOTALL)
        if described is None:
            continue
        parameters = set(inspect.signature(value).parameters) | set(getattr(value, "__annotations__", {}))
        for line in re.findall(r"^    (\*{0,2}\w[\w, *]*?)(?: \(.*)?:", described[1], re.MULTILINE):
            for argument in line.replace("*", "").split(", "):
                if argument not in parameters and "kwargs" not in parameters:
                    wrong.append(f"{name}: {argument}")
    assert not wrong


def test_every_module_says_what_it_is():
    for folder in ("modeling_vatt", "configuration", "processors", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_signatures_are_complete():
    """Also of what mypy does not see: every argument of a public function has a type."""
    bare = [
        f"{name}({parameter.name})"
        for name, value in public_objects().items()
        if inspect.isfunction(value)
        for parameter in inspect.signature(value).parameters.values()
        if parameter.name not in ("self", "cls") and parameter.annotation is inspect.Parameter.empty
    ]
    assert not bare


# --- the site ---


def test_navigation_lists_every_page():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    found = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert listed == found


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path):
    pytest.importorskip(
        "mkdocstrings", reason="the extra `docs` is not installed; `make docs` builds the site"
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "site" / "api" / "models" / "index.html").read_text()
    assert 'id="modeling_vatt.VattModel.get_video_features"' in page
    assert re.search(r'href="#modeling_vatt\.VattModelOutput"', page)
    for name in ("modeling_vatt.data.ClipDataset", "modeling_vatt.processors.VattProcessor"):
        assert f'id="{name}"' in (tmp_path / "site" / "api" / name.split(".")[1] / "index.html").read_text()
