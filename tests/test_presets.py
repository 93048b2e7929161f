from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from stretto.errors import ModelError
from stretto.presets import FILE, PRESETS, preset

ROOT = Path(__file__).parents[1]
OURS = {"tiny", "stretto-1m", "stretto-10m"}

# What the safetensors of each model say on huggingface.co (GPT-2 with its head tied), and what the
# tables of llm-foundry say of MPT with 2048 positions.
EXACT = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "mpt-125m": 125_311_488,
    "mpt-350m": 355_985_408,
    "mpt-760m": 760_470_528,
    "mpt-1b": 1_315_950_592,
    "mpt-3b": 2_651_837_440,
    "mpt-7b": 6_658_859_008,
    "mpt-13b": 12_853_954_560,
    "mpt-30b": 29_975_214_080,
    "mpt-70b": 64_862_437_376,
    "smollm2-135m": 134_515_008,
    "llama-1-7b": 6_738_415_616,
    "llama-1-13b": 13_015_864_320,
    "llama-1-33b": 32_528_943_616,
    "llama-1-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
}

# Billions of parameters as the sources print them, and half of the last digit that they print.
PRINTED = {
    "gpt3-125m": (0.125, 0.0005),
    "gpt3-350m": (0.35, 0.006),  # printed as 350M: 355.9M
    "gpt3-760m": (0.76, 0.005),
    "gpt3-1.3b": (1.3, 0.05),
    "gpt3-2.7b": (2.7, 0.05),
    "gpt3-6.7b": (6.7, 0.05),
    "gpt3-13b": (13.0, 0.15),  # printed as 13.0B: 12.85B; with the width of 5140, 12.95B
    "gpt3-175b": (175.0, 0.5),
    "megatron-1.7b": (1.7, 0.05),
    "megatron-3.6b": (3.6, 0.05),
    "megatron-7.5b": (7.5, 0.05),
    "megatron-18.4b": (18.4, 0.05),
    "megatron-39.1b": (39.1, 0.05),
    "megatron-76.1b": (76.1, 0.05),
    "megatron-145.6b": (145.6, 0.05),
    "megatron-310.1b": (310.1, 0.05),
    "megatron-529.6b": (529.6, 0.05),
    "megatron-1008b": (1008.0, 0.05),
    "frontier-22b": (22, 0.5),
    "frontier-175b": (175, 0.5),
    "frontier-1t": (1000, 10),
    "llama-4-scout": (109 - 0.9, 0.5),  # its vision encoder and adapter have 0.9
    "llama-4-maverick": (402 - 0.9, 0.5),
    "gpt-oss-20b": (20.91, 0.005),
    "gpt-oss-120b": (116.83, 0.005),
    "deepseek-v3": (671 + 11.5, 0.5),  # of which 11.5 predict the token after the next
    "nemotron-4-15b": (3.2 + 12.5, 0.1),  # with and without embeddings
    "nemotron-4-340b": (9.4 + 331.6, 0.1),
}

# Billions of parameters that a token passes, as the sources print them.
ACTIVE = {
    "mixtral-8x7b": (12.9, 0.05),
    "mixtral-8x22b": (39, 0.5),
    "qwen3-30b-a3b": (3.3, 0.1),
    "qwen3-235b-a22b": (22, 0.5),
    "llama-4-scout": (17, 0.5),
    "llama-4-maverick": (17, 0.5),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_published_model_has_its_published_number_of_parameters(name: str) -> None:
    assert preset(name).parameter_count == EXACT[name]


@pytest.mark.parametrize("name", PRINTED)
def test_a_model_has_the_number_of_parameters_that_its_source_prints(name: str) -> None:
    billions, tolerance = PRINTED[name]
    assert preset(name).parameter_count / 1e9 == pytest.approx(billions, abs=tolerance)


def test_every_published_preset_is_checked_against_its_number() -> None:
    assert set(PRESETS) - OURS == {*EXACT, *PRINTED}


@pytest.mark.parametrize("name", ACTIVE)
def test_a_token_passes_as_many_parameters_as_the_source_prints(name: str) -> None:
    billions, tolerance = ACTIVE[name]
    assert preset(name).active_parameter_count / 1e9 == pytest.approx(billions, abs=tolerance)


@pytest.mark.parametrize(("name", "billions"), [("gpt-oss-20b", 3.61), ("gpt-oss-120b", 5.13)])
def test_gpt_oss_counts_no_embedding_among_what_a_token_passes(name: str, billions: float) -> None:
    model = preset(name)
    active = model.active_parameter_count - model.vocab * model.embed
    assert active / 1e9 == pytest.approx(billions, abs=0.005)


def test_deepseek_v3_without_what_predicts_further_is_671b_of_which_a_token_passes_37b() -> None:
    model = replace(preset("deepseek-v3"), mtp_layers=0)
    assert model.parameter_count / 1e9 == pytest.approx(671, abs=0.5)
    # Its weights' description prints 36.6 with the head (0.9) and without the embedding.
    active = model.active_parameter_count - model.vocab * model.embed
    assert active / 1e9 == pytest.approx(36.6, abs=0.05)


def test_dense_models_are_passed_whole() -> None:
    dense = [m for m in PRESETS.values() if not m.experts]
    assert all(m.active_parameter_count == m.parameter_count for m in dense)


def test_a_preset_is_called_by_its_name() -> None:
    assert all(model.name == name for name, model in PRESETS.items())


def test_every_group_of_presets_states_a_source_that_can_be_found() -> None:
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT / "docs" / "references.bib").read_text("utf-8")))
    for name, group in tomllib.loads(FILE.read_text("utf-8")).items():
        source = group["source"]
        assert source in known or source.startswith("https://") or (ROOT / source).is_file(), name


def test_the_model_of_the_benchmarks_has_ten_million_parameters() -> None:
    assert 10_000_000 <= preset("stretto-10m").parameter_count <= 10_500_000


def test_an_unknown_name_is_answered_with_the_nearest_and_all_of_them() -> None:
    with pytest.raises(ModelError) as caught:
        preset("lama-3-8b")
    (problem,) = caught.value.problems
    assert problem.field == "model"
    assert problem.rule == "there is no preset 'lama-3-8b'"
    assert problem.remedy == "did you mean llama-3-8b?"
