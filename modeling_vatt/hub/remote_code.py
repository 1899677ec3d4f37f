# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Code saved with a checkpoint, for `trust_remote_code=True` where this package is not installed.

transformers loads such code from files in one flat folder, each file named in an `auto_map` as a separate
module; a class imported by two of them would exist twice, and `isinstance` fail. So the modules of this
package are joined into two files, one for configurations and models, one for processors, from the installed
sources.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._version import __version__


# Not `modeling_vatt.py`: that file would hide the package from a Python started in the folder.
MODEL_FILE = "vatt_model"
PROCESSING_FILE = "vatt_processing"

_PACKAGE = __name__.partition(".")[0]
_ROOTS = {
    MODEL_FILE: ("models.modeling_vatt", "models.classification"),
    PROCESSING_FILE: (
        "processors.processing_vatt",
        "processors.image_processing_vatt",
        "processors.tokenization_vatt",
    ),
}
_MODELS = {
    "AutoConfig": "VattConfig",
    "AutoModel": "VattModel",
    "AutoModelForPreTraining": "VattForPreTraining",
    "AutoModelForVideoClassification": "VattForVideoClassification",
    "AutoModelForAudioClassification": "VattForAudioClassification",
    "AutoModelForImageClassification": "VattForImageClassification",
}
# Key of the class name in a processor's file -> Auto class. Parts of a processor are nested in its file.
_PROCESSORS = {
    "feature_extractor_type": "AutoFeatureExtractor",
    "image_processor_type": "AutoImageProcessor",
    "video_processor_type": "AutoVideoProcessor",
}
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")

_HEADER = '''# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Code of this checkpoint, for `trust_remote_code=True`.

{made}
Change it there, not here.
"""
'''


def save_remote_code(folder: str | os.PathLike) -> list[str]:
    """Save the code of the classes beside a checkpoint, so that it loads without this package.

    Call it after each `save_pretrained` into the folder. Other libraries must be installed (PyAV, soxr and
    sentencepiece for the processors); transformers names missing ones.

    ```python
    >>> model.save_pretrained("my_vatt")
    >>> processor.save_pretrained("my_vatt")
    >>> save_remote_code("my_vatt")
    ['vatt_model.py', 'vatt_processing.py']
    >>> # elsewhere, without the package
    >>> AutoModel.from_pretrained("my_vatt", trust_remote_code=True)
    ```

    Args:
        folder: where a model, a processor or a part of one was saved.

    Returns:
        Names of the code files.

    Raises:
        ValueError: if nothing of this package was saved there.
    """
    folder = Path(folder)
    needed: set[str] = set()
    for name in ("config.json", *_PROCESSOR_FILES, "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        settings = json.loads(path.read_text(encoding="utf-8"))
        used = _add_auto_maps(name, settings)
        if used:
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            needed.add(used)
    if not needed:
        raise ValueError(f"{folder}: holds no VATT model or processor. Save one there first.")
    for name in needed:
        (folder / f"{name}.py").write_text(flat_source(name), encoding="utf-8")
    return sorted(f"{name}.py" for name in needed)


def _add_auto_maps(name: str, settings: dict[str, Any]) -> str | None:
    """Name the classes in the content of a file; returns their code file, None if not of this package."""
    if name == "config.json":
        if settings.get("model_type") != "vatt":
            return None
        settings["auto_map"] = {auto: f"{MODEL_FILE}.{cls}" for auto, cls in _MODELS.items()}
        return MODEL_FILE
    if name == "tokenizer_config.json":
        if settings.get("tokenizer_class") != "VattTokenizer":
            return None
        settings["auto_map"] = {"AutoTokenizer": [None, f"{PROCESSING_FILE}.VattTokenizer"]}
        return PROCESSING_FILE
    found = False
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        for key, auto in _PROCESSORS.items():
            if str(part.get(key)).startswith("Vatt"):
                part["auto_map"] = {auto: f"{PROCESSING_FILE}.{part[key]}"}
                found = True
    if name == "processor_config.json" and settings.get("processor_class") == "VattProcessor":
        settings["auto_map"] = {"AutoProcessor": f"{PROCESSING_FILE}.VattProcessor"}
        found = True
    return PROCESSING_FILE if found else None


def flat_source(name: str) -> str:
    """Text of one of the code files: all needed modules joined; ValueError if two define one name."""
    modules = _in_order([f"{_PACKAGE}.{root}" for root in _ROOTS[name]])
    meanings: dict[str, str] = {}
    bodies: list[str] = []
    for module in modules:
        repeated = [line for bound, line in module.definitions.items() if meanings.get(bound) == line]
        for bound, meaning in (*module.imports.items(), *module.definitions.items()):
            if meanings.setdefault(bound, meaning) != meaning:
                raise ValueError(
                    f"{name}: {bound!r} has two meanings, the second in {module.name}. Rename it."
                )
        text = module.body
        for line in repeated:  # such as every module's `logger`
            text = text.replace(line + "\n", "", 1)
        bodies.append(text)
    made = f"Made by modeling_vatt {__version__} from {', '.join(module.name for module in modules)}."
    parts = [_HEADER.format(made=textwrap.fill(made, 110))]
    parts += [_grouped({statement for module in modules for statement in module.imports.values()}), *bodies]
    text = re.sub(r"\n{4,}", "\n\n\n", "\n\n".join(parts)).rstrip() + "\n"
    compile(text, f"{name}.py", "exec")
    return text


def _grouped(statements: set[str]) -> str:
    """Import statements, one for each module."""
    plain = sorted(statement for statement in statements if statement.startswith("import "))
    origins: dict[str, list[str]] = {}
    for statement in sorted(statements - set(plain)):
        origin, _, clause = statement.partition(" import ")
        origins.setdefault(origin, []).append(clause)
    grouped = [f"{origin} import ({', '.join(clauses)})" for origin, clauses in origins.items()]
    return "\n".join([*plain, *grouped]) + "\n"


@dataclass
class _Module:
    """A parsed module of this package."""

    name: str
    is_package: bool
    body: str = ""  # without header, imports and `__all__`
    imports: dict[str, str] = field(default_factory=dict)  # from elsewhere: bound name -> statement
    # Name -> text of its statement if that is one line, else where it is.
    definitions: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)  # modules of this package imported at its top
    needs_later: list[str] = field(default_factory=list)  # and inside functions


def _in_order(roots: list[str]) -> list[_Module]:
    """The modules and all they need, each after those it imports at its top. Packages are left out: they
    register with the Auto classes, which would then use one checkpoint's classes for the next."""
    order: dict[str, _Module] = {}
    pending = list(roots)

    def visit(name: str) -> None:
        if name not in order:
            module = _take_apart(name)
            for need in module.needs:
                visit(need)
            order[name] = module
            pending.extend(module.needs_later)

    while pending:
        visit(pending.pop(0))
    return [module for module in order.values() if module.body.strip() and not module.is_package]


def _take_apart(name: str) -> _Module:
    source = importlib.import_module(name)
    is_package = hasattr(source, "__path__")
    package = name if is_package else name.rpartition(".")[0]
    text = inspect.getsource(source)
    tree = ast.parse(text)
    lines = text.splitlines()
    module = _Module(name, is_package)
    dropped = set(range(1, tree.body[0].lineno))  # copyright
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.module is None or any(alias.asname for alias in node.names):
                raise ValueError(
                    f"{name}, line {node.lineno}: only `from .module import name` can be joined."
                )
            need = importlib.util.resolve_name("." * node.level + node.module, package)
            (module.needs if id(node) in top else module.needs_later).append(need)
        elif id(node) not in top or not _is_header(node, tree):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            for alias in node.names:
                bound = f" as {alias.asname}" if alias.asname else ""
                origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                module.imports[alias.asname or alias.name] = f"{origin}import {alias.name}{bound}"
        assert isinstance(node, ast.stmt)
        dropped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for node in tree.body:
        if node.lineno not in dropped:
            one_line = lines[node.lineno - 1] if node.lineno == node.end_lineno else f"{name}:{node.lineno}"
            module.definitions |= dict.fromkeys(_bound_names(node), one_line)
    kept = [line for number, line in enumerate(lines, start=1) if number not in dropped]
    module.body = "\n".join(kept).strip("\n")
    module.body += "\n" if module.body else ""
    return module


def _is_header(node: ast.AST, tree: ast.Module) -> bool:
    """Whether a statement at the top of a module is left out: docstring, imports, `__all__`."""
    if isinstance(node, ast.Assign):
        return _bound_names(node) == ["__all__"]
    docstring = node is tree.body[0] and isinstance(node, ast.Expr)
    return docstring or isinstance(node, ast.Import | ast.ImportFrom)


def _bound_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


__all__ = ["flat_source", "save_remote_code"]
