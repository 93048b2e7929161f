"""A cluster is written as the file that gives it back, to the last bit."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretto.cluster import Cluster, dumps, find, names, read
from stretto.cluster.write import spelt
from stretto.units import Quantity, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def again(cluster: Cluster) -> Cluster:
    return read(tomllib.loads(dumps(cluster)), where="again.toml")


@given(st.floats(1e-9, 1e18), st.sampled_from(get_args(Quantity)[:2] + get_args(Quantity)[3:]))
def test_a_quantity_is_spelt_to_the_last_bit(value: float, quantity: Quantity) -> None:
    assert parse(spelt(value, quantity), quantity) == value


@given(st.floats(1, 1e15), st.floats(1e-9, 1), st.floats(0.01, 1), TEXT)
def test_any_constants_come_back(size: float, time: float, share: float, words: str) -> None:
    cluster = find("a100x16")
    device = replace(
        cluster.device, memory_bytes=size, launch_s=time, efficiency=(("float32", share),),
        flops_per_s=(("float32", size),), source=words, sources=(("units", words),),
        host=size > 1e6,
    )  # fmt: skip
    levels = tuple(
        replace(v, bytes_per_s=size, latency_s=time, efficiency=share, source=words)
        for v in cluster.levels
    )
    parts = (replace(cluster.parts[0], device=device),)
    links = ((0.0, size), (time, 1e9))
    changed = Cluster(words, parts, levels, links, (("attention", share), ("step_s", time)))
    assert again(changed) == changed


@pytest.mark.parametrize("name", names())
def test_every_preset_comes_back(name: str) -> None:
    tree_has_devices = name in ("Two-Sites", "Ethernet", "Frontier", "Selene", "Leonardo")
    cluster = find(name) if tree_has_devices else find(name, devices=100)
    assert again(cluster) == cluster


def test_what_is_written_reads_like_what_a_person_writes() -> None:
    text = dumps(find("frontierx16"))
    assert 'memory = "63.98GiB"' in text
    assert 'one_way_bandwidth = "200GB/s"' in text
    assert 'per = "package"' in text
    assert 'latency = "2.5us"' in text
    assert "of one link in one direction" in text
    assert "Frontier User Guide" in text
