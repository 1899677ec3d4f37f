# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Parts of other models' processors for VATT's: settings of frames, feature extractors, tokenizers."""

from typing import Any

import numpy as np
import transformers  # its Auto classes need the processors of this package, so they are not loaded here
from tokenizers import normalizers

from ..repositories import find_file, read_json


# Settings of image and video processors that mean the same here.
FRAME_SETTINGS = (
    "size",
    "crop_size",
    "resample",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
# Steps of other processors that are not offered here.
_NOT_DONE = ("do_pad", "do_flip_channel_order", "do_crop_margin", "do_thumbnail", "offset", "rescale_offset")
_MAX_WORDS = 64  # of a caption, where the checkpoint does not say less
# Mean difference allowed from the checkpoint's own processor: one of 255, as torchvision and PIL round apart.
_SAME_PIXELS = 0.02


def frame_settings(source: str, **hub: Any) -> dict[str, Any]:
    """Settings of [`VattVideoProcessor`] that treat a frame as a checkpoint's processor does (`source`:
    folder or name on the Hub). ValueError for no such processor, or one with steps that are not offered
    here."""
    # A video processor's file is read, as the classes themselves need torchvision.
    settings = read_json(source, "video_preprocessor_config.json", **hub)
    settings = settings or read_json(source, "processor_config.json", **hub).get("video_processor")
    if settings:
        return translate_frame_settings(settings, source)
    try:
        own = transformers.AutoImageProcessor.from_pretrained(source, **hub)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"video tower: {source} has no image or video processor that can be read "
            f"({str(error).splitlines()[0]}). Pass `frames`, such as {{'size': 224, 'image_mean': "
            "[0.5, 0.5, 0.5], 'image_std': [0.5, 0.5, 0.5]}."
        ) from error
    settings = own.to_dict()
    found = translate_frame_settings(settings, source)
    if "max_num_patches" not in settings:
        _check_pixels(found, own, source)
    return found


def translate_frame_settings(settings: dict[str, Any], source: str) -> dict[str, Any]:
    """Settings of [`VattVideoProcessor`] from those of another processor; ValueError if some are missing or
    not offered here."""
    if undone := [name for name in _NOT_DONE if settings.get(name)]:
        raise ValueError(
            f"video tower: the processor of {source} sets {', '.join(undone)}, which VATT's does not do. "
            "Choose another checkpoint, or pass `frames`."
        )
    found = {name: settings[name] for name in FRAME_SETTINGS if settings.get(name) is not None}
    if settings.get("max_num_patches"):  # SigLIP 2: as many patches as fit; frames are made square
        side = int(settings["max_num_patches"] ** 0.5) * int(settings.get("patch_size", 16))
        found["size"] = {"height": side, "width": side}
    if not found.get("do_resize", True):
        raise ValueError(f"video tower: the processor of {source} resizes nothing: pass `frames`.")
    needed = ("size", "image_mean", "image_std") if found.get("do_normalize", True) else ("size",)
    if missing := [name for name in needed if name not in found]:
        raise ValueError(
            f"video tower: the processor of {source} does not say {', '.join(missing)}: pass it in `frames`."
        )
    size = found["size"]
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    edge = size.get("shortest_edge")
    found["size"] = size
    square = {"height": edge, "width": edge}
    if edge and settings.get("crop_pct") is not None:  # ConvNeXt
        whole = edge >= 384
        found["size"] = square if whole else {"shortest_edge": int(edge / settings["crop_pct"])}
        found |= {"do_center_crop": not whole, "crop_size": square}
    elif edge and not found.get("do_center_crop"):
        # Without a crop frames would keep their shape, but the tower takes one.
        found |= {"do_center_crop": True, "crop_size": square}
    found.setdefault("do_center_crop", False)
    if not found["do_center_crop"]:
        found["crop_size"] = found["size"]
    return {**found, "antialias": True}


def _check_pixels(found: dict[str, Any], own: Any, source: str) -> None:
    """Raise if a picture differs from what the checkpoint's own processor makes of it."""
    from .video_processing_vatt import VattVideoProcessor

    side = 300
    rows, columns = np.mgrid[0:side, 0:side]
    waves = [np.sin(rows / (9 + 4 * channel)) * np.cos(columns / 13) for channel in range(3)]
    picture = ((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8)
    theirs = np.asarray(own(picture, return_tensors="np", input_data_format="channels_last")["pixel_values"])
    theirs = theirs.reshape(-1, *theirs.shape[-3:])  # VideoMAE's takes clips
    ours = VattVideoProcessor(num_frames=1, **found)([picture])["pixel_values_videos"]
    ours = np.stack([view.numpy()[0] for view in ours])
    if theirs.shape != ours.shape or float(np.abs(theirs - ours).mean()) > _SAME_PIXELS:
        raise ValueError(
            f"video tower: {type(own).__name__} of {source} does with pictures what VATT's processor does "
            f"not (result {theirs.shape[1:]}, here {ours.shape[1:]}). Choose another checkpoint, or pass "
            "`frames` with settings of your own."
        )


def load_extractor(source: str, **hub: Any) -> Any:
    """The feature extractor of a checkpoint; ValueError without one, or if it is not of transformers."""
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **hub)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ValueError(
            f"audio tower: {source} has no feature extractor that can be read "
            f"({str(error).splitlines()[0]}). Choose a checkpoint with one, or save one there."
        ) from error
    if not type(extractor).__module__.startswith("transformers.models."):
        raise ValueError(
            f"audio tower: {type(extractor).__name__} of {source} is no class of transformers, so a saved "
            "processor could not name it. Choose another checkpoint."
        )
    return extractor


def extractor_from_dict(settings: dict[str, Any]) -> Any:
    """The feature extractor that a saved processor holds."""
    from transformers.models.auto.feature_extraction_auto import feature_extractor_class_from_name

    name = str(settings.get("feature_extractor_type"))
    extractor_class = feature_extractor_class_from_name(name)
    if extractor_class is None or name.startswith("Vatt"):
        raise ValueError(f"transformers knows no feature extractor {name!r}: update it.")
    return extractor_class.from_dict(dict(settings))


def load_tokenizer(source: str, text_config: Any = None, max_words: int = _MAX_WORDS, **hub: Any) -> Any:
    """The tokenizer of a checkpoint, for captions of at most `max_words` tokens, or of as many as the tower
    of `text_config` has positions; ValueError without one, or if it has no padding."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **hub)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ValueError(
            f"text tower: {source} has no tokenizer that can be read ({str(error).splitlines()[0]}). Choose "
            "a checkpoint with one, or save one there."
        ) from error
    names = {"tokenizer.json", *getattr(tokenizer, "vocab_files_names", {}).values()}
    if all(find_file(source, name, **hub) is None for name in names):  # transformers then makes an empty one
        raise ValueError(
            f"text tower: {source} has no tokenizer: none of {', '.join(sorted(names))} is there. Choose a "
            "checkpoint with one, or save one there."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"text tower: the tokenizer of {source} has no padding: set `pad_token` in its config."
        )
    if read_json(source, "sentence_bert_config.json", **hub).get("do_lower_case"):
        backend = tokenizer.backend_tokenizer
        rules = [normalizers.Lowercase(), *filter(None, [backend.normalizer])]
        backend.normalizer = normalizers.Sequence(rules)
        # Of a class that saves them: others make their rules anew when they are loaded.
        kept = ("model_max_length", "model_input_names", "padding_side")
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend,
            **{name: getattr(tokenizer, name) for name in kept},
            **tokenizer.special_tokens_map,
        )
    rows = getattr(text_config, "max_position_embeddings", None)
    sizes = [max_words, tokenizer.model_max_length, *([rows] if isinstance(rows, int) and rows > 0 else [])]
    tokenizer.model_max_length = min(sizes)
    words = getattr(text_config, "vocab_size", None)
    if isinstance(words, int) and len(tokenizer) > words:
        raise ValueError(
            f"text tower: the tokenizer of {source} has {len(tokenizer)} words, the model {words}: they do "
            "not belong together. Take both from one checkpoint."
        )
    return tokenizer
