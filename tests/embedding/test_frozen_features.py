# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows of files embedded by a frozen model, and retrieval with them."""

import errno
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from clip_folders import small_processor, write_clip
from media_factory import frame_numbers, numbered_frames, write_media
from small_models import seeded, small_config

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import source_of
from modeling_vatt.embedding import cache, embedding
from modeling_vatt.evaluation import average_windows, retrieval_metrics, zero_shot_retrieval
from modeling_vatt.processors import MediaError, VattProcessor, read_clip
from modeling_vatt.processors.windows import read_windows
from modeling_vatt.retrieval import Gallery, embed_batches, embed_files, embed_query, embed_texts, unit


@pytest.fixture(scope="module")
def model() -> VattForPreTraining:
    return seeded(VattForPreTraining, small_config()).eval()


@pytest.fixture(scope="module")
def processor() -> VattProcessor:
    return small_processor()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Five clips; the second is silent, the third no video, the last missing."""
    folder = tmp_path_factory.mktemp("files")
    paths = [write_clip(folder / f"{number}.mp4", number, sound=number != 1) for number in range(4)]
    paths[2].write_bytes(b"no video at all")
    return [*paths, folder / "missing.mp4"]


def test_windows_are_those_of_the_processor(model, processor, files):
    found = embed_files(model, processor, files, ("video", "audio"), windows=3, batch_size=2, pooled=True)
    assert found.kept.tolist() == [0, 1, 3]
    assert [Path(error.source).name for error in found.errors] == ["2.mp4", "missing.mp4"]
    assert found.arrays["audio_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    for row, file in enumerate((files[0], files[1], files[3])):
        inputs = processor(videos=[str(file)], windows=3)
        with torch.no_grad():
            output = model.vatt(inputs["pixel_values_videos"], inputs["input_values"])
        for name, expected in (
            ("video_va_embeds", output.video_va_embeds),
            ("audio_va_embeds", output.audio_va_embeds),
            ("video_vt_embeds", output.video_vt_embeds),
            ("video_pooled", output.video_model_output.pooler_output),
            ("audio_pooled", output.audio_model_output.pooler_output),
        ):
            torch.testing.assert_close(torch.from_numpy(found.arrays[name][row]), expected)


def test_sound_alone_must_be_there(model, processor, files):
    found = embed_files(model, processor, files[:2], ("audio",), pooled=True)
    assert found.kept.tolist() == [0] and "video_pooled" not in found.arrays
    with pytest.raises(ValueError, match=r"No file could be embedded: .*1\.mp4: no audio stream"):
        embed_files(model, processor, files[1:2], ("audio",))


def test_contents_serve_as_well_as_paths(model, processor, files, tmp_path):
    """Alone, and with a name as in datasets from the Hub; also from the cache."""
    content = files[0].read_bytes()
    named = source_of({"path": "a.mp4", "bytes": content})
    expected = embed_files(model, processor, [files[0]]).arrays["video_va_embeds"]
    for source, folder in ((content, None), (named, tmp_path), (named, tmp_path)):
        found = embed_files(model, processor, [source], cache_dir=folder)
        np.testing.assert_array_equal(found.arrays["video_va_embeds"], expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_and_decoders(model, processor, files, tmp_path):
    """Rows of `Video()` and `Audio()`, and objects of torchcodec, give what their files give."""
    for name, column in (("video", datasets.Video), ("audio", datasets.Audio)):
        options = {"modalities": (name,), "windows": 2}
        expected = embed_files(model, processor, files[:2], **options).arrays[f"{name}_va_embeds"]
        table = datasets.Dataset.from_dict({"clip": list(map(str, files[:2]))})
        rows = table.cast_column("clip", column(decode=False))["clip"]
        found = embed_files(model, processor, rows, **options).arrays[f"{name}_va_embeds"]
        np.testing.assert_array_equal(found, expected)
    rate = processor.feature_extractor.sampling_rate
    clip = read_clip(files[0], fps=processor.video_processor.fps, sampling_rate=rate)
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    times = torch.arange(len(frames)) / processor.video_processor.fps
    video = SimpleNamespace(
        data=frames, pts_seconds=times, duration_seconds=torch.full((len(frames),), float(times[1]))
    )
    sound = SimpleNamespace(data=torch.from_numpy(clip.waveform)[None], sample_rate=rate)
    row = {"array": clip.waveform, "sampling_rate": rate, "path": None}
    # The codec pads sound: what is decoded is longer than the file says, and its last window is later.
    for name, forms, atol in (("video", [video, clip.frames], 1e-5), ("audio", [sound, row], 0.02)):
        options = {"modalities": (name,), "windows": 2}
        expected = embed_files(model, processor, files[:1], **options).arrays[f"{name}_va_embeds"]
        found = embed_files(model, processor, forms, **options).arrays[f"{name}_va_embeds"]
        np.testing.assert_allclose(found, expected.repeat(2, 0), atol=atol)
    for wrong in ({"modalities": ("video", "audio")}, {"cache_dir": tmp_path}, {"segments": [(0.0, 1.0)]}):
        with pytest.raises(ValueError, match="Decoded clips"):
            embed_files(model, processor, [video], **wrong)


def test_segments_read_nothing_outside(tmp_path, model, processor):
    file = write_media(tmp_path / "long.mp4", frames=numbered_frames(80), fps=10)
    options = {"fps": 10, "audio": False}
    clips = read_windows(str(file), 0.8, segment=(3.0, 5.0), places=[0.0, 0.5, 1.0], **options)
    assert [frame_numbers(clip.frames) for clip in clips] == [
        list(range(first, first + 8)) for first in (30, 36, 42)
    ]
    (clip,) = read_windows(str(file), 0.8, segment=(3.0, 5.0), **options)
    assert frame_numbers(clip.frames) == list(range(36, 44))  # centred
    (clip,) = read_windows(str(file), 0.8, segment=(3.0, 3.5), **options)
    assert frame_numbers(clip.frames) == list(range(30, 35))  # shorter than a window

    segments = [(3.0, 5.0), (6.0, 5.0), (3.0, 3.4), (float("nan"), 2.0)]
    segments += [(None, 2.0), (0.0, 2.0), (6.0, None), (6.0, 8.0), None]  # some with one end
    found = embed_files(model, processor, [file] * 9, windows=2, segments=segments)
    assert found.kept.tolist() == [0, 2, 4, 5, 6, 7, 8]
    assert "no part from 6.0 to 5.0 s" in str(found.errors[0])
    assert "no part from nan to 2.0 s" in str(found.errors[1])
    rows = found.arrays["video_va_embeds"]
    np.testing.assert_allclose(rows[[2, 4]], rows[[3, 5]], atol=1e-5)
    assert np.abs(rows[6] - rows[3]).max() > 1e-3 < np.abs(rows[6] - rows[5]).max()
    frames = read_windows(str(file), 0.8, segment=(3.0, 3.4), **options)[0].frames
    assert len(frames) == 4
    repeated = processor(videos=[np.concatenate([frames, frames])])["pixel_values_videos"]
    with torch.no_grad():
        expected = model.get_video_features(repeated).va_embeds[0].numpy()
    np.testing.assert_allclose(rows[1], [expected] * 2, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="longer"):
        embed_files(model, processor, [file], segments=segments[:2])


@pytest.mark.parametrize("fault", ["reading", "hashing"])
def test_a_fault_that_passes_stays_in_no_cache(tmp_path, model, processor, files, monkeypatch, fault):
    """A file system that answers again: the file is tried again, those that were embedded are not."""
    whole = embed_files(model, processor, files[:2])
    read, hashed = embedding.read_windows, cache.hash_file
    asked: list[str] = []

    def failing(source, *args, **options):
        asked.append(str(source))
        if str(source) == str(files[1]) and len(asked) < 5:
            raise MediaError(str(source), "cannot be decoded (Input/output error)")
        return read(source, *args, **options)

    def unreadable(path):
        if len(asked) < 5 and str(path) == str(files[1]):
            raise OSError(errno.EIO, "Input/output error")
        return hashed(path)

    monkeypatch.setattr(embedding, "read_windows", failing)
    if fault == "hashing":
        monkeypatch.setattr(cache, "hash_file", unreadable)
    for _ in range(2):
        found = embed_files(model, processor, files[:2], cache_dir=tmp_path)
        assert found.kept.tolist() == [0] and "Input/output error" in str(found.errors[0])
    assert len(asked) == 3  # the good one once
    asked.extend(["", ""])
    for _ in range(2):
        found = embed_files(model, processor, files[:2], cache_dir=tmp_path)
        assert not found.errors
        np.testing.assert_array_equal(found.arrays["video_va_embeds"], whole.arrays["video_va_embeds"])


def test_a_file_that_changes_while_it_is_embedded(tmp_path, model, processor, files, monkeypatch):
    """Such as one that is still being copied: what was read is not known as what the file became."""
    file = tmp_path / "a.mp4"
    file.write_bytes(files[0].read_bytes())
    embed = embedding._embed_clips

    def slow(*args):
        file.write_bytes(files[3].read_bytes())
        return embed(*args)

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "_embed_clips", slow)
        embed_files(model, processor, [file], cache_dir=tmp_path / "cache")
    found = embed_files(model, processor, [file], cache_dir=tmp_path / "cache")
    expected = embed_files(model, processor, [files[3]])
    np.testing.assert_array_equal(found.arrays["video_va_embeds"], expected.arrays["video_va_embeds"])


def test_cache_answers_only_the_same_question(tmp_path, model, processor, files, monkeypatch):
    cache = tmp_path / "cache"
    calls = []
    forward = type(model.vatt).forward
    monkeypatch.setattr(
        type(model.vatt), "forward", lambda self, **kwargs: calls.append(1) or forward(self, **kwargs)
    )

    def embed(**options) -> tuple[int, object]:
        calls.clear()
        found = embed_files(
            options.pop("model", model), processor, files, batch_size=2, cache_dir=cache, **options
        )
        return len(calls), found

    computed, first = embed()
    assert computed == 2  # the third batch is the missing file
    computed, second = embed()
    assert computed == 0
    assert second.kept.tolist() == first.kept.tolist() == [0, 1, 3]
    assert [str(error) for error in second.errors] == [str(error) for error in first.errors]
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, second.arrays[name])

    next(cache.glob("*.npz")).unlink()  # as if interrupted
    assert embed()[0] <= 1
    assert embed(windows=2)[0] == 2
    other = seeded(VattForPreTraining, small_config(), seed=1).eval()
    computed, changed = embed(model=other)
    assert computed == 2
    assert (changed.arrays["video_va_embeds"] != first.arrays["video_va_embeds"]).any()
    monkeypatch.setattr(processor.video_processor, "fps", 5.0)
    assert embed()[0] == 2
    monkeypatch.undo()


def test_training_mode_is_refused(tmp_path, processor):
    """Its random embeddings would be taken from the cache later on."""
    model = seeded(VattForPreTraining, small_config()).train()
    file = write_clip(tmp_path / "a.mp4", 1)
    for embed in (
        lambda: embed_files(model, processor, [file], cache_dir=tmp_path / "cache"),
        lambda: embed_query(model, processor, text="grey"),
    ):
        with pytest.raises(ValueError, match=r"model\.eval\(\)"):
            embed()


def test_batches_of_different_modalities_are_refused(model, processor):
    """Their rows would belong to other clips."""
    sound = [np.zeros(processor.feature_extractor.num_samples, np.float32)]
    batches = [processor(audio=sound, text=["grey"]), processor(audio=sound)]
    with pytest.raises(ValueError, match="must have the same inputs"):
        embed_batches(model, batches)


def test_a_changed_file_is_embedded_anew(tmp_path, model, processor):
    file = write_clip(tmp_path / "a.mp4", 1)
    options = {"cache_dir": tmp_path / "cache"}
    before = embed_files(model, processor, [file], **options).arrays["video_va_embeds"]
    write_clip(file, 14)
    after = embed_files(model, processor, [file], **options).arrays["video_va_embeds"]
    assert (before != after).any()


def test_a_damaged_cache_is_made_again(tmp_path, model, processor, files):
    """Cut off at any place, or with flipped bits, as a machine that fails leaves it."""
    embed_files(model, processor, files[:1], cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]
    for damaged in (b"", whole[:40], whole[: len(whole) // 2], whole[:-30], b"no archive" * 9, flipped):
        file.write_bytes(damaged)
        found = embed_files(model, processor, files[:1], cache_dir=tmp_path)
        assert found.kept.tolist() == [0] and file.read_bytes() == whole


def test_two_that_write_the_same_cache_file(tmp_path, model, processor, files, monkeypatch):
    """The second begins and ends while the first is writing."""
    save, begun = np.savez, []

    def slowly(file, **arrays) -> None:
        save(file, **arrays)
        if not begun:
            begun.append(1)
            embed_files(model, processor, files[:1], cache_dir=tmp_path)

    monkeypatch.setattr(np, "savez", slowly)
    embed_files(model, processor, files[:1], cache_dir=tmp_path)
    monkeypatch.undo()
    (file,) = tmp_path.iterdir()
    with np.load(file) as content:
        assert "video_va_embeds" in content


def test_gallery_is_the_mean_of_windows(model, processor, files):
    gallery, errors = Gallery.from_files(model, processor, files, windows=3, batch_size=2)
    found = embed_files(model, processor, files, windows=3)
    assert gallery.names == [str(files[index]) for index in (0, 1, 3)] and len(errors) == 2
    mean = found.arrays["video_vt_embeds"].mean(1)
    np.testing.assert_allclose(gallery.vt, mean / np.linalg.norm(mean, axis=1, keepdims=True), rtol=1e-5)


def test_texts_are_embedded_in_batches(model, processor):
    texts = ["clip 1", "a tone", "grey number 4"]
    embeds = embed_texts(model, processor, texts, batch_size=2)
    for text, row in zip(texts, embeds, strict=True):
        inputs = processor(text=[text])
        with torch.no_grad():
            expected = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).vt_embeds[0]
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_retrieval_over_windows_equals_a_direct_computation():
    random = np.random.default_rng(0)
    clips, windows, captions = 7, 3, 2
    embeddings = {
        name: random.normal(size=(clips, windows, 5))
        for name in ("video_va_embeds", "video_vt_embeds", "audio_va_embeds")
    }
    mask = np.ones((clips, windows))
    mask[2] = 0  # a silent clip asks nothing
    mask[4, 1:] = 0  # sound in one window only
    embeddings["audio_mask"] = mask
    texts = random.normal(size=(clips * captions, 5))
    targets = [clip for clip in range(clips) for _ in range(captions)]
    metrics = zero_shot_retrieval(embeddings, texts, targets)

    video_vt, video_va, audio = (
        embeddings[name] for name in ("video_vt_embeds", "video_va_embeds", "audio_va_embeds")
    )
    asking = [clip for clip in range(clips) if clip != 2]
    heard = {clip: audio[clip][mask[clip] == 1] for clip in asking}
    direct = {
        "txt2vid_embd_": ([[unit(t) @ unit(v.mean(0)) for v in video_vt] for t in texts], targets),
        "txt2vid_cosine_": (
            [[np.mean([unit(t) @ unit(w) for w in v]) for v in video_vt] for t in texts],
            targets,
        ),
        "audio2vid_embd_": (
            [[unit(heard[a].mean(0)) @ unit(v.mean(0)) for v in video_va] for a in asking],
            asking,
        ),
        "audio2vid_cosine_": (
            [[np.mean([unit(x) @ unit(w) for x in heard[a] for w in v]) for v in video_va] for a in asking],
            asking,
        ),
    }
    for prefix, (similarity, truth) in direct.items():
        places = []
        for row, target in zip(np.array(similarity), truth, strict=True):
            places.append(np.argsort(-row).tolist().index(target))
        assert metrics[f"{prefix}MedianRank"] == np.median(places) + 1
        for k in (1, 5, 10):
            assert metrics[f"{prefix}R{k}"] == np.mean(np.array(places) < k)
    assert metrics["gallery_size"] == 7
    assert metrics["txt2vid_queries"] == 14 and metrics["audio2vid_queries"] == 6
    assert set(metrics) == {
        *(f"{prefix}{name}" for prefix in direct for name in ("R1", "R5", "R10", "MedianRank")),
        "txt2vid_queries",
        "audio2vid_queries",
        "gallery_size",
    }


def test_unit_vectors_of_half_precision():
    """Whose squares exceed float16, or vanish in it."""
    rows = np.random.default_rng(0).standard_normal((3, 64)) * [[300], [1], [1e-4]]
    half = rows.astype(np.float16)
    expected = half.astype(np.float64) / np.linalg.norm(half.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit(half), expected, atol=1e-6)


def test_retrieval_without_queries():
    video = np.ones((2, 1, 3))
    embeddings = {"video_va_embeds": video, "video_vt_embeds": video}
    with pytest.raises(ValueError, match="No clip has a caption or sound"):
        zero_shot_retrieval(embeddings)
    silent = {**embeddings, "audio_va_embeds": video, "audio_mask": np.zeros((2, 1))}
    metrics = zero_shot_retrieval(silent, np.eye(2, 3))
    assert "audio2vid_queries" not in metrics and metrics["txt2vid_queries"] == 2


def test_the_two_averages_differ_and_windows_of_queries_count():
    gallery = np.array([[[10.0, 0], [0, 1]], [[1, 1], [1, 1]]])
    query = np.array([[1.0, 0]])
    embeddings = average_windows(query, gallery)
    similarities = average_windows(query, gallery, "similarities")
    np.testing.assert_allclose(embeddings, [[10 / 101**0.5, 0.5**0.5]])
    np.testing.assert_allclose(similarities, [[0.5, 0.5**0.5]])
    assert retrieval_metrics(embeddings, [0])["R1"] == 1 and retrieval_metrics(similarities, [0])["R1"] == 0
    two = np.array([[[4.0, 0], [0, 4]]])
    np.testing.assert_allclose(average_windows(two, gallery, "similarities")[0, 1], 0.5**0.5)
