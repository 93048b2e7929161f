"""The timelines of a step as people use them: wheel, drag, pinch, keys, lists, and a live run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from runs import Look, Serve, a_run
from steps import a_recording, a_subject, known, on_disk

from stretto.cli.shown import of_run
from stretto.page import html, step
from stretto.page.sections import SECTIONS
from stretto.page.step_rows import book
from stretto.page.subject import Subject
from stretto.program.render import label
from stretto.quantities import seconds
from stretto.simulate import SlowRank


def written(subject: Subject, path: Path) -> str:
    """Write a page of the step alone; give its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "SECTIONS", [s for s in SECTIONS if s.name == "step"])
        path.write_text(html.html(subject), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A run of four ranks of which two steps are recorded; in the newer, rank 1 is slow."""
    subject = a_subject(run=tmp_path_factory.mktemp("run"), layers=4)
    on_disk(subject, a_recording(subject, step=50))
    on_disk(subject, a_recording(subject, faults=[SlowRank(1, 3.0)], noise=0.01, step=100))
    return subject


@pytest.fixture(scope="module")
def file(run: Subject, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(run, tmp_path_factory.mktemp("file") / "run.html")


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plan of 4,096 ranks."""
    return written(a_subject(dp=2048), tmp_path_factory.mktemp("crowd") / "plan.html")


@pytest.fixture
def page(look: Look, file: str) -> Iterator[Page]:
    return settled(look(file))


def settled(page: Page) -> Page:
    """Wait until nothing moves and all is drawn."""
    page.emulate_media(reduced_motion="reduce")
    until(page, "view.drawn.ranks.length > 0")
    page.locator(".step-rows").scroll_into_view_if_needed()
    frames(page)
    return page


def frames(page: Page) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)))")


def view(page: Page, script: str) -> Any:
    frames(page)
    return page.evaluate(f"(() => {{ const view = Stretto.timeline.view; return {script}; }})()")


def until(page: Page, script: str) -> None:
    """Wait for something; the page's policy lets nobody evaluate text within it."""
    for _ in range(200):
        if view(page, script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {script}")


def window(page: Page) -> tuple[float, float]:
    low, high = view(page, "[view.from_s, view.until_s]")
    return low, high


def span(page: Page) -> float:
    low, high = window(page)
    return high - low


def hover(page: Page, rank: int, row: int, *, side: str = "measured") -> None:
    """Point at the middle of a row."""
    at = f"{{side: '{side}', rank: {rank}, row: {row}}}"
    x, y = view(page, f"(b => [b.x + b.width / 2, b.y + b.height / 2])(view.box({at}))")
    scroll = view(page, "view.element.scrollTop")
    page.locator(".step-canvas").hover(position={"x": x, "y": y + 24 - scroll})


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────


def test_of_4096_ranks_only_those_in_sight_are_drawn(look: Look, crowd: str) -> None:
    page = settled(look(crowd))
    page.get_by_label("Fold ranks that are alike").uncheck()
    assert view(page, "view.order.length") == 4096
    shown = view(page, "view.drawn.ranks")
    assert shown[0] == 0 and 5 < len(shown) < 60
    page.evaluate("Stretto.timeline.view.element.scrollTop = 1e9")
    shown = view(page, "view.drawn.ranks")
    assert shown[-1] == 4095 and len(shown) < 60
    assert page.locator(".step-rows canvas").count() == 1


def test_a_rank_of_4096_is_opened_by_its_number_and_from_the_map(look: Look, crowd: str) -> None:
    page = settled(look(crowd))
    page.get_by_label("Fold ranks that are alike").uncheck()
    page.get_by_label("Open rank").fill("3000")
    page.get_by_label("Open rank").press("Enter")
    assert view(page, "view.open.has(3000) && view.drawn.ranks.includes(3000)")
    box = page.locator(".step-map canvas").bounding_box()
    assert box is not None
    page.locator(".step-map canvas").click(position={"x": box["width"] / 2, "y": box["height"] - 1})
    opened = view(page, "[...view.open].at(-1)")
    assert opened > 4000 and opened in view(page, "view.drawn.ranks")


def test_ranks_that_are_predicted_alike_have_one_row_that_stands_for_all(
    look: Look, crowd: str
) -> None:
    page = settled(look(crowd))
    assert view(page, "view.order") == [0, 2048]
    expect(page.locator("#step .step-hint").first).to_have_text(
        "4,096 ranks of 2 kinds: those that are alike are shown once."
    )
    page.get_by_label("Open rank").fill("3000")
    page.get_by_label("Open rank").press("Enter")
    assert view(page, "view.selected.rank") == 2048


def test_colour_by_difference_and_a_kind_left_out_change_the_picture(page: Page) -> None:
    def picture() -> str:
        frames(page)
        return str(page.locator(".step-canvas").evaluate("canvas => canvas.toDataURL()"))

    first = picture()
    button = page.get_by_role("button", name="forward", exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    second = picture()
    button.click()
    assert picture() == first != second
    page.get_by_role("radio", name="by difference").check()
    expect(page.locator(".step-legend")).to_contain_text("slower than predicted")
    assert picture() not in (first, second)


def test_the_colours_follow_the_theme(page: Page) -> None:
    corner = """(copy => {
      copy.drawImage(view.canvas, 4 - view.canvas.width, 4 - view.canvas.height);
      return copy.getImageData(0, 0, 1, 1).data[0];
    })(new OffscreenCanvas(4, 4).getContext("2d", { willReadFrequently: true }))"""
    page.emulate_media(color_scheme="light")
    assert view(page, corner) > 200
    page.emulate_media(color_scheme="dark")
    assert view(page, corner) < 60


def test_the_critical_path_and_one_side_alone_can_be_shown(page: Page) -> None:
    page.get_by_label("Critical path").check()
    assert view(page, "view.path")
    both = view(page, "view.total")
    page.get_by_role("radio", name="predicted").check()
    assert view(page, "view.sides.map(([name]) => name)") == ["predicted"]
    assert view(page, "view.total") < both


# ── moving ───────────────────────────────────────────────────────────────────────────────────────


def test_the_wheel_with_ctrl_zooms_where_it_points_and_without_it_does_not(page: Page) -> None:
    page.locator(".step-canvas").hover(position={"x": 500, "y": 100})
    before, whole = view(page, "view.second(500)"), span(page)
    page.mouse.wheel(0, 20)
    assert span(page) == whole
    page.keyboard.down("Control")
    page.mouse.wheel(0, -40)
    page.keyboard.up("Control")
    assert span(page) < 0.9 * whole
    assert view(page, "view.second(500)") == pytest.approx(before, rel=1e-3)


def test_dragging_moves_and_dragging_along_the_clock_zooms(page: Page) -> None:
    page.keyboard.press("Tab")
    view(page, "view.window(0.2 * view.model.end_s, 0.4 * view.model.end_s)")
    low, high = window(page)
    box = page.locator(".step-canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 600, box["y"] + 120)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 120, steps=4)
    page.mouse.up()
    assert window(page)[0] > low and span(page) == pytest.approx(high - low)
    wanted = view(page, "[view.second(300), view.second(500)]")
    page.mouse.move(box["x"] + 300, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 8, steps=4)
    page.mouse.up()
    assert window(page) == pytest.approx(tuple(wanted), rel=0.02)


def test_two_fingers_zoom_and_one_moves(look: Look, file: str) -> None:
    page = settled(look(file, width=390, height=844, has_touch=True))
    box, whole = page.locator(".step-canvas").bounding_box(), span(page)
    assert box is not None
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *xs: float) -> None:
        points = [{"x": box["x"] + x, "y": box["y"] + 80, "id": i} for i, x in enumerate(xs)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 150, 200)
    for apart in (10, 20, 40):
        fingers("touchMove", 150 - apart, 200 + apart)
    fingers("touchEnd")
    assert span(page) < 0.6 * whole
    low = window(page)[0]
    fingers("touchStart", 250)
    for x in (230, 200, 160):
        fingers("touchMove", x)
    fingers("touchEnd")
    assert window(page)[0] > low
    assert int(page.evaluate("document.documentElement.scrollWidth - innerWidth")) <= 0


def test_keys_zoom_move_and_show_the_whole_step(page: Page) -> None:
    rows = page.locator(".step-rows")
    rows.focus()
    whole = window(page)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert span(page) == pytest.approx((whole[1] - whole[0]) / 1.25**2)
    low = window(page)[0]
    page.keyboard.press("ArrowRight")
    assert window(page)[0] > low
    page.keyboard.press("ArrowLeft")
    assert window(page)[0] == pytest.approx(low)
    page.keyboard.press("-")
    assert span(page) == pytest.approx((whole[1] - whole[0]) / 1.25)
    page.keyboard.press("0")
    assert window(page) == pytest.approx(whole)


def test_buttons_do_the_same(page: Page) -> None:
    whole = window(page)
    page.get_by_role("button", name="Zoom in").click()
    assert span(page) < whole[1] - whole[0]
    page.get_by_role("button", name="Later").click()
    page.get_by_role("button", name="The whole step").click()
    assert window(page) == pytest.approx(whole)


def test_no_way_leads_out_of_the_step(page: Page) -> None:
    end = view(page, "view.model.end_s")
    for _ in range(30):
        view(page, "view.pan(0.8)")
    assert window(page)[1] <= 1.04 * end
    for _ in range(80):
        view(page, "view.zoom(0.5)")
    assert span(page) >= 0.9e-7
    for _ in range(80):
        view(page, "view.zoom(2)")
    assert span(page) <= 1.06 * end


# ── one instruction ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_pointing_at_a_row_names_the_instruction_of_the_trace(
    page: Page, run: Subject, share: float
) -> None:
    program, _ = known(run)
    sheet = book(program).sheets[0]
    row = [i for i in range(len(sheet.key)) if sheet.queue[i] < 0][int(share * len(sheet.key) / 2)]
    hover(page, 1, row)
    stage = program.stages[0]
    name = label(program, stage, stage.instructions[sheet.instruction[row]])
    tip = page.get_by_role("tooltip")
    expect(tip.locator("strong")).to_have_text(name)
    expect(tip).to_contain_text("1 (pp 0 · dp 1)")
    for word in ("predicted", "measured", "difference"):
        expect(tip.locator("dt", has_text=word)).to_be_visible()


def test_a_message_says_what_it_sends_and_to_whom(page: Page) -> None:
    row = view(page, "view.model.sheet(0).sort.indexOf(view.model.sorts.indexOf('gradient'))")
    view(page, f"view.show({{side: 'measured', rank: 0, row: {row}}})")
    hover(page, 0, row)
    tip = page.get_by_role("tooltip")
    expect(tip.locator("strong")).to_contain_text("dp")
    expect(tip.locator("dt", has_text="sends")).to_be_visible()
    expect(tip.locator("dt", has_text="with rank")).to_be_visible()


def test_keys_walk_from_instruction_to_instruction_and_say_which(page: Page, run: Subject) -> None:
    program, _ = known(run)
    names = book(program).names
    page.locator(".step-rows").focus()
    page.keyboard.press("ArrowDown")
    assert view(page, "view.selected.rank") == 0
    page.keyboard.press("p")
    first = view(page, "view.selected.row")
    page.keyboard.press("p")
    second = view(page, "view.selected.row")
    assert second < first
    said = page.locator("#say").text_content() or ""
    assert said.startswith(names[book(program).sheets[0].name[second]])
    page.keyboard.press("n")
    assert view(page, "view.selected.row") == first
    page.keyboard.press("o")
    assert view(page, "view.selected.side") == "predicted"
    before = span(page)
    page.keyboard.press("z")
    assert span(page) < before
    page.keyboard.press("Enter")
    assert not view(page, "view.open.has(0)")
    page.keyboard.press("Escape")
    assert view(page, "view.selected") is None
    expect(page.get_by_role("tooltip")).to_be_hidden()


def test_an_instruction_without_a_counterpart_says_so_and_stays_selected(page: Page) -> None:
    page.locator(".step-rows").focus()
    page.keyboard.press("ArrowDown")
    before = view(page, "view.selected")
    page.get_by_role("radio", name="measured", exact=True).check()
    page.locator(".step-rows").focus()
    page.keyboard.press("o")
    assert view(page, "view.selected") == before
    expect(page.locator("#say")).to_have_text(
        "It has no counterpart that is predicted and shown here"
    )
    page.get_by_role("radio", name="both", exact=True).check()
    view(page, "view.selected = {side: 'measured', rank: 0, row: view.model.sheet(0).length}")
    page.locator(".step-rows").focus()
    page.keyboard.press("o")  # of what only a recording has
    assert view(page, "view.selected.side") == "measured"


def test_the_others_in_a_message_are_those_of_its_group(page: Page, run: Subject) -> None:
    program, _ = known(run)
    mesh, leaves = program.placement.mesh, book(program)
    for rank in range(4):
        sheet = leaves.sheets[program.of(rank).stage]
        for row in range(len(sheet.key)):
            queue = leaves.queues[sheet.queue[row]] if sheet.queue[row] >= 0 else None
            found = view(page, f"view.model.peers({rank}, {row})")
            match queue and queue.way:
                case None:
                    wanted = set()
                case "all":
                    wanted = set(range(4)) - {rank}
                case "group":
                    wanted = set(mesh.group(rank, queue.axes)) - {rank}
                case _:
                    wanted = {mesh.shift(rank, "pp", by=queue.by)}
            assert {other for other, _ in found} == wanted
            for other, place in found:
                assert [rank, row] in view(page, f"view.model.peers({other}, {place})")


def test_what_cost_most_is_listed_with_its_cause_and_a_click_shows_it(page: Page) -> None:
    listed = page.locator(".cost")
    expect(listed).to_have_count(5)
    expect(page.locator(".finding").first).to_contain_text("slow rank: rank 1")
    view(page, "view.window(0, 0.01 * view.model.end_s)")
    listed.nth(1).click()
    selected = view(page, "view.selected")
    name = listed.nth(1).locator("b").text_content()
    rows = "view.side('measured').rows(view.selected.rank)"
    assert view(page, f"view.model.name(view.selected.rank, view.selected.row, {rows})") == name
    assert selected["rank"] == 1 or "move" in (name or "")
    x, wide, left, plot = view(
        page, "(b => [b.x, b.width, view.gutter, view.plot])(view.box(view.selected))"
    )
    assert left < x and x + wide < left + plot
    twin = view(page, "view.box({ ...view.selected, side: 'predicted' })")
    assert left < twin["x"] and twin["x"] + twin["width"] < left + plot
    apart = max(x + wide, twin["x"] + twin["width"]) - min(x, twin["x"])
    assert max(wide / 0.25, 1.2 * apart) == pytest.approx(plot, rel=0.02)


def test_it_is_said_what_is_counted_among_what_cost_most(page: Page) -> None:
    card = page.locator(".card", has=page.locator(".costs"))
    expect(card).to_contain_text("waits for other ranks, and for hosts, are not counted")


def test_the_first_three_causes_are_shown_the_rest_is_folded_and_no_list_is_empty(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        {"title": f"host: rank {i}", "extra_s": s, "share": s / 10, "ranks": [], "why": "it waits"}
        for i, s in enumerate((4.0, -3.0, 2.0, -1.0))
    ]
    found = {"top": [], "findings": told, "compared": 4}
    monkeypatch.setattr(step, "why", lambda *_, **__: found)
    subject = a_subject(run=tmp_path)
    on_disk(subject, a_recording(subject))
    page = settled(look(written(subject, tmp_path / "run.html")))
    folded = page.locator("details", has_text="1 that made less difference")
    expect(page.locator(".finding:visible")).to_have_count(3)
    expect(folded.locator(".finding")).to_contain_text("host: rank 3")
    expect(page.get_by_role("heading", name="What cost the most extra time")).to_have_count(0)


def test_a_step_of_more_than_a_minute_is_told_in_seconds_as_in_the_head(
    look: Look, tmp_path: Path
) -> None:
    subject = a_subject(run=tmp_path, layers=4)
    recording = a_recording(subject, faults=[SlowRank(1, 4.0)])
    on_disk(subject, recording)
    page = settled(look(written(subject, tmp_path / "run.html")))
    told = page.locator(".card-head", has_text="on one clock").locator("small")
    assert 60 < recording.timeline.step_s < 3600
    expect(told).to_contain_text(f"measured {seconds(recording.timeline.step_s)}")
    expect(told).not_to_contain_text("min")


# ── tables, steps, live ──────────────────────────────────────────────────────────────────────────


def test_tables_say_what_the_picture_shows(page: Page, run: Subject) -> None:
    page.get_by_text("Where each rank's time goes, as a table").click()
    ranks = page.get_by_role("region", name=re.compile("Where the time of each rank goes"))
    expect(ranks.locator("tbody tr")).to_have_count(8)
    view(page, "view.window(0, view.model.end_s)")
    page.get_by_text("The instructions in sight, as a table").click()
    rows = page.get_by_role("region", name=re.compile("Instructions of rank 0"))
    program, _ = known(run)
    expect(rows.locator("tbody tr")).to_have_count(min(200, len(book(program).sheets[0].key)))
    view(page, "view.window(0, 0.1 * view.model.end_s)")
    expect(rows.locator("tbody tr")).not_to_have_count(min(200, len(book(program).sheets[0].key)))


def test_another_recorded_step_can_be_chosen(page: Page) -> None:
    slow = view(page, "view.model.measured.step_s")
    page.locator("#step .select select").select_option("50")
    assert view(page, "view.model.step.step") == 50
    assert view(page, "view.model.measured.step_s") < slow


def test_a_file_with_some_of_the_recorded_steps_says_of_how_many(
    look: Look, run: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "STEPS", 1)
    page = look(written(run, tmp_path / "run.html"))
    expect(page.locator(".step-some")).to_have_text(
        "This file has 1 of 2 recorded steps; stretto ui has all."
    )


def test_a_plan_shows_what_is_predicted_only(look: Look, crowd: str) -> None:
    page = settled(look(crowd))
    expect(page.get_by_role("heading", name="Predicted, on a clock")).to_be_visible()
    expect(page.get_by_text("by difference")).to_have_count(0)
    expect(page.locator(".cost")).to_have_count(0)


def test_a_live_page_asks_for_the_rows_that_it_lacks(
    look: Look, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "RANKS", 1)
    path = a_run(tmp_path / "runs" / "small", steps=3)
    subject = of_run(path)
    on_disk(subject, a_recording(subject, step=2))
    page = settled(look(serve(tmp_path / "runs").run_url("small")))
    until(page, "view.model.measured.rows(1)?.begin.length > 3")  # for it is open
    told = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert sum("/api/step?" in name and "rank=1" in name for name in told) == 1


def test_a_live_page_shows_a_step_as_soon_as_it_is_recorded(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    path = a_run(tmp_path / "runs" / "small", steps=3)
    subject = of_run(path)
    on_disk(subject, a_recording(subject, step=2))
    page = settled(look(serve(tmp_path / "runs").run_url("small")))
    expect(page.locator("#state")).to_have_text("finished")
    on_disk(subject, a_recording(subject, faults=[SlowRank(1, 2.0)], noise=0.01, step=4))
    until(page, "view.model.step.step === 4")
    expect(page.locator("#step .select select")).to_have_value("4")
    expect(page.locator(".cost").first).to_be_visible()
