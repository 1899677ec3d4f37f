# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether a name is a folder here or a repository of the Hub, found out before anything is loaded.

transformers asks the Hub for whatever is no folder, file by file, for half a minute each where there is no
network. Here a name that cannot be one on the Hub is refused at once, and the others cost one request.
"""

import os
import re
from pathlib import Path
from typing import Literal


_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9_]")
_PATIENCE = 10.0  # seconds for the server to answer


def is_hub_name(name: str | os.PathLike) -> bool:
    """Whether a repository can be called so: `OWNER/NAME`."""
    return isinstance(name, str) and _HUB_NAME.fullmatch(name) is not None and ".." not in name


def require_repository(
    name: str | os.PathLike,
    kind: Literal["model", "dataset"] = "model",
    file: str = "config.json",
    revision: str | None = None,
    token: str | None = None,
) -> bool:
    """Make sure that a folder, or a repository that holds `file`, is there. A folder comes first.

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
    if not is_hub_name(name):
        raise FileNotFoundError(
            f"{name}: no such folder. Check the path; a {kind} on the Hub is named OWNER/NAME."
        )
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    name = str(name)
    cached = isinstance(try_to_load_from_cache(name, file, revision=revision, repo_type=kind), str)
    reason = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        url = hf_hub_url(name, file, repo_type=kind, revision=revision)
        try:
            get_hf_file_metadata(url, token=token, timeout=_PATIENCE)
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
    if cached:
        return True
    raise FileNotFoundError(
        f"{name}: no such folder, and {reason}. Check the path, or the network for a {kind} on the Hub."
    )
