"""The page as one file: nothing comes from elsewhere, and nothing runs but its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import PLAN

from stretto.cli.shown import Where, of_plan
from stretto.cluster import find
from stretto.cost import stack
from stretto.page.html import as_json, html, shell
from stretto.page.packed import TYPES, packed
from stretto.page.sections import EARLY, LATE, RUNS, SECTIONS, STYLES, static
from stretto.presets import preset


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[tuple[dict[str, str | None], str]]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in self.texts:
            self.inside = tag
            self.texts[tag].append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, text = self.texts[self.inside].pop()
            self.texts[self.inside].append((attributes, text + data))


NAME = "</script><script>alert(1)</script><!--"


@pytest.fixture(scope="module")
def page() -> str:
    """A plan whose name is markup, as a file."""
    where = Where(find("h100x2"), stack(), "modern")
    return html(of_plan(NAME, preset("tiny"), PLAN, where=where, say=lambda _: None))


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_lets_exactly_the_scripts_and_the_style_of_the_page_run(parsed: Parsed) -> None:
    (policy,) = (a["content"] for tag, a in parsed.tags if a.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = [text for a, text in parsed.texts["script"] if "type" not in a]
    assert set(rules["script-src"].split()) == {hashed(text) for text in scripts}
    assert rules["style-src"] == hashed("".join(text for _, text in parsed.texts["style"]))
    assert rules["default-src"] == "'none'"


def test_nothing_is_fetched_and_no_handler_or_style_is_inline(parsed: Parsed) -> None:
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        link = attributes.get("src") or attributes.get("href") or "#"
        assert link.startswith(("#", "data:,")), tag


@given(st.text(max_size=40))
def test_a_title_cannot_end_its_element(title: str) -> None:
    text = f"{title}</title><script>alert(1)</script><!--"
    found = Parsed(shell(text, {"page": {"run": text}}))
    assert [a for tag, a in found.tags if tag == "script" and not ("src" in a or "type" in a)] == []


def test_names_within_the_data_cannot_end_their_element(parsed: Parsed) -> None:
    scripts = parsed.texts["script"]
    (head,) = (text for a, text in scripts if a.get("id") == "data-head")
    assert json.loads(head)["title"] == f"{NAME} — tiny"
    assert not any("alert(" in text for a, text in scripts if "type" not in a)


def test_sections_without_data_are_left_out(page: str) -> None:
    assert 'id="data-plan"' in page and 'id="data-curves"' not in page


def test_no_script_or_style_of_a_section_is_missing() -> None:
    for section in SECTIONS:
        assert f'id: "{section.name}"' in "".join(static(name) for name in section.scripts)
        assert all(static(name) for name in section.styles)


def test_no_file_of_the_page_makes_markup_of_text_or_names_another_site() -> None:
    for name in {*EARLY, *LATE, *RUNS, *STYLES} - {"vendor/uPlot.iife.min.js"}:
        text = static(name).replace("sets innerHTML", "")
        assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)


def test_numbers_that_json_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        as_json({"x": float("nan")})


@given(
    st.sampled_from(TYPES).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(st.integers(0, 100), max_size=20))
    )
)
def test_a_packed_array_is_the_same_array(case: tuple[str, list[int]]) -> None:
    name, values = case
    found = packed(np.array(values), dtype=name)
    assert found["shape"] == [len(values)]
    back = np.frombuffer(base64.b64decode(found["base64"]), np.dtype(name).newbyteorder("<"))
    assert back.tolist() == values


def test_an_array_that_javascript_has_no_type_for_is_refused() -> None:
    with pytest.raises(TypeError, match="int64 has no typed array"):
        packed(np.array([1]))
