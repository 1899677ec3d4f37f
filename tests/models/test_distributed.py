# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Several gloo processes against one process on the concatenated batch, in float64: loss, averaged gradients
and batch-norm statistics must be the same."""

import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from processes import FORKS
from small_models import EVERY_TOKEN, outcome, seeded, shard, small_config, small_inputs
from torch.nn.parallel import DistributedDataParallel

from modeling_vatt import VattForPreTraining
from modeling_vatt.models.collectives import all_reduce_sum, gather_rows, world_size
from modeling_vatt.training import average_gradients, cached_backward


pytestmark = pytest.mark.slow  # three processes make a step of every case

JOINT = {"variant": "joint", "audio_text_loss_weight": 1.0}
FIRST, SECOND = [1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1]
MASKS, NOTHING = (FIRST, SECOND), ([0] * 6, [0] * 6)
CAPTIONS = (FIRST, [[1, 0], [0, 0], [0, 1], [1, 1], [1, 0], [1, 1]])
# Clips of each process, for two and for three processes.
EVEN, UNEVEN = {2: (3, 3), 3: (2, 2, 2)}, {2: (2, 4), 3: (1, 3, 2)}
FALSE_NEGATIVES = {"mask_false_negatives": True, "false_negative_similarity": 0.1}

# name -> what it is about. Rounding grows through the hundred batch norms of the convolutional baseline, so
# it gets an `rtol` of its own.
CASES: dict[str, dict[str, Any]] = {
    "even": {"sizes": EVEN},
    "uneven": {"sizes": {2: (5, 1), 3: (1, 3, 2)}},
    "masked": {"sizes": EVEN, "masks": MASKS},
    "uneven_masked": {"sizes": UNEVEN, "masks": MASKS},
    "process_without_sound": {"sizes": {2: (2, 4), 3: (2, 3, 1)}, "masks": ([0, 0, 1, 1, 0, 1], [1] * 6)},
    "all_absent": {"sizes": EVEN, "masks": NOTHING},
    "symmetric": {"sizes": EVEN, "config": {"loss_type": "symmetric"}},
    "symmetric_uneven_masked": {"sizes": UNEVEN, "masks": MASKS, "config": {"loss_type": "symmetric"}},
    "joint": {"sizes": UNEVEN, "masks": MASKS, "config": JOINT},
    **{
        f"{loss}_uneven_masked": {"sizes": UNEVEN, "masks": MASKS, "config": {**JOINT, "loss_type": loss}}
        for loss in ("asymmetric_learned", "symmetric_learned", "sigmoid")
    },
    "sigmoid_without_clips": {"sizes": EVEN, "masks": NOTHING, "config": {"loss_type": "sigmoid"}},
    **{
        f"{loss}_false_negatives": {
            "sizes": UNEVEN,
            "masks": MASKS,
            "config": {"loss_type": loss, **FALSE_NEGATIVES},
            "cached": loss == "symmetric_learned",
        }
        for loss in ("symmetric_learned", "sigmoid")
    },
    **{
        f"{loss}_captions": {
            "sizes": UNEVEN,
            "masks": CAPTIONS,
            "config": {"loss_type": loss},
            "cached": loss == "asymmetric",
        }
        for loss in ("asymmetric", "sigmoid")
    },
    "sigmoid_ddp": {"sizes": EVEN, "config": {"loss_type": "sigmoid"}, "ddp": True},
    "sigmoid_fsdp": {"sizes": UNEVEN, "config": {"loss_type": "sigmoid"}, "fsdp": True},
    "agnostic": {"sizes": {2: (4, 2), 3: (3, 1, 2)}, "config": {"variant": "agnostic"}},
    "mmv": {"sizes": UNEVEN, "config": {"variant": "mmv"}, "rtol": 1e-7},
    "ddp": {"sizes": EVEN, "masks": MASKS, "ddp": True},
    "cached": {"sizes": {2: (4, 2), 3: (1, 3, 2)}, "masks": MASKS, "cached": True},
    "fsdp": {"sizes": EVEN, "masks": MASKS, "fsdp": True},
    "fsdp_uneven": {"sizes": UNEVEN, "fsdp": True},
    "fsdp_cached": {"sizes": EVEN, "fsdp": True, "cached": True},
    "ddp_checkpointing": {"sizes": UNEVEN, "ddp": True, "checkpointing": True},
}


def build(case: dict[str, Any]) -> tuple[VattForPreTraining, dict[str, torch.Tensor]]:
    """The model and the whole batch of a case: the same in every process."""
    config = small_config(**{**EVERY_TOKEN, **case.get("config", {})})
    model = seeded(VattForPreTraining, config).double().train()
    inputs = small_inputs(model.config, 6, 2, dtype=torch.float64)
    if "masks" in case:
        inputs["audio_mask"], inputs["text_mask"] = (torch.tensor(mask) for mask in case["masks"])
    if model.config.mask_false_negatives:  # across processes: same words, same video
        inputs["input_ids"][4, 1] = inputs["input_ids"][0, 0]
        inputs["video_ids"] = torch.tensor([7, 8, 9, 8, 7, 6])
    if case.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, inputs


def run_case(case: dict[str, Any], rank: int, processes: int) -> dict[str, torch.Tensor]:
    """One step on this process's clips; losses and gradients are averaged over processes."""
    model, inputs = build(case)
    if case.get("fsdp"):
        shard(model, processes)
    sizes = case["sizes"][processes]
    start = sum(sizes[:rank])
    local = {name: value[start : start + sizes[rank]] for name, value in inputs.items()}
    module = DistributedDataParallel(model) if case.get("ddp") else model
    if case.get("cached"):  # two clips at a time
        parts = -(-sizes[rank] // 2)
        cut = {name: value.split(2) for name, value in local.items()}
        loss = cached_backward(
            model, [{name: value[part] for name, value in cut.items()} for part in range(parts)], range(parts)
        ).loss
    else:
        loss = module(**local).loss
        loss.backward()
    loss = loss.detach().clone()
    dist.all_reduce(loss)
    if not (case.get("ddp") or case.get("fsdp")):  # these average by themselves
        average_gradients(model)
    return outcome(model, loss / processes)


def run_collectives(rank: int) -> dict[str, torch.Tensor]:
    """`gather_rows` of 1, 2, ... rows of two tensors, and `all_reduce_sum`, with gradients."""
    rows = (torch.arange(2.0 * (rank + 1)).view(rank + 1, 2) + 10 * rank).requires_grad_()
    (gathered, counted), start = gather_rows(rows, rows.detach()[:, 0])
    weights = torch.arange(1.0, gathered.numel() + 1).view_as(gathered)
    (gathered * weights * (rank + 1)).sum().backward()
    value = torch.tensor(float(rank + 1), requires_grad=True)
    total = all_reduce_sum(value)
    (total * (rank + 1)).backward()
    return {
        "gathered": gathered.detach(),
        "counted": counted,
        "start": torch.tensor(start),
        "rows.grad": rows.grad,
        "total": total.detach(),
        "value.grad": value.grad,
        "world_size": torch.tensor(world_size()),
    }


def run_unequal_parts(rank: int, processes: int) -> dict[str, torch.Tensor]:
    """FSDP2, and one process has more parts than the others: an error in all of them; they would hang."""
    model, inputs = build(CASES["fsdp"])
    shard(model, processes)
    parts = [{name: value[:2] for name, value in inputs.items()}] * (2 if rank == 0 else 1)
    try:
        cached_backward(model, parts, range(len(parts)))
    except ValueError as error:
        return {"refused": torch.tensor("one has 1 parts and another 2" in str(error))}
    return {}


def run_uneven_modalities(rank: int) -> dict[str, torch.Tensor]:
    """The first process has no sound: an error in all of them; they would wait for each other."""
    model, inputs = build(CASES["even"])
    if rank == 0:
        del inputs["input_values"]
    try:
        model(**inputs)
    except ValueError as error:
        lacks = "lacks: audio" if rank == 0 else "lacks: nothing"
        return {"refused": torch.tensor("have audio" in str(error) and lacks in str(error))}
    return {}


def run_local_batch_norm(rank: int, processes: int) -> dict[str, torch.Tensor]:
    """`sync_batch_norm=False`: buffers of this process alone."""
    case = {**CASES["even"], "config": {"sync_batch_norm": False}}
    model, inputs = build(case)
    sizes = case["sizes"][processes]
    start = sum(sizes[:rank])
    model(**{name: value[start : start + sizes[rank]] for name, value in inputs.items()})
    return dict(model.named_buffers())


def worker(rank: int, folder: str) -> None:
    """The cases on three processes, then on the first two of them: starting processes takes longest."""
    torch.set_num_threads(1)
    for processes in (3, 2):
        if rank >= processes:
            return
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous{processes}",
            rank=rank,
            world_size=processes,
            timeout=datetime.timedelta(seconds=120),  # a collective that one process skips fails, not hangs
        )
        found = {name: run_case(case, rank, processes) for name, case in CASES.items()}
        found["collectives"] = run_collectives(rank)
        found["unequal_parts"] = run_unequal_parts(rank, processes)
        found["uneven_modalities"] = run_uneven_modalities(rank)
        found["local_batch_norm"] = run_local_batch_norm(rank, processes)
        torch.save(found, f"{folder}/{rank}of{processes}.pt")
        dist.barrier()
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the processes, started once for all tests, left what they found."""
    folder = tmp_path_factory.mktemp("processes")
    mp.start_processes(worker, args=(str(folder),), nprocs=3, start_method=FORKS.get_start_method())
    return folder


@pytest.fixture(scope="module", params=[2, 3])
def results(request, folder) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of 2 and of 3 processes found."""
    return [torch.load(folder / f"{rank}of{request.param}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", CASES)
def test_processes_equal_one_process(results, name):
    """Contrastive negatives, masks and batch statistics span all processes: splitting a batch, evenly or not,
    changes nothing, and no process goes its own way."""
    model, inputs = build(CASES[name])
    loss = model(**inputs).loss
    loss.backward()
    expected = outcome(model, loss)
    for rank, found in enumerate(results):
        assert found[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                found[name][key],
                value,
                rtol=CASES[name].get("rtol", 1e-9),
                atol=1e-11,
                msg=lambda m, k=key, r=rank: f"{k}, rank {r}: {m}",
            )


def test_gather_rows(results):
    """Rows in rank order, whatever their number per process; each gets its gradient from all processes."""
    processes = len(results)
    expected = torch.cat(
        [torch.arange(2.0 * (rank + 1)).view(rank + 1, 2) + 10 * rank for rank in range(processes)]
    )
    weights = torch.arange(1.0, expected.numel() + 1).view_as(expected)
    share = processes * (processes + 1) / 2  # process r weighs its loss with r + 1
    for rank, found in enumerate(results):
        start = rank * (rank + 1) // 2
        assert torch.equal(found["collectives"]["gathered"], expected)
        assert torch.equal(found["collectives"]["counted"], expected[:, 0])
        assert found["collectives"]["start"] == start
        own = weights[start : start + rank + 1] * share
        assert torch.equal(found["collectives"]["rows.grad"], own)


def test_all_reduce_sum(results):
    """The sum over processes, and the sum of their gradients."""
    processes = len(results)
    total = processes * (processes + 1) / 2
    for found in results:
        assert found["collectives"]["total"] == total
        assert found["collectives"]["value.grad"] == total
        assert found["collectives"]["world_size"] == processes


def test_unequal_parts_under_fsdp_are_refused(results):
    assert all(found["unequal_parts"]["refused"] for found in results)


def test_processes_with_other_modalities_are_refused(results):
    assert all(found["uneven_modalities"]["refused"] for found in results)


def test_batch_norm_may_stay_local(results):
    """`sync_batch_norm=False` keeps each process's statistics to itself."""
    first, second = results[0]["local_batch_norm"], results[1]["local_batch_norm"]
    assert not torch.allclose(
        first["vatt.head.video_va_norm.running_mean"], second["vatt.head.video_va_norm.running_mean"]
    )
    model, inputs = build({**CASES["even"], "config": {"sync_batch_norm": False}})
    clips = CASES["even"]["sizes"][len(results)][0]
    model(**{name: value[:clips] for name, value in inputs.items()})
    for name, values in model.named_buffers():
        torch.testing.assert_close(first[name], values)


def test_identity_without_processes():
    """A single process needs no process group."""
    rows = torch.randn(3, 2)
    (same,), start = gather_rows(rows)
    assert same is rows and start == 0
    assert all_reduce_sum(rows) is rows
    assert world_size() == 1
