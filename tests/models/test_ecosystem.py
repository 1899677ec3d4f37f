# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What every model class owes to a user of transformers: the common model checks, attention implementations,
precision, devices, quantisation, adapters and hooks. Compilation and export: test_export.py; Trainer:
test_trainer.py."""

import logging

import pytest
import torch
from every_model import CLASSIFIERS, MODELS, answer_of, build, inputs_of, loss_of, shallow, towers_of
from small_models import VARIANTS, needs_compiler
from torch import nn
from transformers.utils import is_flash_attn_2_available

from modeling_vatt import VattForPreTraining, VattModel, VattPreTrainedModel


every_model = pytest.mark.parametrize("model_class", MODELS)
OTHERS = [(model, name) for model in (VattModel, *CLASSIFIERS) for name in ("specific", "agnostic", "mmv")]
EVERY_VARIANT = [*((VattForPreTraining, name) for name in VARIANTS), *OTHERS]
every_variant = pytest.mark.parametrize(("model_class", "variant"), EVERY_VARIANT)
HALF = [(*case, torch.bfloat16) for case in EVERY_VARIANT] + [(m, "specific", torch.float16) for m in MODELS]
every_classifier = pytest.mark.parametrize("model_class", CLASSIFIERS)


# --- common model checks ---------------------------------------------------------------------------------


@every_model
@pytest.mark.support("Initialisation, also of weights missing from a checkpoint")
def test_missing_weights_get_their_init(model_class, monkeypatch):
    """Built from a config or loaded from an empty checkpoint: the same initialisation of every weight."""
    original = VattPreTrainedModel._init_weights

    def same_draw_for_every_module(self, module):
        torch.manual_seed(0)
        original(self, module)

    monkeypatch.setattr(VattPreTrainedModel, "_init_weights", same_draw_for_every_module)
    config = build(model_class).config
    built = model_class(config).state_dict()
    loaded = model_class.from_pretrained(None, config=config, state_dict={}).state_dict()
    assert built.keys() == loaded.keys()
    assert [name for name in built if not torch.equal(built[name], loaded[name])] == []


@every_model
@pytest.mark.support("Load with other sizes (`ignore_mismatched_sizes`)")
def test_mismatched_sizes(model_class, tmp_path):
    """Other sizes are refused, or on request initialised anew while everything else is loaded."""
    model = build(model_class)
    model.save_pretrained(tmp_path)
    changes = {"num_labels": 7} if model_class in CLASSIFIERS else {"vt_projection_size": 8}
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        model_class.from_pretrained(tmp_path, **changes)
    loaded, info = model_class.from_pretrained(
        tmp_path, **changes, ignore_mismatched_sizes=True, output_loading_info=True
    )
    resized = {key for key, *_ in info["mismatched_keys"]}
    if model_class in CLASSIFIERS:
        assert resized == {"classifier.weight", "classifier.bias"}
    else:
        assert resized
        assert all("_vt" in key for key in resized)
    old = model.state_dict()
    for name, values in loaded.state_dict().items():
        assert name in resized or torch.equal(values, old[name]), name
    assert loss_of(loaded, inputs_of(loaded, labels=True)).isfinite()


@every_model
def test_code_that_is_trusted_changes_no_other_argument(model_class, tmp_path):
    """Fields of the config, places of files and precision mean the same with `trust_remote_code=True`."""
    build(model_class).save_pretrained(tmp_path / "inner")
    tower = {"drop_token_rate": 0.25}
    fields = {"temperature": 0.5, "video_config": tower, "audio_config": tower, "num_labels": 5}
    options = {"subfolder": "inner", "attn_implementation": "eager", "dtype": torch.bfloat16}
    plain, trusted = (
        model_class.from_pretrained(tmp_path, **fields, **options, trust_remote_code=trust)
        for trust in (False, True)
    )
    assert trusted.config.to_dict() == plain.config.to_dict()
    assert trusted.config.temperature == 0.5 and trusted.dtype == torch.bfloat16
    assert (trusted.config.video_config.hidden_size, trusted.config.video_config.drop_token_rate) == (
        16,
        0.25,
    )
    assert trusted.config.audio_config._attn_implementation == "eager"
    state = trusted.state_dict()
    assert all(torch.equal(values, state[name]) for name, values in plain.state_dict().items())


@every_classifier
@pytest.mark.support("`resize_token_embeddings`", no="no text tower")
def test_classifiers_have_no_word_table(model_class):
    """The same error as of transformers' vision models."""
    with pytest.raises(TypeError, match="not an instance of"):
        build(model_class).resize_token_embeddings(50)


@every_model
@pytest.mark.support("Gradients of hidden states and attentions")
def test_gradients_of_hidden_states_and_attentions(model_class):
    """Saliency methods read them."""
    model = build(model_class)
    model.set_attn_implementation("eager")
    output = model(**inputs_of(model), output_hidden_states=True, output_attentions=True)
    kept = [value for tower in towers_of(output) for value in (*tower.hidden_states, *tower.attentions)]
    assert len(kept) == 5 * len(towers_of(output))
    for value in kept:
        value.retain_grad()
    answer_of(output).square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in kept)


@every_variant
@pytest.mark.support("Every parameter gets a gradient")
def test_every_parameter_gets_a_gradient(model_class, variant):
    """One step reaches every trainable parameter (DDP would otherwise stop), and never the word table."""
    model = build(model_class, variant).train()
    loss_of(model, inputs_of(model, labels=True)).backward()
    for name, parameter in model.named_parameters():
        is_fixed = name.endswith("word_embeddings.weight")
        assert parameter.requires_grad != is_fixed, name
        assert (parameter.grad is None) == is_fixed, name
        assert is_fixed or parameter.grad.isfinite().all(), name


@every_model
@pytest.mark.support("Evaluation is deterministic")
def test_evaluation_is_deterministic(model_class):
    """Training depends on the seed alone."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build(model_class, every=dropout, video={"drop_token_rate": 0.5})
    inputs = inputs_of(model)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return answer_of(model(**inputs))

    assert torch.equal(run(0), run(1))
    model.train()
    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(1))


@every_variant
@pytest.mark.support("Batching changes nothing")
def test_batch_equals_its_rows(model_class, variant):
    model = build(model_class, variant).double()
    inputs = inputs_of(model)
    together = answer_of(model(**inputs))
    for row in range(3):
        alone = answer_of(model(**{name: values[row : row + 1] for name, values in inputs.items()}))
        torch.testing.assert_close(together[row : row + 1], alone)


@every_variant
@pytest.mark.support("Save and load (safetensors)")
def test_save_and_load(model_class, variant, tmp_path):
    """Same weights, class names and answers after a round trip through a folder with safetensors only."""
    names = {0: "dog", 1: "cat", 2: "cow", 3: "hen", 4: "owl"}
    model = build(model_class, variant, id2label=names)
    model.save_pretrained(tmp_path)
    found = {path.name for path in tmp_path.iterdir()}
    of_embeddings = {"modules.json", "config_sentence_transformers.json"}
    assert found - of_embeddings == {"config.json", "model.safetensors"}
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not loaded.training and loaded.config.id2label == names
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(values, state[name]) for name, values in model.state_dict().items())
    inputs = inputs_of(model)
    torch.testing.assert_close(answer_of(loaded(**inputs)), answer_of(model(**inputs)))


@every_model
@pytest.mark.support("Forward hooks")
def test_forward_hooks(model_class):
    """A hook on a layer sees what `output_hidden_states` returns, and can change it."""
    model = build(model_class)
    base = getattr(model, "vatt", model)
    layer = (base.video_model or base.audio_model).encoder.layers[0]
    seen = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    inputs = inputs_of(model)
    output = model(**inputs, output_hidden_states=True)
    assert torch.equal(seen[0], towers_of(output)[0].hidden_states[1])
    handle.remove()
    layer.register_forward_hook(lambda module, args, output: (torch.zeros_like(output[0]), *output[1:]))
    assert not torch.allclose(answer_of(model(**inputs)), answer_of(output))


# --- attention -------------------------------------------------------------------------------------------


@every_variant
@pytest.mark.support("eager against `sdpa`")
def test_eager_equals_sdpa(model_class, variant):
    """For evaluation and gradients."""
    model = build(model_class, variant).double()
    inputs = inputs_of(model, labels=True)
    results = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        loss_of(model, inputs).backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([answer_of(model(**inputs)), *grads])
    torch.testing.assert_close(*results)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("model_class", "variant"), [*((m, "specific") for m in MODELS), (VattForPreTraining, "agnostic")]
)
@pytest.mark.support("`flex_attention`")
def test_flex_attention(model_class, variant):
    """It indexes the position bias by batch: that must be there for every row."""
    model = shallow(model_class, variant)
    inputs = inputs_of(model)
    with torch.no_grad():
        expected = answer_of(model(**inputs))
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close(answer_of(model(**inputs)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(
    not (torch.cuda.is_available() and is_flash_attn_2_available()), reason="needs a GPU and flash-attn"
)
@every_model
@pytest.mark.support("`flash_attention_2`")
def test_flash_attention(model_class):
    model = build(model_class).to("cuda", torch.bfloat16)
    inputs = {name: values.cuda() for name, values in inputs_of(model).items()}
    with torch.no_grad():
        expected = answer_of(model(**inputs))
        model.set_attn_implementation("flash_attention_2")
        torch.testing.assert_close(answer_of(model(**inputs)), expected, rtol=0.05, atol=0.05)


# --- precision -------------------------------------------------------------------------------------------


def assert_near(values: torch.Tensor, expected: torch.Tensor, cosine: float) -> None:
    assert values.isfinite().all()
    assert nn.functional.cosine_similarity(values.float(), expected.float(), dim=-1).min() > cosine


@pytest.mark.parametrize(("model_class", "variant", "dtype"), HALF)
@pytest.mark.support("`dtype=` bfloat16 and float16")
def test_loading_in_half_precision(model_class, variant, dtype, tmp_path):
    """Takes the float32 inputs of the processors."""
    model = build(model_class, variant)
    model.save_pretrained(tmp_path)
    half = model_class.from_pretrained(tmp_path, dtype=dtype)
    assert {p.dtype for p in half.parameters()} == {dtype}
    inputs = inputs_of(model)
    with torch.no_grad():
        assert_near(answer_of(half(**inputs)), answer_of(model(**inputs)), 0.97)


@pytest.mark.parametrize(("model_class", "variant", "dtype"), HALF)
@pytest.mark.support("autocast bfloat16 and float16")
def test_autocast(model_class, variant, dtype):
    """Outputs near float32, gradients finite and float32."""
    model = build(model_class, variant)
    inputs = inputs_of(model, labels=True)
    expected = answer_of(model(**inputs))
    # In bfloat16 oneDNN reads memory that nobody wrote for the weights of a strided 3 x 3 convolution whose
    # input is one pixel wide, as at the end of the tiny ResNet of "mmv".
    with torch.backends.mkldnn.flags(enabled=variant != "mmv"):
        with torch.autocast("cpu", dtype):
            assert_near(answer_of(model(**inputs)), expected, 0.97)
            loss = loss_of(model.train(), inputs)
        loss.float().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all(), name


@every_model
@pytest.mark.support("int8 weights (`TorchAoConfig`)")
def test_int8_weights(model_class, tmp_path):
    """Dense layers of the towers become int8 while loading; saved and loaded again they are the same."""
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    from transformers import TorchAoConfig

    model = build(model_class)
    model.save_pretrained(tmp_path / "float")
    config = TorchAoConfig(torchao.Int8WeightOnlyConfig())
    small = model_class.from_pretrained(tmp_path / "float", quantization_config=config)
    layer = (getattr(small, "vatt", small).video_model or getattr(small, "vatt", small).audio_model).encoder
    weight = layer.layers[0].mlp.fc1.weight
    assert weight.qdata.dtype == torch.int8
    inputs = inputs_of(model)
    with torch.no_grad():
        quantised = answer_of(small(**inputs))
        assert_near(quantised, answer_of(model(**inputs)), 0.99)
        small.save_pretrained(tmp_path / "int8")
        again = model_class.from_pretrained(tmp_path / "int8")
        torch.testing.assert_close(answer_of(again(**inputs)), quantised)


# --- devices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device_map", ["auto", "cpu"])
@every_model
@pytest.mark.support("Sharded save, `device_map`")
def test_shards_and_device_map(model_class, device_map, tmp_path):
    model = build(model_class)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    files = {path.name for path in tmp_path.iterdir()}
    assert "model.safetensors.index.json" in files
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    loaded = model_class.from_pretrained(tmp_path, device_map=device_map)
    assert {p.device.type for p in loaded.parameters()} == {"cpu"}
    inputs = inputs_of(model)
    torch.testing.assert_close(answer_of(loaded(**inputs)), answer_of(model(**inputs)))


@pytest.mark.parametrize("variant", ["specific", "agnostic"])
@every_model
@pytest.mark.support("Offload to disk")
def test_offload_to_disk(model_class, variant, tmp_path):
    """A model larger than the memory allowed: weights are read when their module is called."""
    model = build(model_class, variant)
    model.save_pretrained(tmp_path / "model")
    loaded = model_class.from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": 12_000}, offload_folder=tmp_path / "disk"
    )
    assert "disk" in loaded.hf_device_map.values()
    inputs = inputs_of(model)
    with torch.no_grad():
        torch.testing.assert_close(answer_of(loaded(**inputs)), answer_of(model(**inputs)))


# --- training --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("variant", ["specific", "agnostic"])
@every_model
@pytest.mark.support("Gradient checkpointing")
def test_gradient_checkpointing(model_class, variant, reentrant):
    """Same gradients with recomputation, the relative bias of the text tower and dropout included."""
    grads = []
    for checkpointing in (False, True):
        dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        model = build(model_class, variant, every=dropout).double().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert model.is_gradient_checkpointing
        torch.manual_seed(0)
        loss_of(model, inputs_of(model, labels=True)).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*grads)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("enabled", ["before", "after"])
@pytest.mark.parametrize("model_class", [VattForPreTraining, CLASSIFIERS[0]])
def test_adapters_of_every_tower_learn_with_reentrant_checkpointing(model_class: type, enabled: str) -> None:
    """Gradients are those without checkpointing, in every tower, enabled before PEFT or after it."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    grads = []
    for checkpointing in (False, True):
        model = build(model_class).train()
        inputs = inputs_of(model, labels=True)
        if checkpointing and enabled == "before":
            model.gradient_checkpointing_enable({"use_reentrant": True})
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        adapted = peft.get_peft_model(model, config).train()
        if checkpointing and enabled == "after":
            model.gradient_checkpointing_enable({"use_reentrant": True})
        loss_of(adapted, inputs).backward()
        grads.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@pytest.mark.parametrize(
    "dora",
    [
        pytest.param(False, marks=pytest.mark.support("LoRA with merge")),
        pytest.param(True, marks=pytest.mark.support("DoRA with merge")),
    ],
)
@every_model
def test_adapters(model_class, dora):
    """Train the adapters a step; merged weights then give the same answers without PEFT."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = build(model_class)
    inputs = inputs_of(model, labels=True)
    before = answer_of(model(**inputs))
    config = peft.LoraConfig(
        r=2,
        target_modules=["q_proj", "v_proj", "fc1"],
        use_dora=dora,
        modules_to_save=["classifier"] if model_class in CLASSIFIERS else None,
    )
    adapted = peft.get_peft_model(model, config)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(adapted, inputs).backward()
        optimizer.step()
    after = answer_of(adapted.eval()(**inputs))
    assert not torch.allclose(after, before, atol=1e-3)
    merged = adapted.merge_and_unload()
    assert isinstance(merged, model_class)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(answer_of(merged(**inputs)), after, rtol=1e-4, atol=1e-5)


@every_model
@pytest.mark.support("Accelerate")
def test_accelerate(model_class, tmp_path):
    """The loop of Accelerate's quick tour, and a checkpoint that transformers loads."""
    from accelerate import Accelerator

    logging.getLogger("accelerate").setLevel(logging.ERROR)
    accelerator = Accelerator(cpu=True)
    model = build(model_class).train()
    rows = inputs_of(model, batch=4, labels=True)
    data = [{name: values[row] for name, values in rows.items()} for row in range(4)]
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.AdamW(model.parameters(), lr=1e-2), torch.utils.data.DataLoader(data, batch_size=4)
    )
    losses = []
    for _ in range(5):
        for batch in loader:
            loss = loss_of(model, batch)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    accelerator.save_model(model, tmp_path)
    trained = accelerator.unwrap_model(model).eval()
    trained.config.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path)
    inputs = inputs_of(trained)
    torch.testing.assert_close(answer_of(loaded(**inputs)), answer_of(trained(**inputs)))
