# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Sharing on the Hub: the real client against a stand-in of the server on loopback."""

import json
import os
import re
from pathlib import Path

import processes
import pytest
import torch
import yaml
from clip_folders import make_folder, small_processor, write_clip
from hub_stand_in import TOKEN, USER, Entry, HubStandIn, Repository
from huggingface_hub import ModelCard
from scripts import EXAMPLES, PRETRAINING, flags
from small_models import seeded, small_config
from tower_folders import bert_folder, remote_folder

from modeling_vatt import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForPreTraining,
    VattForVideoClassification,
    VattModel,
)
from modeling_vatt.hub.model_card import build_model_card, is_empty_card, write_model_card


SUPPORT = Path(__file__).parents[1] / "support"
MODEL_FILES = {"README.md", "config.json", "model.safetensors"}
PROCESSOR_FILES = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
METRICS = {
    "txt2vid_R10": 0.75,
    "txt2vid_MedianRank": 3.0,
    "aud2vid_R1": 0.25,
    "mean_recall": 0.5,
    "loss": 2.0,
}


def python_block(card: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return block


def client(
    hub: HubStandIn, script: str, folder: Path, expect: int = 0, token: str | None = TOKEN, home: str = "home"
) -> str:
    """Run a script in a process of its own, with the Hub's client set to the stand-in; its output."""
    environment = {**os.environ, **hub.environment(folder / home)}
    environment["PYTHONPATH"] = str(SUPPORT)
    environment.pop("HF_TOKEN", None)
    if token is not None:
        environment["HF_TOKEN"] = token
    result = processes.run("-c", script, cwd=folder, env=environment)
    output = result.stdout + result.stderr
    assert result.returncode == expect, output
    assert TOKEN not in output
    return output


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory):
    """A public model with a processor and two revisions, a private one, and what the client asked for."""
    folder = tmp_path_factory.mktemp("uploads")
    script = f"""
import torch
from clip_folders import small_processor
from huggingface_hub import HfApi
from small_models import seeded, small_config
from modeling_vatt import VattForPreTraining, VattForVideoClassification

processor = small_processor()
processor.push_to_hub("{USER}/both")  # leaves transformers' empty form as the card
seeded(VattForPreTraining, small_config(), 1).push_to_hub("{USER}/both", commit_message="First weights")
seeded(VattForPreTraining, small_config(), 2).push_to_hub("{USER}/both", revision="second")

classes = {{"num_labels": 3, "id2label": {{0: "dog", 1: "cat", 2: "rain"}}}}
model = seeded(VattForVideoClassification, small_config(**classes))
model.push_to_hub("classes", private=True, tags=["animals"])
processor.push_to_hub("classes")
print(HfApi().model_info("{USER}/classes").private)
"""
    with HubStandIn() as hub:
        output = client(hub, script, folder)
        yield hub, output


def test_uploads_go_the_way_of_the_hub(uploaded):
    hub, output = uploaded
    assert set(hub.files(f"{USER}/both")) >= MODEL_FILES | PROCESSOR_FILES
    weights = hub.files(f"{USER}/both")["model.safetensors"]
    assert weights.lfs and weights.etag in hub.verified
    assert not hub.files(f"{USER}/both")["config.json"].lfs
    messages = hub.repositories[f"{USER}/both"].messages
    assert "First weights" in messages and "Upload processor" in messages
    assert output.startswith("True\n") and hub.repositories[f"{USER}/classes"].private


def test_a_model_alone_brings_a_complete_card(uploaded):
    hub, _ = uploaded
    for name in ("both", "classes"):
        card = ModelCard(hub.files(f"{USER}/{name}")["README.md"].data.decode())
        assert not is_empty_card(card) and "[More Information Needed]" not in card.content
        assert card.text.lstrip().startswith(f"# {USER}/{name}\n")
    assert card.data.pipeline_tag == "video-classification"
    assert {"vatt", "animals"} <= set(card.data.tags) and "into 3 classes" in card.text


def test_what_is_saved_beside_a_model_is_uploaded(uploaded, tmp_path):
    """By either way, for a new folder and one that was saved before: SentenceTransformer, which without
    `modules.json` would take other features, gives the vectors of the folder. Nothing else goes up."""
    pytest.importorskip("sentence_transformers")
    hub, _ = uploaded
    remote_folder(tmp_path / "source")
    script = f"""
from pathlib import Path
import numpy as np
from clip_folders import small_processor
from sentence_transformers import SentenceTransformer
from small_models import seeded, small_config
from modeling_vatt import VattForPreTraining
from modeling_vatt.hub.model_card import build_model_card

model, processor = seeded(VattForPreTraining, small_config(), 3).eval(), small_processor()
for before in (False, True):
    folder = Path(f"folder{{before}}")
    processor.save_pretrained(folder)
    if before:
        model.save_pretrained(folder)
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "state.bin").write_text("large")
    (folder / "run.json").write_text("private")
    card = build_model_card(model, "mine", license="mit")
    card.save(folder / "README.md")
    model.save_pretrained(folder, push_to_hub=True, repo_id=f"saved-{{before}}", private=before)
model.push_to_hub("{USER}/pushed")
processor.push_to_hub("{USER}/pushed")
here = SentenceTransformer("folderTrue", device="cpu").encode(["clip 1", "a grey tone"])
for name in ("saved-False", "saved-True", "pushed"):
    there = SentenceTransformer(f"{USER}/{{name}}", device="cpu")
    assert type(there[0]).__name__ == "VattEmbedder" and there.similarity_fn_name == "dot"
    np.testing.assert_array_equal(there.encode(["clip 1", "a grey tone"]), here)

from modeling_vatt import VattModel
tower = VattModel.from_video_audio_text_pretrained(
    video="source", trust_remote_code=True, audio_config=small_config().audio_config.to_dict(),
    text_config=small_config().text_config.to_dict(), va_projection_size=6, vt_projection_size=6,
)
tower.save_pretrained("with-code", push_to_hub=True)
"""
    client(hub, script, tmp_path)
    expected = MODEL_FILES | PROCESSOR_FILES | {"modules.json", "config_sentence_transformers.json"}
    for name in ("saved-False", "saved-True", "pushed"):
        assert set(hub.files(f"{USER}/{name}")) - {".gitattributes"} == expected
        card = ModelCard(hub.files(f"{USER}/{name}")["README.md"].data.decode())
        assert card.data.license == (None if name == "pushed" else "mit") and not is_empty_card(card)
    assert hub.repositories[f"{USER}/saved-True"].private
    assert {"tiny_pictures.py", "modules.json"} <= set(hub.files(f"{USER}/with-code"))


def test_a_card_that_somebody_wrote_is_kept(uploaded, tmp_path):
    hub, _ = uploaded
    script = f"""
from huggingface_hub import HfApi
from small_models import seeded, small_config
from modeling_vatt import VattModel

api = HfApi()
api.create_repo("{USER}/kept")
card = b"---\\nlicense: mit\\n---\\n\\n# Mine\\n"
api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="{USER}/kept")
VattModel(small_config()).push_to_hub("{USER}/kept")
"""
    client(hub, script, tmp_path)
    assert hub.files(f"{USER}/kept")["README.md"].data.decode().strip().endswith("# Mine")


def test_loading_with_revision_and_token(uploaded, tmp_path):
    """In a process that has no token of its own; the arguments must carry it."""
    hub, _ = uploaded
    script = f"""
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor
import modeling_vatt

models = {{}}
for revision in ("main", "second"):
    models[revision] = AutoModelForPreTraining.from_pretrained("{USER}/both", revision=revision).state_dict()
processor = AutoProcessor.from_pretrained("{USER}/both")
words = processor(text=["clip 3"]).input_ids
token = {TOKEN!r}
classifier = modeling_vatt.VattForVideoClassification.from_pretrained("{USER}/classes", token=token)
assert AutoProcessor.from_pretrained("{USER}/classes", token=token).num_captions == 2
torch.save([models["main"], models["second"], words, classifier.config.id2label], "loaded.pt")
try:
    AutoModel.from_pretrained("{USER}/classes", cache_dir="empty")
except OSError as error:
    print("without a token:", type(error).__name__, "not a valid model identifier" in str(error))
try:
    AutoModel.from_pretrained("{USER}/both", revision="third")
except OSError as error:
    print("no such revision:", "third is not a valid git identifier" in str(error))
"""
    output = client(hub, script, tmp_path, token=None)
    assert "without a token: OSError True" in output and "no such revision: True" in output
    main, second, words, labels = torch.load(tmp_path / "loaded.pt", weights_only=False)
    for state, seed in ((main, 1), (second, 2)):
        expected = seeded(VattForPreTraining, small_config(), seed).state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert torch.equal(words, small_processor()(text=["clip 3"]).input_ids)
    assert labels == {0: "dog", 1: "cat", 2: "rain"}


def test_a_wrong_token_is_refused_and_not_shown(uploaded, tmp_path):
    hub, _ = uploaded
    wrong = "wrong-" + TOKEN[::-1]
    script = """
from small_models import small_config
from modeling_vatt import VattModel
VattModel(small_config()).push_to_hub("nobody")
"""
    output = client(hub, script, tmp_path, expect=1, token=wrong)
    assert "401" in output and wrong not in output
    assert f"{USER}/nobody" not in hub.repositories


def pretraining_script(options: dict[str, object], name: str, *more: str) -> str:
    """A program that calls the pretraining script with `--push_to_hub`."""
    arguments = [*flags(**options), "--push_to_hub", "--hub_model_id", name, *more]
    examples = str(EXAMPLES)
    return f"""
import runpy, sys
sys.argv = ["run_pretraining.py", *{arguments!r}]
sys.path.insert(0, {examples!r})
runpy.run_path({examples + "/run_pretraining.py"!r}, run_name="__main__")
"""


def test_pretraining_script_without_a_token_stops_before_the_work(uploaded, tmp_path):
    hub, _ = uploaded
    script = pretraining_script({"dataset": "nowhere", "output_dir": "model"}, "mine")
    output = client(hub, script, tmp_path, expect=1, token=None)
    assert "Cannot create mine on the Hub" in output and "Traceback" not in output
    assert "nowhere" not in output


@pytest.mark.slow
def test_pretraining_script_uploads_its_result(uploaded, tmp_path):
    hub, _ = uploaded
    make_folder(tmp_path / "videos", 12)
    make_folder(tmp_path / "videos", 5, split="validation", first=12)
    write_clip(tmp_path / "clip.mp4", 3)
    options = {**PRETRAINING, "dataset": "videos", "output_dir": "model", "num_steps": 3}
    output = client(hub, pretraining_script(options, "pretrained", "--hub_private"), tmp_path)
    name = f"{USER}/pretrained"
    assert f"Uploaded to {name}" in output and hub.repositories[name].private
    assert set(hub.files(name)) >= MODEL_FILES | PROCESSOR_FILES
    assert not [path for path in hub.files(name) if path.startswith(("checkpoint", "best", "logs"))]

    card = ModelCard(hub.files(name)["README.md"].data.decode())
    (result,) = [r for r in card.data.eval_results if (r.task_name, r.metric_name) == TEXT_R10]
    assert result.dataset_name == "videos" and result.dataset_split == "validation"
    metrics = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert result.metric_value in [line.get("txt2vid_R10") for line in metrics]
    assert "| training clips | 12 |" in card.text and str(tmp_path) not in card.content

    # What the card says a user should do, done by somebody who has only the Hub.
    shown = client(hub, python_block(card.text), tmp_path, home="elsewhere")
    assert re.search(r"^tensor\(\[-?\d\.\d+(e-\d+)?\]\)$", shown, re.MULTILINE)


@pytest.mark.slow
def test_trainer_uploads_a_classifier(uploaded, tmp_path):
    hub, _ = uploaded
    script = f"""
import torch
from clip_folders import small_processor
from small_models import seeded, small_config, small_inputs
from transformers import Trainer, TrainingArguments
from modeling_vatt import VattForVideoClassification

config = small_config(num_labels=2)
clips = small_inputs(config, batch=4)["pixel_values_videos"]
rows = [{{"pixel_values_videos": clip, "labels": index % 2}} for index, clip in enumerate(clips)]
arguments = TrainingArguments(
    "out", max_steps=2, report_to="none", push_to_hub=True, hub_model_id="{USER}/tuned", hub_strategy="end"
)
model = seeded(VattForVideoClassification, config)
trainer = Trainer(model, arguments, train_dataset=rows, processing_class=small_processor())
trainer.train()
trainer.push_to_hub()
loaded = VattForVideoClassification.from_pretrained("{USER}/tuned")
assert torch.equal(loaded.classifier.weight, trainer.model.classifier.weight.cpu())
"""
    client(hub, script, tmp_path)
    assert set(hub.files(f"{USER}/tuned")) >= MODEL_FILES | PROCESSOR_FILES


TEXT_R10 = ("Text-to-video retrieval", "R@10")


def test_card_has_the_metrics_as_model_index(tmp_path):
    (tmp_path / "data").mkdir()
    model = VattForPreTraining(small_config())
    card = build_model_card(
        model,
        "me/mine",
        dataset=str(tmp_path / "data"),
        metrics=METRICS,
        settings={"num_steps": 7},
        split="test",
        data={"training clips": 9},
        base_model="me/before",
        license="apache-2.0",
        processor=small_processor(),
    )
    metadata = yaml.safe_load(card.content.split("---")[1])
    (entry,) = metadata["model-index"]
    assert entry["name"] == "me/mine" and metadata["base_model"] == "me/before"
    results = {result["task"]["name"]: result for result in entry["results"]}
    found = results["Text-to-video retrieval"]
    assert found["dataset"] == {"name": "data", "type": "videofolder", "split": "test"}
    assert {m["type"]: m["value"] for m in found["metrics"]} == {"recall_at_10": 0.75, "median_rank": 3.0}
    values = {m["type"] for result in entry["results"] for m in result["metrics"]}
    assert values == {"recall_at_10", "median_rank", "recall_at_1", "mean_recall"}  # the loss is no result
    for part in (
        "| txt2vid_R10 | 0.75 |",
        "| `num_steps` | 7 |",
        "| last loss | 2 |",
        "| training clips | 9 |",
        "Measured on `data`, split `test`.",
        "8 frames of 8 x 8 px, 10 per second",
        "Sound and text share no space.",
        "@inproceedings{akbari2021vatt,",
    ):
        assert part in card.text, part
    assert str(tmp_path) not in card.content
    assert "datasets" not in metadata


def test_card_names_a_dataset_of_the_hub():
    card = build_model_card(VattForPreTraining(small_config()), "m", dataset="user/videos", metrics=METRICS)
    assert card.data.datasets == "user/videos" and card.data.license is None
    assert {result.dataset_type for result in card.data.eval_results} == {"user/videos"}


@pytest.mark.parametrize(
    ("bases", "license"),
    [
        ([], "apache-2.0"),
        (["local"], "cc-by-nc-4.0"),
        (["local", "local"], "cc-by-nc-4.0"),
        (["local", "facebook/videomae-base"], None),
        (["local", "unstated"], None),
    ],
)
def test_license_is_that_of_the_weights_before(bases, license, tmp_path):
    model = VattForPreTraining(small_config())
    for name, text in (("local", "---\nlicense: cc-by-nc-4.0\n---\n# A\n"), ("unstated", "# B\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(text)
    found = [str(tmp_path / base) if (tmp_path / base).exists() else base for base in bases]
    write_model_card(tmp_path, "mine", model, base_model=found)
    assert ModelCard.load(tmp_path / "README.md").data.license == license
    write_model_card(tmp_path, "mine", model, base_model=found, license="mit")
    assert ModelCard.load(tmp_path / "README.md").data.license == "mit"


def test_card_says_what_is_not_known():
    card = build_model_card(VattModel(small_config("joint")), "m")
    for part in ("## Data\n\nNot stated.", "Settings not stated.", "Not evaluated.", "All three modalities"):
        assert part in card.text, part
    assert card.data.eval_results is None and "model-index" not in card.content


@pytest.mark.parametrize(
    "model_class",
    [
        VattForAudioClassification,
        VattForImageClassification,
        VattForPreTraining,
        VattForVideoClassification,
        VattModel,
    ],
)
def test_the_code_of_every_card_runs(model_class, tmp_path, monkeypatch, capsys):
    config = small_config(num_labels=3)
    model = seeded(model_class, config).eval()
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("saved")
    small_processor(config).save_pretrained("saved")
    write_clip(Path("clip.mp4"), 4)
    exec(python_block(build_model_card(model, "saved").text), {})
    printed = capsys.readouterr().out
    is_classifier = model_class not in (VattForPreTraining, VattModel)
    assert printed.startswith("LABEL_" if is_classifier else "tensor([")


def test_a_card_lists_only_the_towers_of_the_model():
    card = build_model_card(VattForAudioClassification(small_config(num_labels=3)), "m")
    assert "| audio | 96 samples |" in card.text and "| video |" not in card.text


@pytest.mark.slow
def test_towers_of_the_hub_and_of_its_cache(tmp_path):
    """By name; where the Hub does not answer from its cache, and nothing is asked for again and again."""
    folder = bert_folder(tmp_path / "text")
    processor = small_processor()
    processor.save_pretrained(tmp_path / "own")
    files, own = (
        {path.name: Entry(path.read_bytes(), lfs=False) for path in place.iterdir()}
        for place in (folder, tmp_path / "own")
    )
    script = f"""
from small_models import AUDIO, VIDEO
from modeling_vatt.embedding.building import build_from_towers
model, processor = build_from_towers(
    text="{USER}/words", video_config=dict(VIDEO), audio_config=dict(AUDIO), processing={{"seconds": 0.4}}
)
print(model.config.use("text").pooling, processor.tokenizer.model_max_length)
from modeling_vatt.processors import VattProcessor, VattTokenizer
own = "{USER}/own"
print(VattProcessor.from_pretrained(own).num_captions, len(VattTokenizer.from_pretrained(own)))
for kind in (VattProcessor, VattTokenizer):
    try:
        kind.from_pretrained("{USER}/nothing")
    except FileNotFoundError as error:
        print(error)
"""
    with HubStandIn() as hub:
        hub.repositories[f"{USER}/words"] = Repository(private=False)
        hub.repositories[f"{USER}/words"].commit("main", files, "words")
        hub.repositories[f"{USER}/own"] = Repository(private=False)
        hub.repositories[f"{USER}/own"].commit("main", own, "own")
        there = client(hub, script, tmp_path)
    gone = client(hub, script, tmp_path)
    read = f"{processor.num_captions} {len(processor.tokenizer)}"
    for output, reason in ((there, "nor a model on the Hub"), (gone, "the Hub cannot be reached")):
        assert "mean 12" in output and read in output and "Retry" not in output
        assert output.count(f"{USER}/nothing: no such folder") == output.count(reason) == 2
