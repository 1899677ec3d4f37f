# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The published checkpoints by name, and fetching them."""

import base64
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

from .errors import ConversionError


BASE_URL = "https://storage.googleapis.com/tf_model_garden/vision/vatt"
CHUNK = 1 << 20
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; longer before later ones
TIMEOUT = 60.0  # seconds without a byte
# file name, bytes so far, bytes in all (0 if the server does not say)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Release:
    """A published checkpoint.

    Args:
        stem: checkpoint prefix below the base address.
        summary: what it is.
        metrics: published figures (paper and release page).
        frame_size: side of the frames it was tuned and evaluated on; None: that of its position tables.
    """

    stem: str
    summary: str
    metrics: str = ""
    frame_size: int | None = None

    @property
    def files(self) -> tuple[str, str]:
        """Its files below the base address."""
        return f"{self.stem}.index", f"{self.stem}.data-00000-of-00001"


def _video(size: str, data: str, origin: str, step: int, source: str, metrics: str) -> Release:
    stem = f"finetune/vit_{size}/{data}_modality_{origin}_pretrain/ckpt-{step}"
    names = {"k400": "Kinetics-400", "k600": "Kinetics-600", "k700": "Kinetics-700", "mit": "Moments in Time"}
    summary = f"ViT-{size.capitalize()}, video classifier for {names[data]}, fine-tuned from {source}"
    return Release(stem, summary, f"top-1 / top-5: {metrics}", 320)


RELEASES: dict[str, Release] = {
    "tx_fac_bbs": Release("pretrain/tx_fac_bbs/ckpt-500000", "VATT-BBS, modality-specific pretraining"),
    "tx_fac_mbs": Release("pretrain/tx_fac_mbs/ckpt-500000", "VATT-MBS, modality-specific pretraining"),
    "tx_fac_lbs": Release("pretrain/tx_fac_lbs/ckpt-500000", "VATT-LBS, modality-specific pretraining"),
    "ut_fac_medium": Release(
        "pretrain/ut_fac_medium/ckpt-500000", "VATT-MA-Medium, modality-agnostic pretraining"
    ),
    "vit_base_k400": _video("base", "k400", "specific", 100000, "tx_fac_bbs", "79.6 / 94.9"),
    "vit_medium_k400": _video("medium", "k400", "specific", 100000, "tx_fac_mbs", "81.1 / 95.6"),
    "vit_large_k400": _video("large", "k400", "specific", 100000, "tx_fac_lbs", "82.1 / 95.5"),
    "vit_medium_k400_from_agnostic": _video(
        "medium", "k400", "agnostic", 100000, "ut_fac_medium", "79.9 / 94.9"
    ),
    "vit_base_k600": _video("base", "k600", "specific", 100000, "tx_fac_bbs", "80.5 / 95.5"),
    "vit_medium_k600": _video("medium", "k600", "specific", 90000, "tx_fac_mbs", "82.4 / 96.1"),
    "vit_large_k600": _video("large", "k600", "specific", 100000, "tx_fac_lbs", "83.6 / 96.6"),
    "vit_medium_k600_from_agnostic": _video(
        "medium", "k600", "agnostic", 100000, "ut_fac_medium", "80.8 / 95.5"
    ),
    "vit_large_k700": _video("large", "k700", "specific", 100000, "tx_fac_lbs", "72.7 / 90.5"),
    "vit_base_mit": _video("base", "mit", "specific", 150000, "tx_fac_bbs", "38.7 / 67.5"),
    "vit_medium_mit": _video("medium", "mit", "specific", 150000, "tx_fac_mbs", "39.5 / 68.2"),
    "vit_large_mit": _video("large", "mit", "specific", 150000, "tx_fac_lbs", "41.1 / 67.7"),
    "vit_medium_mit_from_agnostic": _video(
        "medium", "mit", "agnostic", 150000, "ut_fac_medium", "37.8 / 65.9"
    ),
    "wat_base_audioset": Release(
        "finetune/wat_base/audioset_modality_specific_pretrain/ckpt-50000",
        "WaT-Base, sound classifier for AudioSet, fine-tuned from tx_fac_bbs",
        "mAP / AUC / d': 39.4 / 97.1 / 2.895",
    ),
    "wat_medium_audioset_from_agnostic": Release(
        "finetune/wat_medium/audioset_modality_agnostic_pretrain/ckpt-50000",
        "WaT-Medium, sound classifier for AudioSet, fine-tuned from ut_fac_medium",
        "mAP / AUC / d': 39.3 / 97.0 / 2.884",
    ),
}
MISC_DATA = "misc_data.tgz"
LAYOUT = "pretrain/tx_fac_mbs/ckpt-500000.index, ckpt-500000.data-00000-of-00001, ..., and misc_data.tgz."
# The release's bucket answered so in 2026.
_CLOSED = (401, 403, 404, 410)


def fetch_release(
    name: str, folder: str | os.PathLike, base_url: str = BASE_URL, progress: Progress | None = None
) -> Path:
    """Download a published checkpoint unless `folder` has it already.

    Args:
        name: of `RELEASES`.
        folder: where downloads are kept.
        base_url: address or local folder above the files of `Release.files`; a folder is used in place.
        progress: called with every piece that has arrived.

    Returns:
        The checkpoint's prefix.
    """
    if name not in RELEASES:
        raise ConversionError(f"{name!r} is no published checkpoint; choose one of {', '.join(RELEASES)}.")
    release = RELEASES[name]
    paths = [fetch_part(file, folder, base_url, progress) for file in release.files]
    return paths[0].with_suffix("")


def fetch_part(
    file: str, folder: str | os.PathLike, base_url: str = BASE_URL, progress: Progress | None = None
) -> Path:
    """Path of a file of the release, in a local folder or fetched; see [`fetch_release`]."""
    if "://" in base_url:
        return fetch(f"{base_url.rstrip('/')}/{file}", Path(folder) / file, progress)
    path = Path(base_url) / file
    if not path.is_file():
        raise ConversionError(f"{path}: no such file. `--source` must be laid out as the release: {LAYOUT}")
    return path


def fetch(url: str, target: Path, progress: Progress | None = None) -> Path:
    """Download a file unless it exists, continuing an interrupted download in `TARGET.part`; size, and
    checksum if the server gives one, are checked before it is renamed."""
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * attempt)
        try:
            total, checksum = _continue_download(url, part, target.name, progress)
        except urllib.error.HTTPError as error:
            if error.code in _CLOSED:
                raise ConversionError(
                    f"{url}: the server answers {error.code} ({error.reason}): its owners may have closed "
                    "it. Give a copy (`--source FOLDER`) or a mirror (`--source URL`), laid out as the "
                    f"release: {LAYOUT}"
                ) from error
            if error.code < 500:  # asking again will not help
                raise ConversionError(
                    f"{url}: the server answers {error.code} ({error.reason}). Check the name."
                ) from error
            reason = f"the server answers {error.code} ({error.reason})"
            continue
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            continue
        have = part.stat().st_size
        if have < total:
            reason = f"the connection ended after {have} of {total} bytes"
            continue
        if have > total or (checksum and _md5(part) != checksum):
            part.unlink()
            raise ConversionError(f"{url}: the download is damaged and was thrown away: try again.")
        os.replace(part, target)
        return target
    raise ConversionError(f"{url} cannot be fetched: {reason}. Run the command again to go on from there.")


def _continue_download(url: str, part: Path, name: str, progress: Progress | None) -> tuple[int, str | None]:
    """Append the missing part; returns the file's size and MD5 where the server gives them."""
    have = part.stat().st_size if part.exists() else 0
    # identity: a compressed transfer would have another length
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Either everything has arrived, or the file on the server is another one.
        size = error.headers.get("Content-Range", "").rpartition("/")[2]
        if size == str(have):
            return have, _checksum(error.headers.get_all("x-goog-hash"))
        part.unlink()
        return _continue_download(url, part, name, progress)
    with response:
        if response.status == 206:
            span, _, total_text = response.headers.get("Content-Range", "").rpartition("/")
            if not span.startswith(f"bytes {have}-"):
                raise ConversionError(
                    f"{url}: the server sends other bytes than asked for ({span}). Try again."
                )
        else:  # the server knows no ranges
            have, total_text = 0, response.headers.get("Content-Length", "")
        total = int(total_text) if total_text.isdecimal() else 0
        with open(part, "ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(name, have, total)
        return total or have, _checksum(response.headers.get_all("x-goog-hash"))


def _checksum(headers: list[str] | None) -> str | None:
    values = [value.strip() for header in headers or () for value in header.split(",")]
    return next((value.removeprefix("md5=") for value in values if value.startswith("md5=")), None)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:  # against broken transfers, not against forgery
        digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()
