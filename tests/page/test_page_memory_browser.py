"""The memory of a step as people use it: pointing, keys, other ranks, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from runs import Look, Serve, a_run
from steps import a_recording, a_subject, known, on_disk

from stretto.cli.shown import of_run
from stretto.page import html
from stretto.page.sections import SECTIONS
from stretto.page.subject import Subject
from stretto.quantities import size
from stretto.timeline.memory import curve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A run of four ranks whose processes are larger than what the program holds."""
    subject = a_subject(run=tmp_path_factory.mktemp("run"))
    recording = a_recording(subject)
    program, _ = known(subject)
    most = curve(recording.timeline, program, 0).total_bytes.max()
    held = 10 * most * (1 + recording.timeline.player) + recording.timeline.instruction
    on_disk(subject, replace(recording, memory_bytes=np.asarray(held)))
    return subject


@pytest.fixture
def page(look: Look, run: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    wanted = [s for s in SECTIONS if s.name in ("step", "memory")]
    monkeypatch.setattr(html, "SECTIONS", wanted)
    file = tmp_path / "run.html"
    file.write_text(html.html(run), encoding="utf-8")
    page = look(file.as_uri())
    page.locator("#memory").scroll_into_view_if_needed()
    return page


@pytest.fixture
def wide(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """A plan of 1,024 ranks."""
    wanted = [s for s in SECTIONS if s.name in ("step", "memory")]
    monkeypatch.setattr(html, "SECTIONS", wanted)
    file = tmp_path / "plan.html"
    file.write_text(html.html(a_subject(dp=512)), encoding="utf-8")
    return look(file.as_uri())


def picture(page: Page, nth: int) -> str:
    canvas = page.locator("#memory canvas").nth(nth)
    return str(canvas.evaluate("canvas => canvas.toDataURL()"))


def test_predicted_and_measured_stand_side_by_side_with_their_peaks(
    page: Page, run: Subject
) -> None:
    program, predicted = known(run)
    heads = page.locator(".memory-head")
    expect(heads).to_have_count(2)
    peak = curve(predicted, program, len(predicted.alike) - 1).total_bytes.max()
    expect(heads.first).to_contain_text(f"predicted {size(float(peak))} at ")
    expect(page.locator(".memory-said")).to_contain_text("reached by")


def test_pointing_at_a_moment_says_what_is_held(page: Page) -> None:
    box = page.locator(".memory-chart").first.bounding_box()
    assert box is not None
    before = picture(page, 0)
    page.locator(".memory-chart").first.hover(position={"x": 80, "y": 100})
    tip = page.get_by_role("tooltip")
    expect(tip.locator("strong")).to_have_text(re.compile(r"B predicted$"))
    expect(tip.locator("dt", has_text="parameters")).to_be_visible()
    expect(tip).to_contain_text("since ")
    assert picture(page, 0) != before


def test_keys_move_through_the_step_and_say_what_is_held(page: Page) -> None:
    chart = page.locator(".memory-chart").first
    chart.focus()
    page.keyboard.press("p")
    peak = page.locator("#say").text_content() or ""
    assert "B, after " in peak
    page.keyboard.press("Home")
    expect(page.locator("#say")).to_contain_text("the begin of the step")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).not_to_contain_text("the begin of the step")
    page.keyboard.press("p")
    expect(page.locator("#say")).to_have_text(peak)
    page.keyboard.press("Escape")
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_another_rank_is_chosen_by_clicking_its_bar_or_with_keys(page: Page) -> None:
    title, bars = page.locator("#memory h3").first, page.locator(".memory-peaks")
    expect(title).to_have_text("Rank 3 over the step")
    box = bars.bounding_box()
    assert box is not None
    bars.click(position={"x": 64 + (box["width"] - 72) * 0.3, "y": 50})
    expect(title).to_have_text("Rank 1 over the step")
    bars.focus()
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Rank 2 over the step")
    expect(bars).to_have_attribute("aria-valuenow", "2")
    page.keyboard.press("Home")
    expect(title).to_have_text("Rank 0 over the step")


def test_a_process_larger_than_the_program_is_left_out_until_it_is_asked_for(page: Page) -> None:
    box = page.get_by_role("checkbox", name=re.compile("that the process holds throughout"))
    expect(box).not_to_be_checked()
    measured = page.locator("#memory .memory-pair > div").nth(1)
    expect(measured.locator("small")).to_contain_text(
        re.compile("^without the .*B that the process")
    )
    title = page.locator(".memory-head").nth(1)
    before, without = picture(page, 1), title.text_content()
    assert peak_of(page) == without_unit(without)
    box.click()
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    expect(measured.locator("small")).to_be_empty()
    assert picture(page, 1) != before
    assert title.text_content() != without
    assert peak_of(page) == without_unit(title.text_content())


def test_what_no_buffer_holds_is_named(page: Page) -> None:
    kept = page.locator("#memory .legend li", has_text="kept by the allocator")
    expect(kept).to_contain_text("up to")
    expect(kept).to_have_attribute("title", re.compile("held by no buffer"))


def peak_of(page: Page) -> str:
    """Give what the measured chart draws at its highest, as the page writes it."""
    return str(
        page.evaluate("""() => {
          const { page, memory } = Stretto, seen = [];
          const { fillText } = CanvasRenderingContext2D.prototype;
          CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
            if (this.canvas.ariaLabel?.endsWith("measured")) seen.push(text);
            return fillText.call(this, text, ...place);
          };
          document.querySelector("#theme").click();
          return new Promise((done) => setTimeout(() => {
            CanvasRenderingContext2D.prototype.fillText = fillText;
            done(seen.find((text) => text.startsWith("peak ")).slice(5));
          }, 300));
        }""")
    )


def without_unit(head: str | None) -> str:
    """Give the bytes that the head of a chart says: ``Measured 3 MiB at 2 ms``."""
    return (head or "").removeprefix("measured ").partition(" at ")[0]


def test_tables_say_what_the_pictures_show(page: Page) -> None:
    page.get_by_text("What fills the peak, as a table").click()
    table = page.get_by_role("region", name=re.compile("What rank 3 holds"))
    expect(table.locator("thead th")).to_have_text(["", "predicted", "measured"])
    expect(table.locator("tbody tr", has_text="parameters")).to_have_count(1)
    page.get_by_text("Peaks of all ranks, as a table").click()
    peaks = page.get_by_role("region", name=re.compile("The most that each rank holds"))
    expect(peaks.locator("tbody tr")).to_have_count(4)


def test_a_plan_shows_what_is_predicted_of_every_rank(wide: Page) -> None:
    expect(wide.locator(".memory-chart")).to_have_count(1)
    expect(wide.locator(".memory-said")).not_to_contain_text("measured")
    bars = wide.locator(".memory-peaks")
    bars.focus()
    wide.keyboard.press("End")
    expect(bars).to_have_attribute("aria-valuenow", "1023")
    expect(wide.locator(".memory-said")).to_contain_text("Predicted at most")


def twice(subject: Subject) -> list[str]:
    """Record steps 2 and 4; give the most that rank 0 holds in each, as the page writes it."""
    program, found = known(subject)[0], []
    for step, more in ((2, 2**30), (4, 2**31)):
        one = a_recording(subject, step=step)
        held = one.memory_bytes + more * (one.timeline.player == 0)
        on_disk(subject, replace(one, memory_bytes=held))
        line = curve(one.timeline, program, 0, measured_bytes=held)
        found.append(size(float(line.total_bytes.max())))
    return found


def test_memory_is_of_the_step_that_is_chosen_in_a_file(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [s for s in SECTIONS if s.name in ("step", "memory")]
    monkeypatch.setattr(html, "SECTIONS", wanted)
    subject = a_subject(run=tmp_path / "run")
    follows(subject, lambda: written(subject, tmp_path / "run.html"), look)


def test_memory_is_of_the_step_that_is_chosen_on_a_live_page(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    subject = of_run(a_run(tmp_path / "runs" / "small", steps=5))
    follows(subject, lambda: serve(tmp_path / "runs").run_url("small"), look)


def written(subject: Subject, file: Path) -> str:
    file.write_text(html.html(subject), encoding="utf-8")
    return file.as_uri()


def follows(subject: Subject, make: Callable[[], str], look: Look) -> None:
    """Hold the memory of a page against two steps, one chosen after the other."""
    older, newer = twice(subject)
    page = look(make())
    said, told = page.locator(".memory-said"), page.locator("#memory .card-head small").first
    expect(told).to_have_text("step 4, as chosen above")
    expect(said).to_contain_text(f"measured at most {newer}")
    for step, most in (("2", older), ("4", newer)):
        page.locator("#step .select select").select_option(step)
        expect(told).to_have_text(f"step {step}, as chosen above")
        expect(said).to_contain_text(f"measured at most {most}")
