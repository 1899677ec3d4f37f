# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""transformers' own pipelines with our models, and ours: single inputs, batches, streams, errors."""

import math
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from clip_folders import RATE, small_processor, write_clip
from media_factory import tone, write_media
from PIL import Image
from small_models import seeded, small_config
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import KeyDataset

from modeling_vatt import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)
from modeling_vatt.pipelines import VattZeroShotAudioClassificationPipeline
from modeling_vatt.processors import (
    MediaError,
    VattFeatureExtractor,
    VattImageProcessor,
    VattTokenizer,
    VattVideoProcessor,
)
from modeling_vatt.retrieval import Gallery


NAMES = {0: "dog", 1: "cat", 2: "cow"}
LABELS = ["clip 3", "a tone", "grey number 5"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    return [str(write_clip(root / f"{number}.mp4", number)) for number in (1, 5, 9)]


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("silent") / "silent.mp4", 3, sound=False))


@pytest.fixture(scope="module")
def processor():
    return small_processor()


def classifier(model_class, **overrides):
    return seeded(model_class, small_config(**{"id2label": NAMES, **overrides})).eval()


def model_of(variant="specific", model_class=VattModel):
    return seeded(model_class, small_config(variant)).eval()


def feature_pipeline(model, processor, **options):
    task = "video-audio-text-feature-extraction"
    return pipeline(task, model=model, processor=processor, device="cpu", **options)


def shares(result):
    return {entry["label"]: entry["score"] for entry in result}


def assert_shares(result, expected):
    """All classes with the expected shares, best first."""
    assert [entry["score"] for entry in result] == sorted((e["score"] for e in result), reverse=True)
    named = {NAMES[i]: share for i, share in enumerate(expected.tolist())}
    assert shares(result) == pytest.approx(named, rel=1e-5)


# --- transformers' own -----------------------------------------------------------------------------------


def test_video_classification(clips, processor, tmp_path, caplog):
    """Files in, labels out: as the model says, one by one, in batches, and loaded from a folder."""
    model = classifier(VattForVideoClassification)
    video_processor = processor.video_processor
    classify = pipeline("video-classification", model=model, video_processor=video_processor, device="cpu")
    pixels = video_processor(clips, return_tensors="pt")["pixel_values_videos"]
    expected = model(pixels).logits.softmax(-1)
    assert_shares(classify(clips[0]), expected[0])
    for result, row in zip(classify(clips), expected, strict=True):
        assert_shares(result, row)
    assert "not supported" not in caplog.text
    model.save_pretrained(tmp_path)
    video_processor.save_pretrained(tmp_path)
    loaded = pipeline("video-classification", model=str(tmp_path), device="cpu")
    assert_shares(loaded(clips[0]), expected[0])


def test_video_classification_in_batches(clips, processor):
    """transformers' collator asks for an image processor, without using it: the video processor will do."""
    model = classifier(VattForVideoClassification, problem_type="multi_label_classification")
    parts = dict.fromkeys(("video_processor", "image_processor"), processor.video_processor)
    classify = pipeline("video-classification", model=model, **parts, device="cpu")
    single = [shares(classify(clip)) for clip in clips]
    for result, expected in zip(classify(clips, batch_size=2), single, strict=True):
        assert shares(result) == pytest.approx(expected, rel=1e-5)
    assert sum(single[0].values()) != pytest.approx(1, abs=1e-3)  # several labels: sigmoid


@pytest.mark.parametrize("variant", ["specific", "spectrogram"])
def test_audio_classification(variant, tmp_path):
    """Arrays, in batches as well, from a stream, and from a folder."""
    config = small_config(variant, id2label=NAMES)
    model = seeded(VattForAudioClassification, config).eval()
    extractor = small_processor(config).feature_extractor
    length = extractor.num_samples
    sounds = [tone(length / extractor.sampling_rate, extractor.sampling_rate, 60.0 * k) for k in (1, 2, 3)]
    expected = model(extractor(sounds, return_tensors="pt")["input_values"]).logits.softmax(-1)
    classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")
    assert_shares(classify(sounds[0]), expected[0])
    rated = {"array": sounds[1], "sampling_rate": extractor.sampling_rate}
    assert_shares(classify(rated), expected[1])
    streamed = classify((sound for sound in sounds), batch_size=2)
    for result, row in zip(streamed, expected, strict=True):
        assert_shares(result, row)
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    loaded = pipeline("audio-classification", model=str(tmp_path), device="cpu")
    assert_shares(loaded(sounds[2]), expected[2])
    file = str(tmp_path / "sound.wav")
    write_media(file, waveform=sounds[0], sampling_rate=extractor.sampling_rate, audio_codec="pcm_f32le")
    assert_shares(loaded(file), expected[0])
    assert_shares(loaded({"bytes": Path(file).read_bytes(), "path": None}), expected[0])
    faster = {"raw": np.repeat(sounds[0], 2), "sampling_rate": 2 * extractor.sampling_rate}  # resampled
    assert shares(loaded(faster)) == pytest.approx(shares(loaded(file)), abs=0.05)


def test_image_classification(tmp_path):
    """PIL images and files, batches, and a folder; the image processor loads with its Auto class."""
    model = classifier(VattForImageClassification)
    images = [Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)) for k in (1, 2, 3)]
    image_processor = VattImageProcessor(size=8, crop_size=8)
    expected = model(image_processor(images, return_tensors="pt")["pixel_values"]).logits.softmax(-1)
    classify = pipeline("image-classification", model=model, image_processor=image_processor, device="cpu")
    assert_shares(classify(images[0]), expected[0])
    model.save_pretrained(tmp_path)
    image_processor.save_pretrained(tmp_path)
    images[1].save(tmp_path / "image.png")
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is VattImageProcessor
    loaded = pipeline("image-classification", model=str(tmp_path), device="cpu")
    results = loaded([images[0], str(tmp_path / "image.png"), images[2]], batch_size=2)
    for result, row in zip(results, expected, strict=True):
        assert_shares(result, row)


def test_image_processor():
    """Pixels are those of the video processor's one-frame clip, in every form of input."""
    processor = VattImageProcessor(size=8, crop_size={"height": 8, "width": 6})
    assert VattImageProcessor().size.shortest_edge == 224
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    video = VattVideoProcessor(size=8, crop_size={"height": 8, "width": 6}, num_frames=4)
    expected = video(image, return_tensors="pt")["pixel_values_videos"][:, 0]
    forms = [image, Image.fromarray(image), [image], image[None], torch.from_numpy(image).permute(2, 0, 1)]
    for form in forms:
        assert torch.equal(processor(form, return_tensors="pt")["pixel_values"], expected)
    assert processor([image, image], return_tensors="np")["pixel_values"].shape == (2, 3, 8, 6)
    assert processor(image, crop_size=4, return_tensors="pt")["pixel_values"].shape == (1, 3, 4, 4)
    other = VattImageProcessor.from_dict(processor.to_dict())
    assert torch.equal(other(image, return_tensors="pt")["pixel_values"], expected)
    with pytest.raises(TypeError, match="knows no argument num_frames"):
        processor(image, num_frames=3)
    with pytest.raises(ValueError, match="3 colour channels"):
        processor(np.zeros((9, 9, 2), np.uint8))


# --- features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["specific", "joint"])
def test_features(variant, clips, processor):
    """Arrays of one clip: pooled features and embeddings of what there is, as the model computes them."""
    model = model_of(variant)
    extract = feature_pipeline(model, processor)
    row = extract({"video": clips[1], "text": LABELS[0]})
    inputs = processor(videos=[clips[1]], text=[LABELS[0]])
    masks = ("audio_mask", "text_mask")
    with torch.no_grad():
        output = model(**{name: value for name, value in inputs.items() if name not in masks})
    for name in ("video_va_embeds", "audio_va_embeds", "video_vt_embeds", "text_vt_embeds"):
        np.testing.assert_allclose(row[name], output[name][0].numpy(), rtol=1e-5, atol=1e-6)
    for modality in ("video", "audio", "text"):
        pooled = output[f"{modality}_model_output"].pooler_output[0].numpy()
        np.testing.assert_allclose(row[f"{modality}_features"], pooled, rtol=1e-5, atol=1e-6)
    assert ("text_va_embeds" in row) == (variant == "joint")
    unit = extract(clips[1], normalize=True)
    assert set(unit) == {name for name in row if not name.startswith("text")}
    assert np.linalg.norm(unit["video_va_embeds"]) == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(unit["video_features"]) != pytest.approx(1, rel=1e-2)


def test_features_of_batches_and_streams(clips, silent, processor):
    """Lists, generators and `datasets` give the results of single inputs, in order; silence gives None."""
    extract = feature_pipeline(model_of(model_class=VattForPreTraining), processor, windows=2)
    files = [*clips, silent]
    single = [extract(file) for file in files]
    assert [row["audio_va_embeds"] is None for row in single] == [False, False, False, True]
    table = datasets.Dataset.from_dict({"video": files, "number": [1, 5, 9, 3]})
    undecoded = table.cast_column("video", datasets.Video(decode=False))
    for inputs in (
        files,
        (file for file in files),
        undecoded,
        undecoded.to_iterable_dataset(),
        KeyDataset(table, "video"),
    ):
        rows = list(extract(inputs, batch_size=3))
        assert len(rows) == len(files)
        for row, expected in zip(rows, single, strict=True):
            assert row.keys() == expected.keys()
            for name, value in expected.items():
                if value is None:
                    assert row[name] is None
                else:
                    np.testing.assert_allclose(row[name], value, rtol=1e-4, atol=1e-5)


def test_streams_are_read_on_demand(clips, processor):
    """A generator is consumed as results are taken, never whole."""
    taken = []

    def stream():
        for clip in clips:
            taken.append(clip)
            yield clip

    results = feature_pipeline(model_of(), processor)(stream())
    next(iter(results))
    assert len(taken) < len(clips)


def test_windows_are_averaged(tmp_path, processor):
    """Embeddings of several windows: their mean, of sound over the windows that have any."""
    frames = [np.full((16, 16, 3), 10 * k, np.uint8) for k in range(24)]
    clip = str(write_media(tmp_path / "long.mp4", frames=frames, fps=10, waveform=tone(1.6, RATE),
                           sampling_rate=RATE))  # fmt: skip
    model = model_of()
    row = feature_pipeline(model, processor, windows=3)(clip)
    inputs = processor(videos=[clip], windows=3)
    with torch.no_grad():
        video = model.get_video_features(inputs["pixel_values_videos"]).va_embeds.mean(0)
        sound = (
            model.get_audio_features(inputs["input_values"]).va_embeds[inputs["audio_mask"].bool()].mean(0)
        )
    assert 0 < inputs["audio_mask"].sum() <= 3
    np.testing.assert_allclose(row["video_va_embeds"], video.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(row["audio_va_embeds"], sound.numpy(), rtol=1e-5, atol=1e-6)


def test_sound_with_its_rate(processor):
    """Arrays that come with a sampling rate are checked against the processor's."""
    extract = feature_pipeline(model_of(), processor)
    rate = processor.feature_extractor.sampling_rate
    sound = tone(1.0, rate, 20.0)
    row = extract({"audio": {"array": sound, "sampling_rate": rate}})
    np.testing.assert_array_equal(row["audio_va_embeds"], extract({"audio": sound})["audio_va_embeds"])
    with pytest.raises(ValueError, match=f"sampled at 16000 Hz, but this model takes {rate} Hz"):
        extract({"audio": {"array": sound, "sampling_rate": 16000}})


# --- retrieval -------------------------------------------------------------------------------------------


def test_retrieval(clips, processor):
    """Words, sound and video find the clips that `Gallery.search` finds; batches find the same."""
    model = model_of()
    search = pipeline("video-text-retrieval", model=model, processor=processor, gallery=clips, device="cpu")
    gallery, _ = Gallery.from_files(model, processor, clips)
    for query, arguments in (
        ("grey number 5", {"text": "grey number 5"}),
        ({"text": "grey number 5"}, {"text": "grey number 5"}),
        ({"audio": clips[2]}, {"audio": clips[2]}),
        ({"video": clips[0]}, {"video": clips[0]}),
    ):
        expected = gallery.search(model, processor, **arguments, top_k=2)
        found = search(query, top_k=2)
        assert [entry["name"] for entry in found] == [hit.name for hit in expected]
        np.testing.assert_allclose([e["score"] for e in found], [hit.score for hit in expected], rtol=1e-4)
    assert search({"video": clips[0]}, top_k=1)[0]["name"] == clips[0]
    rows = search([{"video": clip} for clip in clips], batch_size=3, gallery=gallery)
    assert [row[0]["name"] for row in rows] == clips
    table = datasets.Dataset.from_dict({"text": LABELS})
    assert [row[0]["name"] for row in search(table, batch_size=2)] == [search(x)[0]["name"] for x in LABELS]


def test_retrieval_errors(clips, silent, processor, tmp_path, caplog):
    """Queries and galleries that cannot work say why."""
    search = pipeline("video-text-retrieval", model=model_of(), processor=processor, device="cpu")
    with pytest.raises(ValueError, match="pass `gallery`"):
        search("a tone")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    search("a tone", gallery=[clips[0], str(tmp_path / "broken.mp4")])
    assert "broken.mp4" in caplog.text
    with pytest.raises(ValueError, match="one of `text`, `audio` and `video`, got video, text"):
        search({"text": "a", "video": clips[0]}, gallery=clips)
    with pytest.raises(ValueError, match=r"`text` '\.\.\.' holds no words"):
        search("...", gallery=clips)
    with pytest.raises(MediaError, match=r"no .*(sound|audio)"):
        search({"audio": silent}, gallery=clips)
    with pytest.raises(MediaError, match="no sound"):
        search({"audio": np.zeros(8000, np.float32)}, gallery=clips)
    with pytest.raises(ValueError, match=r"`model` must be a VattModel .* got VattForVideoClassification"):
        pipeline("video-text-retrieval", model=classifier(VattForVideoClassification), processor=processor)
    classifier(VattForVideoClassification).save_pretrained(tmp_path / "classes")
    with pytest.raises(ValueError, match="with all towers, got VattForVideoClassification"):
        pipeline("video-text-retrieval", model=str(tmp_path / "classes"), processor=processor)


def test_saved_pipeline(clips, processor, tmp_path):
    """A saved pipeline loads from its folder: model and processor."""
    search = pipeline("video-text-retrieval", model=model_of(), processor=processor, device="cpu")
    search.save_pretrained(tmp_path)
    again = pipeline("video-text-retrieval", model=str(tmp_path), gallery=clips, device="cpu")
    assert again("a tone") == search("a tone", gallery=clips)


# --- zero-shot -------------------------------------------------------------------------------------------


def zero_shot(embeds, texts, temperature):
    cosines = torch.cosine_similarity(embeds[:, None], texts[None], dim=-1)
    return (cosines / temperature).softmax(-1).tolist()


@pytest.mark.parametrize("variant", ["specific", "agnostic", "joint", "linear_text"])
def test_zero_shot_video(variant, clips, processor):
    """Softmax over cosine / temperature in the video-text space, one by one and in batches."""
    model = model_of(variant)
    classify = pipeline("zero-shot-video-classification", model=model, processor=processor, device="cpu")
    inputs = processor(videos=clips, text=[f"grey {label}" for label in LABELS])
    with torch.no_grad():
        video = model.get_video_features(inputs["pixel_values_videos"]).vt_embeds
        text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).vt_embeds
    expected = zero_shot(video, text, model.config.temperature)
    options = {"candidate_labels": LABELS, "hypothesis_template": "grey {}"}
    for results in (
        [classify(clip, **options) for clip in clips],
        classify(clips, **options, batch_size=2),
        list(classify(({"video": clip} for clip in clips), **options)),
    ):
        for result, row in zip(results, expected, strict=True):
            assert shares(result) == pytest.approx(dict(zip(LABELS, row, strict=True)), rel=1e-3)
            assert [e["score"] for e in result] == sorted((e["score"] for e in result), reverse=True)


def test_zero_shot_audio(clips, processor, tmp_path):
    """In the joint space: files, arrays, batches, and from a folder."""
    model = model_of("joint")
    inputs = processor(audio=clips, text=LABELS)
    with torch.no_grad():
        sound = model.get_audio_features(inputs["input_values"]).va_embeds
        text = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).va_embeds
    expected = zero_shot(sound, text, model.config.temperature)
    task = "zero-shot-audio-classification"
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for classify in (
        pipeline(task, model=model, processor=processor, device="cpu"),
        pipeline(task, model=str(tmp_path), device="cpu"),
    ):
        for results in (
            classify(clips, candidate_labels=LABELS, batch_size=2),
            [classify(clip, candidate_labels=", ".join(LABELS)) for clip in clips],
            classify([{"audio": {"path": clip, "bytes": None}} for clip in clips], candidate_labels=LABELS),
        ):
            for result, row in zip(results, expected, strict=True):
                assert shares(result) == pytest.approx(dict(zip(LABELS, row, strict=True)), rel=1e-3)
    with pytest.raises(TypeError, match="knows no argument top_k"):
        classify(clips, candidate_labels=LABELS, top_k=3)


def test_zero_shot_with_the_temperature_that_was_learned(clips, processor, tmp_path):
    """Shares are those of the model's logits, by model and by folder; the base model knows the config's."""
    config = small_config("joint", loss_type="symmetric_learned", audio_text_loss_weight=1.0)
    model = seeded(VattForPreTraining, config).eval()
    with torch.no_grad():
        for pair, scale in model.loss_scales.items():
            scale.log_scale.fill_({"video_audio": 0.1, "video_text": 2.2, "audio_text": 3.3}[pair])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    inputs = processor(videos=clips[:1], text=LABELS)
    with torch.no_grad():
        output = model(inputs["pixel_values_videos"], input_ids=inputs["input_ids"], return_loss=False)
        sound = model.get_audio_features(inputs["input_values"]).va_embeds
        text = model.get_text_features(inputs["input_ids"]).va_embeds
    shares_of = {
        "video": output.logits_video_text.softmax(-1)[0].tolist(),
        "audio": zero_shot(sound, text, math.exp(-3.3))[0],
    }
    for medium, expected in shares_of.items():
        expected = dict(zip(LABELS, expected, strict=True))
        task = f"zero-shot-{medium}-classification"
        for options in ({"model": model, "processor": processor}, {"model": str(tmp_path)}):
            found = pipeline(task, **options, device="cpu")(clips[0], candidate_labels=LABELS)
            assert shares(found) == pytest.approx(expected, rel=1e-3)
        base = pipeline(task, model=model.vatt, processor=processor, device="cpu")
        assert shares(base(clips[0], candidate_labels=LABELS)) != pytest.approx(expected, rel=1e-2)


def test_zero_shot_errors(clips, processor):
    """No labels, wordless labels, a template without a place, and a head without the space."""
    classify = pipeline("zero-shot-video-classification", model=model_of(), processor=processor, device="cpu")
    with pytest.raises(ValueError, match="pass `candidate_labels`"):
        classify(clips[0])
    with pytest.raises(ValueError, match=r"`candidate_labels` \['!'\] hold no words"):
        classify(clips[0], candidate_labels=["clip", "!"])
    with pytest.raises(ValueError, match=r"must hold `\{\}`"):
        classify(clips[0], candidate_labels=["clip"], hypothesis_template="a video")
    with pytest.raises(ValueError, match=r"not sound with text: .*`head_type=\"joint\"`"):
        pipeline("zero-shot-audio-classification", model=model_of(), processor=processor, device="cpu")


class OtherModel(PreTrainedModel):
    """A model of another family, whose logits count the words of the labels."""

    config_class = PreTrainedConfig

    def __init__(self):
        super().__init__(PreTrainedConfig())
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, input_ids, input_values):
        return SimpleNamespace(logits_per_audio=self.scale * input_ids.sum(1)[None].float())


def test_other_models_keep_their_task():
    """The audio task still serves other models, by transformers' own code."""
    task = PIPELINE_REGISTRY.check_task("zero-shot-audio-classification")[1]
    assert task["impl"] is VattZeroShotAudioClassificationPipeline
    assert task["default"]["model"]
    tokenizer = VattTokenizer.train_from_iterator(["dog cat"])
    tokenizer.model_input_names = ["input_ids"]
    classify = pipeline(
        "zero-shot-audio-classification",
        model=OtherModel(),
        feature_extractor=VattFeatureExtractor(num_samples=96, sampling_rate=120),
        tokenizer=tokenizer,
        device="cpu",
    )
    sound = np.zeros(100, np.float32)
    options = {"candidate_labels": ["dog", "dog dog dog"], "hypothesis_template": "{} cat"}
    assert [entry["label"] for entry in classify(sound, **options)] == ["dog dog dog", "dog"]
    with pytest.raises(ValueError, match="single channel"):
        classify(np.zeros((2, 100), np.float32), **options)
