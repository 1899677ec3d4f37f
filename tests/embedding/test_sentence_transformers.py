# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""SentenceTransformer on a saved model gives the embeddings of this package."""

import json
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from clip_folders import small_processor, write_clip
from PIL import Image
from small_models import seeded, small_config

from modeling_vatt import VattForPreTraining, VattForVideoClassification, VattModel
from modeling_vatt.embedding.embedding import embed_files, embed_texts, unit


pytest.importorskip(
    "sentence_transformers", reason="needs pip install 'modeling_vatt[sentence-transformers]'"
)
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses


WORDS = ["clip 1", "a grey tone"]


@pytest.fixture(scope="module", params=["specific", "joint"])
def saved(request, tmp_path_factory):
    """A folder with a model, clips (the last one silent), the model and its processor."""
    config = small_config(request.param)
    model, processor = seeded(VattForPreTraining, config).eval(), small_processor(config)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    clips = [str(write_clip(folder / f"{n}.mp4", n, seconds=2.0, sound=n != 2)) for n in range(3)]
    return folder / "model", clips, model, processor


def halves(arrays, modality):
    """[vt | va] of what `embed_files` returns, of one window."""
    vt, va = (arrays.get(f"{modality}_{space}_embeds") for space in ("vt", "va"))
    return np.concatenate([unit(vt[:, 0]), unit(va[:, 0])], 1)


def without_modules(folder, target):
    target.mkdir()
    for path in folder.iterdir():
        if path.name not in ("modules.json", "config_sentence_transformers.json"):
            (target / path.name).symlink_to(path)
    return target


@pytest.mark.parametrize("listed", [True, False])
def test_vectors_are_those_of_this_package(saved, tmp_path, listed):
    """With `modules.json` and without, as folders of earlier versions are."""
    folder, clips, model, processor = saved
    model_of_theirs = SentenceTransformer(
        str(folder if listed else without_modules(folder, tmp_path / "old")), device="cpu"
    )
    video = model_of_theirs.encode(clips)
    expected = halves(embed_files(model, processor, clips).arrays, "video")
    np.testing.assert_allclose(video, expected, atol=1e-6)
    assert model_of_theirs.get_embedding_dimension() == expected.shape[1]
    for row in ({"bytes": Path(clips[0]).read_bytes(), "path": None}, Path(clips[0])):
        np.testing.assert_allclose(model_of_theirs.encode([row])[0], expected[0], atol=1e-6)

    text = model_of_theirs.encode_query(WORDS)
    width = model.config.vt_projection_size
    np.testing.assert_allclose(text[:, :width], unit(embed_texts(model, processor, WORDS)), atol=1e-6)
    sound = model_of_theirs.encode_document([{"audio": clip} for clip in clips[:2]])
    heard = unit(embed_files(model, processor, clips[:2], ("audio",)).arrays["audio_va_embeds"][:, 0])
    np.testing.assert_allclose(sound[:, width:], heard, atol=1e-6)

    # The similarity is the sum of the cosines in common spaces.
    joint = model.config.head_type == "joint"
    similarity = model_of_theirs.similarity(text, video).numpy()
    cosines = text[:, :width] @ expected[:, :width].T
    np.testing.assert_allclose(similarity, cosines * (2 if joint else 1), atol=1e-6)
    assert np.any(text[:, width:]) == np.any(sound[:, :width]) == joint
    assert np.any(model_of_theirs.similarity(text, sound).numpy()) == joint


def test_inputs_of_several_modalities(saved):
    folder, clips, model, _ = saved
    theirs = SentenceTransformer(str(folder), device="cpu")
    video, sound, text = (
        theirs.encode([{name: value}])[0]
        for name, value in (("video", clips[0]), ("audio", clips[0]), ("text", WORDS[0]))
    )
    row = {"video": clips[0], "audio": clips[0], "text": WORDS[0]}
    mixed = theirs.encode([WORDS[0], row, clips[0], {"video": clips[2], "audio": None}, "!!"])
    width = model.config.vt_projection_size
    total = video + sound + text
    expected = np.concatenate([unit(total[:width]), unit(total[width:])])
    np.testing.assert_allclose(mixed[:3], [text, expected, video], atol=1e-6)
    np.testing.assert_allclose(mixed[3], theirs.encode(clips[2]), atol=1e-6)
    assert not mixed[4].any()  # no words
    message = {
        "role": "user",
        "content": [{"type": "video", "video": clips[0]}, {"type": "text", "text": WORDS[0]}],
    }
    np.testing.assert_allclose(
        theirs.encode([[message]])[0], theirs.encode({"video": clips[0], "text": WORDS[0]}), atol=1e-6
    )


def test_spaces_windows_and_saving(saved, tmp_path):
    folder, clips, model, processor = saved
    theirs = SentenceTransformer(str(folder), device="cpu")
    width = model.config.vt_projection_size
    whole = theirs.encode(clips)
    for space, part in (("vt", whole[:, :width]), ("va", whole[:, width:])):
        np.testing.assert_array_equal(theirs.encode(clips, spaces=space), part)
    np.testing.assert_array_equal(theirs.encode(clips, truncate_dim=width), whole[:, :width])
    mean = embed_files(model, processor, clips, windows=3).arrays["video_va_embeds"].mean(1)
    np.testing.assert_allclose(theirs.encode(clips, windows=3, spaces="va"), unit(mean), atol=1e-6)

    theirs.max_seq_length = 2
    np.testing.assert_allclose(theirs.encode("clip 1 grey number"), theirs.encode("clip 1"), atol=1e-6)
    theirs.max_seq_length = 5
    theirs[0].spaces, theirs[0].windows, theirs.prompts["query"] = ("va",), 3, "grey "
    theirs.save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert again.similarity_fn_name == "dot" and again.get_embedding_dimension() == whole.shape[1] - width
    np.testing.assert_allclose(again.encode(clips), unit(mean), atol=1e-6)
    again[0].spaces = ("vt", "va")
    np.testing.assert_allclose(
        again.encode_query("tone"), theirs.encode("grey tone", spaces=("vt", "va")), atol=1e-6
    )


def test_learned_temperatures_are_saved(tmp_path):
    """Also after training, and with another base model in the module."""
    config = small_config(loss_type="sigmoid", temperature=0.5)
    model = seeded(VattForPreTraining, config)
    with torch.no_grad():
        for parameter in model.loss_scales.parameters():
            parameter.fill_(0.25)
    model.save_pretrained(tmp_path / "model")
    small_processor(config).save_pretrained(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert not [name for name, _ in theirs.named_parameters() if "loss_scales" in name]
    with torch.no_grad():
        theirs[0].model.head.text_vt.bias.add_(1)
    theirs.save(str(tmp_path / "saved"))
    again, info = VattForPreTraining.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert all((parameter == 0.25).all() for parameter in again.loss_scales.parameters())
    torch.testing.assert_close(again.vatt.head.text_vt.bias, model.vatt.head.text_vt.bias + 1)
    theirs[0].model = VattModel(config)
    theirs.save(str(tmp_path / "replaced"))
    again = VattForPreTraining.from_pretrained(tmp_path / "replaced")
    assert torch.equal(again.vatt.head.text_vt.weight, theirs[0].model.head.text_vt.weight)


def test_pictures_arrays_and_columns(saved, tmp_path):
    from datasets import Audio, Dataset, Video

    folder, clips, _, processor = saved
    theirs = SentenceTransformer(str(folder), device="cpu")
    picture = Image.new("RGB", (20, 20), (200, 0, 90))
    picture.save(tmp_path / "a.png")
    forms = [picture, {"image": picture}, np.asarray(picture), np.asarray(picture)[None], tmp_path / "a.png"]
    vectors = theirs.encode([*forms, str(tmp_path / "a.png"), [picture, picture]])
    np.testing.assert_allclose(vectors, vectors[:1].repeat(len(vectors), 0), atol=1e-6)

    rate = processor.feature_extractor.sampling_rate
    wave = np.sin(np.arange(rate // 5) / 3).astype(np.float32)
    sounds = theirs.encode([wave, {"array": wave, "sampling_rate": rate}, torch.tensor(wave)])
    np.testing.assert_array_equal(sounds, sounds[:1].repeat(3, 0))

    table = Dataset.from_dict({"v": clips, "a": clips}).cast_column("v", Video(decode=False))
    table = table.cast_column("a", Audio(decode=False))
    np.testing.assert_array_equal(theirs.encode(table["v"]), theirs.encode(clips))
    np.testing.assert_array_equal(
        theirs.encode([{"audio": sound} for sound in table[:2]["a"]]),
        theirs.encode([{"audio": clip} for clip in clips[:2]]),
    )


def test_losses_with_a_gradient_cache(saved):
    """Parts of a batch give the loss and the gradients of the whole, or are refused."""
    folder, clips, *_ = saved
    theirs = SentenceTransformer(str(folder), device="cpu").eval()
    rows = [{"text": word, "video": clip} for word, clip in zip(("clip 1", "tone", "!!"), clips, strict=True)]

    def run(loss, *columns):
        theirs.zero_grad()
        value = loss([theirs.preprocess(column) for column in columns], None)
        value.backward()
        return value.detach(), [p.grad.clone() for p in theirs.parameters() if p.grad is not None]

    parts = losses.CachedMultipleNegativesRankingLoss(theirs, mini_batch_size=2)
    for anchors in (["clip 1", "!!", "tone"], rows):
        whole = run(losses.MultipleNegativesRankingLoss(theirs), anchors, clips)
        torch.testing.assert_close(run(parts, anchors, clips), whole, rtol=1e-3, atol=1e-4)
    for column in (["tone", *clips[1:]], [*clips[:2], {"text": "tone", "video": clips[2]}]):
        with pytest.raises(ValueError, match="rows have the same modalities"):
            run(parts, column, clips)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("no/such.webm", "no such file"),
        (("a", "b"), "pairs"),
        ({"video": "a.mp4", "speech": "a.wav"}, "speech"),
        ({"text": ["a", "b"]}, "one string"),
        ({"video": None}, "must hold"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "one text"),
    ],
)
def test_what_has_no_vector_is_refused(saved, item, message):
    with pytest.raises(ValueError, match=message):
        SentenceTransformer(str(saved[0]), device="cpu").encode([item])


def test_models_without_common_spaces_are_refused(tmp_path):
    """With random heads they would embed in silence."""
    config = small_config(num_labels=3)
    VattForVideoClassification(config).save_pretrained(tmp_path)
    small_processor(config).save_pretrained(tmp_path)
    assert not (tmp_path / "modules.json").exists()
    with pytest.raises(ValueError, match="lacks"):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_files_that_are_there_stay(saved, tmp_path):
    """The folder may be that of a longer chain of modules."""
    (tmp_path / "modules.json").write_text("[]")
    saved[2].save_pretrained(tmp_path)
    assert json.loads((tmp_path / "modules.json").read_text()) == []


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["specific"], indirect=True)
def test_other_processes(saved):
    """One that never imported this package, and a pool."""
    folder, clips, *_ = saved
    theirs = SentenceTransformer(str(folder), device="cpu")
    expected = theirs.encode(clips)
    script = (
        "import sys; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device='cpu')\n"
        "print(model.encode(sys.argv[2]).tolist())"
    )
    result = processes.run("-c", script, folder, clips[0])
    np.testing.assert_allclose(json.loads(result.stdout), expected[0], atol=1e-6)
    np.testing.assert_allclose(theirs.encode(clips, device=["cpu"], chunk_size=2), expected, atol=1e-6)
