"""docs/clusters.md is true: its files can be read, its code runs, its tables are the presets."""

from __future__ import annotations

import re
import tomllib

from scripts.clusters import PAGE, page

from stretto.cluster import Cluster, read

TEXT = PAGE.read_text(encoding="utf-8")


def files(language: str) -> list[str]:
    """Give the blocks of code of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def made(text: str, devices: int | None = None) -> Cluster:
    return read(tomllib.loads(text), where="page", devices=devices)


def test_the_tables_are_those_of_the_presets() -> None:
    assert page(TEXT) == TEXT, "renew them: python -m scripts.clusters"


def test_every_file_on_the_page_can_be_read() -> None:
    mine, rail, sites, links = files("toml")
    assert made(mine).devices == 256
    assert made(mine).levels[1].sharers == 2
    assert made(sites).part(1).device.name == "A100-80GB"
    node = made(mine, devices=8)
    assert node.devices == 8
    assert made(f"accelerator = 'h100'\ndevices = 64\n{rail}").levels[0].rail
    assert made(f"accelerator = 'h100'\ndevices = 24\n{links}").links[0][1] == 24.1e9


def test_the_code_on_the_page_runs() -> None:
    (code,) = files("python")
    exec(compile(code, "page", "exec"), {"print": lambda *_: None})
