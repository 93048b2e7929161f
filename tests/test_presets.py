from __future__ import annotations

import pytest

from stretto.errors import ModelError
from stretto.presets import PRESETS, preset

# What the safetensors of each model say on huggingface.co (GPT-2 with its head tied).
PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "smollm2-135m": 134_515_008,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_number_of_parameters(name: str) -> None:
    assert preset(name).parameter_count == PUBLISHED[name]


def test_every_published_preset_is_checked_against_its_number() -> None:
    assert set(PRESETS) - set(PUBLISHED) == {"tiny", "stretto-1m", "stretto-10m"}


def test_a_preset_is_called_by_its_name() -> None:
    assert all(model.name == name for name, model in PRESETS.items())


def test_the_model_of_the_benchmarks_has_ten_million_parameters() -> None:
    assert 10_000_000 <= preset("stretto-10m").parameter_count <= 10_500_000


def test_an_unknown_name_is_answered_with_the_nearest_and_all_of_them() -> None:
    with pytest.raises(ModelError) as caught:
        preset("lama-3-8b")
    (problem,) = caught.value.problems
    assert problem.field == "model"
    assert problem.rule == "there is no preset 'lama-3-8b'"
    assert problem.remedy.startswith("did you mean llama-3-8b? choose from tiny, ")
