# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Parts of other models' processors: each against that processor itself, or against PIL and the formula."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tower_folders import bert_folder, clip_folder, small_tokenizer, whisper_folder
from transformers import (
    ASTFeatureExtractor,
    AutoProcessor,
    AutoTokenizer,
    BertTokenizer,
    BitImageProcessor,
    ClapFeatureExtractor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    SeamlessM4TFeatureExtractor,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
    VideoMAEImageProcessor,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.processors import VattAugmentation, VattFeatureExtractor, VattProcessor, VattVideoProcessor
from modeling_vatt.processors.checkpoint_parts import (
    frame_settings,
    load_extractor,
    load_tokenizer,
    translate_frame_settings,
)


def _frames(count: int = 2, height: int = 45, width: int = 61) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


SQUARE = {"height": 16, "width": 16}
IMAGES: dict[str, Any] = {
    "clip": CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE),
    "vit": ViTImageProcessor(size=SQUARE),
    "siglip": SiglipImageProcessor(size=SQUARE, resample=3),
    "dinov2": BitImageProcessor(size={"shortest_edge": 18}, crop_size=SQUARE, resample=3),
    "convnext": ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=0.8),
    "videomae": VideoMAEImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE),
}


@pytest.mark.parametrize("name", IMAGES)
def test_frames_are_those_of_the_checkpoint(name, tmp_path):
    own = IMAGES[name]
    own.save_pretrained(tmp_path)
    processor = VattVideoProcessor(num_frames=2, fps=1.0, **frame_settings(str(tmp_path)))
    processor = VattVideoProcessor.from_dict(json.loads(processor.to_json_string()))
    ours = processor([_frames()], return_tensors="pt")["pixel_values_videos"][0]
    pictures = [Image.fromarray(frame) for frame in _frames()]
    theirs = own([pictures] if name == "videomae" else pictures, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs.view(ours.shape), atol=2e-6, rtol=0)


def test_siglip2_takes_squares(tmp_path):
    own = Siglip2ImageProcessor(patch_size=4, max_num_patches=16)
    own.save_pretrained(tmp_path)
    processor = VattVideoProcessor(num_frames=1, **frame_settings(str(tmp_path)))
    picture = _frames(1, 40, 40)
    ours = processor([picture], return_tensors="pt")["pixel_values_videos"][0, 0]
    patches = ours.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 3, 4, 0).flatten(2).flatten(0, 1)
    theirs = own([Image.fromarray(picture[0])], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(patches, theirs, atol=2e-6, rtol=0)


def test_video_processor_that_cannot_be_imported(tmp_path):
    """The file of a video processor is read where its class needs torchvision: V-JEPA 2's numbers."""
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    settings = {
        "video_processor_type": "VJEPA2VideoProcessor",
        "size": {"shortest_edge": 18},
        "crop_size": SQUARE,
        "resample": 2,
        "image_mean": mean,
        "image_std": std,
    }
    (tmp_path / "video_preprocessor_config.json").write_text(
        json.dumps({**settings, "do_center_crop": True, "do_resize": True})
    )
    processor = VattVideoProcessor(num_frames=2, **frame_settings(str(tmp_path)))
    resized = [Image.fromarray(frame).resize((61 * 18 // 45, 18), Image.BILINEAR) for frame in _frames()]
    cut = np.stack([np.asarray(picture)[1:17, 4:20] for picture in resized]) / 255
    right = ((cut - mean) / std).transpose(0, 3, 1, 2)
    assert np.abs(processor([_frames()], return_tensors="np")["pixel_values_videos"][0] - right).max() < 2e-6


def test_what_frames_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"video tower: .*no image or video processor"):
        frame_settings(str(tmp_path))
    good = IMAGES["vit"].to_dict()
    with pytest.raises(ValueError, match="sets do_flip_channel_order"):
        translate_frame_settings({**good, "do_flip_channel_order": True}, "x")
    with pytest.raises(ValueError, match="does not say image_mean"):
        translate_frame_settings({**good, "image_mean": None}, "x")


EXTRACTORS: dict[str, Any] = {
    "wav2vec2": Wav2Vec2FeatureExtractor(do_normalize=True),
    "ast": ASTFeatureExtractor(num_mel_bins=16, max_length=96),
    "whisper": WhisperFeatureExtractor(feature_size=8, chunk_length=2),
    "clap": ClapFeatureExtractor(feature_size=16, sampling_rate=8000, max_length_s=2, frequency_max=4000),
    "w2v-bert": SeamlessM4TFeatureExtractor(feature_size=16, num_mel_bins=16),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_sound_is_that_of_the_checkpoint(name, tmp_path):
    own = EXTRACTORS[name]
    own.save_pretrained(tmp_path)
    extractor = VattFeatureExtractor.from_extractor(load_extractor(str(tmp_path)), seconds=0.8)
    extractor.save_pretrained(tmp_path / "ours")
    extractor = VattFeatureExtractor.from_pretrained(tmp_path / "ours")
    sound = np.random.default_rng(1).normal(0, 0.1, round(0.8 * own.sampling_rate)).astype(np.float32)
    ours = extractor([sound, sound / 2], return_tensors="np")["input_values"]
    theirs = own([sound, sound / 2], sampling_rate=own.sampling_rate, return_tensors="np")
    right = np.asarray(next(theirs[key] for key in ("input_features", "input_values") if key in theirs))
    np.testing.assert_array_equal(ours, right.astype(np.float32))
    filled = {"ast": (0.8 * 100 - 2) / 96, "whisper": 0.4}.get(name, 1.0)
    assert extractor.filled == pytest.approx(filled, abs=0.02)


def test_windows_that_an_extractor_does_not_take():
    for extractor in (EXTRACTORS["whisper"], EXTRACTORS["ast"], EXTRACTORS["clap"]):
        with pytest.raises(ValueError, match=r"does not take (all of a window|windows) of 3 s"):
            VattFeatureExtractor.from_extractor(extractor, seconds=3)
    with pytest.raises(ValueError, match=r"`sampling_rate` 8000 Hz is not that of the audio tower, 16000"):
        VattFeatureExtractor("extractor", 8000, extractor=EXTRACTORS["whisper"])


def test_tokenizers(tmp_path):
    folder = str(bert_folder(tmp_path / "bert"))
    assert load_tokenizer(folder, max_words=10).model_max_length == 10
    (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    load_tokenizer(folder).save_pretrained(tmp_path / "lower")
    words = load_tokenizer(str(tmp_path / "lower"))(["A Red square"])["input_ids"]
    assert words == small_tokenizer()(["a red square"])["input_ids"]
    cased = tmp_path / "cased"  # this class makes its rules anew when it is loaded
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "Dog")
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocabulary, do_lower_case=False).save_pretrained(cased)
    (cased / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    load_tokenizer(str(cased)).save_pretrained(tmp_path / "kept")
    assert AutoTokenizer.from_pretrained(tmp_path / "kept")("Dog")["input_ids"] == [2, 5, 3]
    with pytest.raises(ValueError, match=r"text tower: .* has 14 words, the model 9"):
        load_tokenizer(folder, VattConfig(text_config={"vocab_size": 9}).text_config)
    tokenizer = small_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "unpadded")
    with pytest.raises(ValueError, match="has no padding"):
        load_tokenizer(str(tmp_path / "unpadded"))
    with pytest.raises(ValueError, match=r"text tower: .*nowhere has no tokenizer"):
        load_tokenizer(str(tmp_path / "nowhere"))


def _processor(tmp_path, **sizes: Any) -> VattProcessor:
    sources = {"video": str(clip_folder(tmp_path / "clip")), "text": str(bert_folder(tmp_path / "bert"))}
    sources["audio"] = str(whisper_folder(tmp_path / "whisper"))
    model = VattForPreTraining.from_video_audio_text_pretrained(**sources, va_projection_size=8)
    return VattProcessor.from_video_audio_text_pretrained(model.config, **sources, seconds=1.6, **sizes)


def test_one_folder_holds_all_parts(tmp_path):
    """Frames and sound of the same 1.6 s, whatever their counts and rates; loaded as they were saved."""
    processor = _processor(tmp_path)
    assert processor.video_processor.window_seconds == processor.feature_extractor.window_seconds == 1.6
    processor.save_pretrained(tmp_path / "saved")
    frames = np.repeat(np.arange(8, dtype=np.uint8), 45 * 61 * 3).reshape(8, 45, 61, 3) * 30
    for again in (
        processor,
        *(kind.from_pretrained(tmp_path / "saved") for kind in (VattProcessor, AutoProcessor)),
    ):
        assert type(again) is VattProcessor
        sound = np.zeros(25600, dtype=np.float32)
        sound[16000:] = 0.5
        batch = again(videos=[frames[:4]], audio=[sound], text=[["a red square", ""], [None]])
        assert batch["pixel_values_videos"].shape == (1, 4, 3, 8, 8)
        assert batch["input_values"].shape == (1, 8, 200)
        # The mark of begin alone is no caption.
        assert batch["text_mask"].tolist() == [1, 0]
        assert batch["attention_mask"][0, :2, :6].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]


def test_augmented_frames_keep_the_scale_of_the_tower(tmp_path):
    """Without any change of place or colour, augmentation gives what the processor gives without it."""
    processor = _processor(tmp_path)
    nothing = VattAugmentation(crop_resize_style="none", flip_probability=0, color_probability=0, noise=0)
    frames = np.full((4, 8, 8, 3), [10, 120, 250], dtype=np.uint8)
    plain = processor(videos=[frames])["pixel_values_videos"]
    for late in (False, True):
        batch = processor(videos=[frames], augmentation=nothing, late_colors=late)
        assert "video_colors" not in batch
        torch.testing.assert_close(batch["pixel_values_videos"], plain, atol=1e-5, rtol=0)


def test_parts_have_to_belong_to_the_towers(tmp_path):
    clip = str(clip_folder(tmp_path / "clip"))
    with pytest.raises(ValueError, match="video tower of this model is VATT's own: name"):
        VattProcessor.from_video_audio_text_pretrained(VattConfig.from_preset("tiny"), video=clip)
    with pytest.raises(ValueError, match=r"audio tower: .*has no feature extractor"):
        load_extractor(clip)
