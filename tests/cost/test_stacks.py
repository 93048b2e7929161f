"""Software by name: every generation is whole, and what it does not state is its base's."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from stretto.cost import Stack, stack
from stretto.cost.stacks import DEFAULT, about, inherited, names, table
from stretto.errors import InputError

FIELDS = {f.name for f in fields(Stack)}


@pytest.mark.parametrize("name", names())
def test_every_generation_gives_every_constant(name: str) -> None:
    constants = stack(name)
    for field in FIELDS:
        value = getattr(constants, field)
        assert np.isfinite(value) and value >= 0, field
    assert about(name)


@pytest.mark.parametrize("name", names())
def test_no_generation_states_what_nobody_reads(name: str) -> None:
    assert table()["stack"][name].keys() <= FIELDS | {"about", "base", "kernel"}
    for kernel in table()["kernel"].values():
        assert kernel.keys() <= FIELDS


@pytest.mark.parametrize("name", names())
def test_what_a_generation_does_not_state_is_its_bases(name: str) -> None:
    own = table()["stack"][name]
    base = inherited(own["base"]) if "base" in own else {}
    for field, value in inherited(name).items():
        assert value == (own[field] if field in own else base[field])


def test_the_default_is_a_generation() -> None:
    assert DEFAULT in names()
    assert stack() == stack(DEFAULT)


def test_another_kernel_changes_attention_alone() -> None:
    own, other = stack(), stack(kernel="unfused")
    changed = {f for f in FIELDS if getattr(own, f) != getattr(other, f)}
    assert "fused_attention" in changed
    assert changed <= table()["kernel"]["unfused"].keys()


def test_unknown_names_are_listed_together_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        stack("moden", kernel="flash-9")
    first, second = caught.value.problems
    assert (first.field, first.rule) == ("stack", "there is none called 'moden'")
    assert first.remedy.startswith("did you mean modern? choose from modern, ")
    assert (second.field, second.rule) == ("kernel", "there is none called 'flash-9'")
    assert "did you mean flash-" in second.remedy


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(InputError) as caught:
        stack("qqqqqq")
    assert caught.value.problems[0].remedy == f"choose from {', '.join(names())}"
