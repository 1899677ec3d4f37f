# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a name is a local folder or a repository of the Hub, before anything is loaded.

Without a network, transformers tries the Hub for half a minute for every file. Here a name that cannot be on
the Hub is refused at once, and others cost one request.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal


HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")
_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/)?[\w.-]*[A-Za-z0-9_]")


def is_hub_name(name: str | os.PathLike, bare: bool = False) -> bool:
    """Whether this can be a repository: `OWNER/NAME`, or with `bare` also `NAME`."""
    found = _HUB_NAME.fullmatch(name) if isinstance(name, str) and ".." not in name else None
    return found is not None and (bare or found[1] is not None)


def require_repository(
    name: str | os.PathLike,
    kind: Literal["model", "dataset"] = "model",
    file: str = "config.json",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    bare: bool = False,
) -> bool:
    """Check that a folder, or else a repository with `file`, exists. The Hub has `HF_HUB_ETAG_TIMEOUT`
    seconds to answer, 10 by default.

    Args:
        name, kind, file, revision, token, cache_dir: of the repository.
        bare: its name may lack an owner.

    Returns:
        whether only what the Hub's cache holds can be had: the Hub does not answer.

    Raises:
        NotADirectoryError: a file.
        FileNotFoundError: neither a folder nor a repository, as far as one can tell.
    """
    path = Path(name)
    if path.is_dir():
        return False
    if path.exists():
        raise NotADirectoryError(f"{name}: is a file. Give the folder that holds {file}.")
    if not is_hub_name(name, bare):
        raise FileNotFoundError(
            f"{name}: no such folder. Check the path; a {kind} on the Hub is named OWNER/NAME."
        )
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    name = str(name)
    found = try_to_load_from_cache(name, file, cache_dir, revision, kind)
    reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        url = hf_hub_url(name, file, repo_type=kind, revision=revision)
        try:
            get_hf_file_metadata(url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return False
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                return False  # what to do about it is said by whoever loads it
            raise FileNotFoundError(
                f"{name}: no such folder, nor a {kind} on the Hub. Check the path; log in for a private one."
            ) from None
        except HfHubHTTPError:  # the Hub is there, and says more to whoever loads it
            return False
        except Exception as error:  # of the HTTP library, which is another one in each version of the client
            reason = f"the Hub cannot be reached ({error})"
    if isinstance(found, str):
        return True
    raise FileNotFoundError(
        f"{name}: no such folder, and {reason}. Check the path, or the network for a {kind} on the Hub."
    )


def asked_once(name: str | os.PathLike, file: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """`kwargs` of `from_pretrained` with `local_files_only`, by [`require_repository`] if it is not given:
    transformers then does not try the Hub for file after file where it does not answer."""
    if "local_files_only" in kwargs:
        return kwargs
    known = {option: kwargs[option] for option in ("revision", "token", "cache_dir") if option in kwargs}
    file = "/".join(filter(None, (kwargs.get("subfolder"), file)))
    return {**kwargs, "local_files_only": require_repository(name, file=file, **known)}


def find_file(name: str | os.PathLike, file: str, **hub: Any) -> str | None:
    """Where a file of a folder or repository lies on this machine, None if it has no such file; of `hub` the
    `HUB_OPTIONS` count."""
    from transformers.utils.hub import cached_file

    options = {key: value for key, value in hub.items() if key in HUB_OPTIONS}
    try:
        return cached_file(str(name), file, _raise_exceptions_for_missing_entries=False, **options)
    except OSError:
        return None


def read_json(name: str | os.PathLike, file: str, **hub: Any) -> Any:
    """Content of such a file, {} without one."""
    path = find_file(name, file, **hub)
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
