# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`import modeling_vatt` loads no model, and yet the Auto classes know it, whatever is imported first."""

import subprocess
import sys

import processes
import pytest


KNOWN = """
import modeling_vatt
from transformers.models.auto import configuration_auto, modeling_auto, processing_auto, tokenization_auto
from transformers.models.auto import image_processing_auto, video_processing_auto
from transformers.pipelines import PIPELINE_REGISTRY
config = modeling_vatt.VattConfig
assert configuration_auto.CONFIG_MAPPING["vatt"] is config
assert modeling_auto.MODEL_MAPPING[config] is modeling_vatt.VattModel
assert modeling_auto.MODEL_FOR_PRETRAINING_MAPPING[config] is modeling_vatt.VattForPreTraining
assert tokenization_auto.TOKENIZER_MAPPING[config] is modeling_vatt.processors.VattTokenizer
assert processing_auto.PROCESSOR_MAPPING[config] is modeling_vatt.processors.VattProcessor
assert config in image_processing_auto.IMAGE_PROCESSOR_MAPPING
assert config in video_processing_auto.VIDEO_PROCESSOR_MAPPING
assert "video-text-retrieval" in PIPELINE_REGISTRY.supported_tasks
"""


def run(code: str) -> None:
    result = processes.run("-c", code)
    assert result.returncode == 0, result.stderr


def test_names_are_there_before_they_are_loaded():
    code = (
        "import sys, modeling_vatt.processors, modeling_vatt.retrieval, modeling_vatt.convert\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "for package in (modeling_vatt, modeling_vatt.processors, modeling_vatt.retrieval):\n"
        "    assert set(package.__all__) <= set(dir(package))\n"
        "    assert not hasattr(package, 'nothing') and not hasattr(package, '_nothing')\n"
        "assert modeling_vatt.retrieval.store.DATABASE  # a module is an attribute, too\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "first",
    [
        "import modeling_vatt",
        "import transformers.pipelines",
        "import modeling_vatt.pipelines",
        "import modeling_vatt.models.foreign",
        "import modeling_vatt.processors.video_processing_vatt",
        "import modeling_vatt.training",
        "import modeling_vatt.configuration.configuration_vatt",
        "import modeling_vatt; from transformers.models.auto.feature_extraction_auto import "
        "FEATURE_EXTRACTOR_MAPPING as known; assert modeling_vatt.VattConfig in known",
        "import modeling_vatt; from transformers.models.auto.video_processing_auto import AutoVideoProcessor",
        "import modeling_vatt; from transformers import AutoModel; assert 'modeling_vatt.models' in "
        "__import__('sys').modules",
    ],
)
def test_auto_classes_know_the_package(first):
    run(first + KNOWN)


def test_lazy_classes_are_pickled_by_their_names_and_old_modules_are_found():
    run(
        "import pickle, warnings, modeling_vatt\n"
        "assert pickle.loads(pickle.dumps(modeling_vatt.VattModel)) is modeling_vatt.VattModel\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    from modeling_vatt.modeling_vatt import VattModel\n"
        "assert VattModel is modeling_vatt.VattModel\n"
        "assert any('modeling_vatt.models.modeling_vatt' in str(warning.message) for warning in seen)\n"
    )
