# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of all tests: offline, one thread, seeded, and on the CPU whatever the machine has.

`VATT_TEST_GPU=1 python -m pytest tests/e2e/test_gpu.py` runs those that need a GPU.
"""

import os
import shutil
import socket
import tempfile


os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is, also in the processes that tests start
if os.environ.get("VATT_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="vatt-tests-")  # before datasets is

import pytest
import support_table
import torch


torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    support_table.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    support_table.register(config)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_DATASETS_CACHE"])


@pytest.fixture
def no_network(monkeypatch) -> None:
    """The Hub is asked, and not found."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    real = socket.getaddrinfo

    def find(host, *args, **options):
        if host == "127.0.0.1":
            return real(host, *args, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", find)


@pytest.fixture(autouse=True)
def _alone() -> None:
    """No test depends on the tests before it."""
    torch.manual_seed(1234)
    torch.set_num_threads(1)  # other libraries set it for the whole process: UMAP's threads do
