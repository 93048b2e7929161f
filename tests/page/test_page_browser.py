"""The page as people meet it: in a real browser, from a file and from a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from runs import Look, Serve, a_run, append, record, restart

from stretto.cli import main
from stretto.cli.rundir import RunDirectory


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plan on four nodes, as a file's address."""
    out = tmp_path_factory.mktemp("file") / "plan.html"
    words = "gpt2 pp=2 dp=4 tp=4 zero=1 batch.sequences=64 batch.micro_batch=4"
    assert main(["report", *words.split(), "--cluster", "h100x32", "--out", str(out)]) == 0
    return out.as_uri()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def ink(page: Page, selector: str) -> int:
    """Count the pixels that something was drawn on."""
    script = """canvas => {
      const copy = new OffscreenCanvas(canvas.width, canvas.height);
      const context = copy.getContext("2d", { willReadFrequently: true });
      context.drawImage(canvas, 0, 0);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
      return count;
    }"""
    return int(page.locator(selector).first.evaluate(script))


# ── a file ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_needs_nobody_and_breaks_no_policy(look: Look, file: str) -> None:
    page = look(file)
    expect(page.locator("h1")).to_have_text("gpt2")
    assert ink(page, "#plan canvas") > 1000


def test_a_run_as_a_file_draws_the_curves_of_all_runs_that_are_named(
    look: Look, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both.html"
    assert main(["report", str(runs / "first"), str(runs / "second"), "--out", str(out)]) == 0
    page = look(out.as_uri())
    expect(page.locator(".run-legend button")).to_have_text(["first", "second"])
    page.locator(".run-legend button").nth(1).click()
    expect(page.locator(".run-legend button").nth(1)).to_have_attribute("aria-pressed", "false")


def test_a_name_that_is_markup_stays_a_name(look: Look, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    path = a_run(tmp_path / "runs" / name.replace("/", "∕"), steps=5)
    append(path, record(6, saved=name))
    out = tmp_path / "out.html"
    assert main(["report", str(path), "--out", str(out)]) == 0
    page = look(out.as_uri())
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert page.locator("h1").text_content() == f"{path.name} — tiny"
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_somebody_chooses(
    look: Look, file: str, scheme: str
) -> None:
    page = look(file, color_scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "light"
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("html").get_attribute("data-theme") == "dark"


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_no_width_makes_the_page_scroll_sideways(
    look: Look, file: str, runs: Path, serve: Serve, width: int
) -> None:
    assert overflow(look(file, width=width)) <= 0
    assert overflow(look(serve(runs).run_url("first"), width=width)) <= 0


def test_everything_is_reached_by_keyboard_and_shows_that_it_is(look: Look, file: str) -> None:
    page = look(file)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    found = []
    for _ in range(14):
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.className || document.activeElement.id"))
        assert page.evaluate(
            "(e => e.matches(':focus-visible') || e.parentElement.matches(':focus-within'))"
            "(document.activeElement)"
        )
    assert "icon-button" in found and "canvas over" in found


def test_arrow_keys_move_from_device_to_device(look: Look, file: str) -> None:
    page = look(file)
    page.locator(".plan-canvas .over").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".plan-detail h3")).to_have_text("Rank 1")
    # tp varies fastest, then dp, then pp: rank 1 is tp 1 of the first replica and stage.
    expect(page.locator(".plan-groups dt")).to_have_text(["pp 0 of 2", "dp 0 of 4", "tp 1 of 4"])
    expect(page.locator(".plan-groups dd")).to_have_text(["1, 17", "1, 5, 9, 13", "0, 1, 2, 3"])
    expect(page.locator("#say")).to_contain_text("rank 1; node 0, device 1")


def test_bars_are_as_long_as_what_they_say(look: Look, file: str) -> None:
    measure = "one => [one.querySelector('i').offsetWidth, parseFloat(one.textContent)]"
    bars = look(file).locator("#plan .share").evaluate_all(f"all => all.map({measure})")
    assert len(bars) > 1
    for wide, share in bars:
        assert wide / bars[0][0] == pytest.approx(share / bars[0][1], rel=0.05)


def test_pointing_at_a_device_changes_only_what_lies_over_the_picture(
    look: Look, file: str
) -> None:
    page = look(file)
    before = ink(page, ".plan-canvas canvas")
    assert ink(page, ".plan-canvas .over") == 0
    page.locator(".plan-canvas .over").hover(position={"x": 20, "y": 30})
    assert ink(page, ".plan-canvas .over") > 0
    assert ink(page, ".plan-canvas canvas") == before


# ── live ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_of_runs_leads_to_a_run_and_back(look: Look, serve: Serve, runs: Path) -> None:
    page = look(serve(runs).url)
    page.get_by_role("link", name="first").click()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("h1")).to_have_text("first — tiny")
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("link", name="second")).to_be_visible()


def test_a_step_that_is_written_appears_without_loading_the_page_again(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "live", steps=10, planned=20)
    page = look(serve(run).run_url("live"))
    expect(page.locator(".state")).to_have_text("live")
    expect(page.locator("#head .stats")).to_contain_text("of 20")
    append(run, *(record(s, steps=20, loss=1.25) for s in range(11, 21)))
    expect(page.locator(".badge")).to_have_text("finished")
    expect(page.locator(".state")).to_have_text("finished")
    expect(page.locator("#curves .chart-legend").first).to_contain_text("1.25")


def test_a_tab_says_how_far_which_run_of_which_model_is(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "live", steps=59, planned=60)
    page = look(serve(run).run_url("live"))
    expect(page).to_have_title("98 % · live — tiny · Stretto")
    append(run, record(60))
    expect(page).to_have_title("live — tiny · Stretto")
    out = tmp_path / "out.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    expect(look(out.as_uri())).to_have_title("live — tiny · Stretto")


def test_another_run_is_drawn_beside_it(look: Look, serve: Serve, runs: Path) -> None:
    page = look(serve(runs).run_url("first"))
    page.get_by_label("Compare with").select_option("second")
    expect(page.locator(".run-legend button")).to_have_text(["first", "second"])
    choice = page.get_by_label("Compare with").locator("option")
    expect(choice).to_have_text(["all are drawn"])


def test_every_curve_has_what_is_foretold_of_both_runs(
    look: Look, serve: Serve, runs: Path
) -> None:
    url = serve(runs).run_url("first")
    for recalled in ("&with=second", ""):
        page = look(url + recalled)
        if not recalled:
            page.get_by_label("Compare with").select_option("second")
        for title in ("Step time", "Memory"):
            card = page.locator("#curves .card", has=page.get_by_role("heading", name=title))
            expect(card.locator(".chart-legend")).to_contain_text("first, predicted")
            expect(card.locator(".chart-legend")).to_contain_text("second, predicted")


def test_the_cursor_of_a_curve_shows_by_keyboard_what_it_shows_to_a_pointer(
    look: Look, serve: Serve, runs: Path
) -> None:
    page = look(serve(runs).run_url("first"))
    chart = page.locator("#curves .chart").first
    chart.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    told = page.locator(".tooltip[data-open]")
    expect(told).to_contain_text("step 2")
    expect(told).to_contain_text("5.307")
    page.wait_for_function("""() => {  // the page scrolls to what has the focus
      const [box, picture] = [".tooltip[data-open]", "#curves .chart:focus"].map(
        (name) => document.querySelector(name)?.getBoundingClientRect());
      return box && picture && picture.left < box.left && box.left < picture.right
        && picture.top < box.top && box.top < picture.bottom;
    }""")
    chart.blur()
    expect(told).to_have_count(0)


def test_a_value_that_leaves_the_picture_is_said_at_its_top(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "wild", steps=0, planned=200)
    append(run, *(record(s, norm=71.6 if s == 90 else 2.0) for s in range(1, 201)))
    page = look(serve(run).run_url("wild"))
    norm = page.locator("#curves .card", has=page.get_by_role("heading", name="Gradient norm"))
    norm.scroll_into_view_if_needed()
    chart = norm.locator(".chart")
    expect(chart).to_have_attribute("data-cut", "up to 71.60")
    expect(chart).to_have_attribute("aria-label", re.compile("go up to 71.60, above the picture"))
    calm = page.locator("#curves .card", has=page.get_by_role("heading", name="Step time"))
    expect(calm.locator("canvas")).to_have_count(1)
    expect(calm.locator(".chart")).not_to_have_attribute("data-cut", re.compile("."))
    norm.get_by_text("log").click()  # of which the axis reaches all
    expect(chart).not_to_have_attribute("data-cut", re.compile("."))


def test_zooming_in_fetches_what_was_thinned(look: Look, serve: Serve, tmp_path: Path) -> None:
    run = a_run(tmp_path / "long", steps=5000)
    page = look(serve(run).run_url("long"))
    expect(page.locator("#curves .note")).to_contain_text("Each point holds 4 steps")
    chart = page.locator("#curves .chart").first
    chart.focus()
    for _ in range(3):
        page.keyboard.press("+")
    expect(page.locator("#curves .note")).to_be_hidden()
    page.keyboard.press("0")
    expect(page.locator("#curves .note")).to_contain_text("Each point holds 4 steps")


def test_the_cursor_of_a_curve_is_moved_and_read_aloud_by_keyboard(
    look: Look, serve: Serve, runs: Path
) -> None:
    page = look(serve(runs).run_url("first"))
    page.locator("#curves .chart").first.focus()
    page.keyboard.press("Home")
    expect(page.locator("#say")).to_contain_text("step 1; training 6")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).to_contain_text("step 2; training 5.307")  # 6 − ln 2


def test_a_legend_says_the_last_value_and_not_the_mean_of_the_last_point(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "long", steps=3000, loss=lambda s: 2.5 if s == 3000 else 4.0)
    page = look(serve(run).run_url("long"))
    expect(page.locator("#curves .note")).to_contain_text("Each point holds 4 steps")
    expect(page.locator("#curves .chart-legend").first).to_have_text("training2.500")


def test_a_smoothed_curve_says_both_values_and_what_is_scheduled_is_not_smoothed(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "rough", steps=0, planned=60)
    append(run, *(record(s, loss=4.0 + 2 * (s % 2), lr=1e-3 * (s % 2)) for s in range(1, 61)))
    page = look(serve(run).run_url("rough"))
    slider = page.get_by_label("Smoothing")
    slider.focus()
    page.keyboard.press("ArrowRight")  # what lies one step back counts half
    said = page.locator("#say")
    for title, one, two in (
        # Loss is 6, 4, 6, …: the first is itself, and then 4 counts twice: (2 · 4 + 6) / 3.
        ("Loss", "training 6; training, smoothed 6", "training 4; training, smoothed 4.667"),
        ("Learning rate", "learning rate 0.001", "learning rate 0"),
    ):
        card = page.locator("#curves .card", has=page.get_by_role("heading", name=title))
        card.locator(".chart").focus()
        page.keyboard.press("Home")
        expect(said).to_have_text(f"step 1; {one}")
        page.keyboard.press("ArrowRight")
        expect(said).to_have_text(f"step 2; {two}")


def test_ticks_of_a_logarithmic_axis_are_round(look: Look, serve: Serve, runs: Path) -> None:
    page = look(serve(runs).run_url("first"))
    page.evaluate("""() => {
      const { prototype } = CanvasRenderingContext2D, { fillText } = prototype;
      window.written = [];  // by the first chart
      prototype.fillText = function (text, ...rest) {
        const first = document.querySelector("#curves .chart").contains(this.canvas);
        if (first) window.written.push(text);
        return fillText.call(this, text, ...rest);
      };
    }""")
    card = page.locator("#curves .card").first
    card.get_by_text("log").click()
    card.scroll_into_view_if_needed()
    page.wait_for_function("window.written.length > 0")
    written = set(page.evaluate("window.written"))
    assert {"2", "3", "4", "5", "6"} <= written  # from 6 − ln 60 = 1.91 to 6
    assert all(re.fullmatch(r"\d{1,2}", text) for text in written)


def test_the_table_of_curves_calls_them_as_their_pictures_do(
    look: Look, serve: Serve, runs: Path
) -> None:
    page = look(serve(runs).run_url("first"))
    page.get_by_text("The curves as a table").click()
    head = page.locator("#curves details[open] th").all_inner_texts()
    titles = page.locator("#curves .card h3").all_inner_texts()
    assert head[0] == "Step"
    assert [text.split(": ")[0] for text in head[1:]] == [*titles, titles[-1]]  # the last has two
    assert head[-2:] == [f"{titles[-1]}: {which}" for which in ("for data", "for the interpreter")]


def test_that_a_run_began_is_no_incident_on_any_axis(look: Look, serve: Serve, runs: Path) -> None:
    page = look(serve(runs).run_url("first"))
    for axis in ("Step", "Tokens", "Time"):
        page.get_by_role("radio", name=axis, exact=True).check()
        page.locator("#curves .chart").first.focus()
        page.keyboard.press("Home")
        expect(page.locator("#say")).to_contain_text("training 6")
        expect(page.locator("#say")).not_to_contain_text("began")


def test_a_restart_is_a_line_with_a_key_and_is_read_aloud_where_the_cursor_is(
    look: Look, serve: Serve, runs: Path
) -> None:
    a_run(runs / "first", steps=0, planned=60)
    RunDirectory(runs / "first").went_on(2)
    page = look(serve(runs).run_url("first"))
    expect(page.locator("#curves .run-legend")).to_have_text("restarts")
    page.locator("#curves .chart").first.focus()
    page.keyboard.press("Home")
    expect(page.locator("#say")).not_to_contain_text("went on")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).to_contain_text("step 2: went on with 2 ranks")
    page.get_by_text("What happened: ").click()
    row = page.locator("#curves tr", has_text="restart")
    expect(row).to_contain_text("went on with 2 ranks")


def test_a_cursor_says_of_which_step_a_rare_value_is_and_never_a_later_one(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    rare = {24: {"valid_loss": 5.106}, 36: {"valid_loss": 4.9}}
    run = a_run(tmp_path / "rare", steps=0, planned=40)
    append(run, *(record(s, steps=40, **rare.get(s, {})) for s in range(1, 41)))
    page = look(serve(run).run_url("rare"))
    page.locator("#curves .chart").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageDown")
    expect(page.locator("#say")).to_have_text("step 21; training 5.790")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).to_have_text("step 24; training 5.760; held-out 5.106")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).to_have_text("step 25; training 5.750; held-out 5.106 (step 24)")


def test_a_cursor_says_the_prediction_of_the_plan_of_its_step(
    look: Look, serve: Serve, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "moved", steps=0, planned=600)
    append(run, *(record(s, predicted_s=0.01) for s in range(1, 61)))
    restart(run, step=60)
    append(run, *(record(s, step_s=0.02) for s in range(61, 81)))
    page = look(serve(run).run_url("moved"))
    card = page.locator("#curves .card", has=page.get_by_role("heading", name="Step time"))
    card.locator(".chart").focus()
    page.keyboard.press("Home")
    expect(page.locator("#say")).to_contain_text("predicted 10.0 ms")
    page.keyboard.press("End")
    expect(page.locator("#say")).to_contain_text("predicted ")
    expect(page.locator("#say")).not_to_contain_text("predicted 10.0 ms")


def test_a_run_that_began_later_is_offered_and_the_address_keeps_what_was_chosen(
    look: Look, serve: Serve, runs: Path
) -> None:
    page = look(serve(runs).run_url("first"))
    append(a_run(runs / "later", steps=0, planned=9), record(1), record(2, saved="step-00000002"))
    page.get_by_label("Compare with").focus()
    expect(page.get_by_label("Compare with").locator("option")).to_contain_text(
        ["choose a run…", "later", "second"]
    )
    page.get_by_label("Compare with").select_option("later")
    expect(page.locator(".run-legend button")).to_have_text(["first", "later"])
    assert page.url.endswith("run?run=first&with=later")
    page.reload()
    expect(page.locator(".run-legend button")).to_have_text(["first", "later"])
    expect(page.locator(".run-figures tbody tr")).to_have_count(2)
    expect(page.locator("#curves")).to_contain_text("first, predicted")
    page.get_by_text("What happened: ").click()
    expect(page.locator("#curves tr", has_text="checkpoint")).to_contain_text("later")


def test_a_hidden_page_takes_no_connection(look: Look, serve: Serve, runs: Path) -> None:
    page = look(serve(runs).run_url("first"))
    expect(page.locator(".state")).to_have_text("finished")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator(".state")).to_have_text("paused")


def test_a_run_whose_plan_is_broken_says_what_is_wrong(
    look: Look, serve: Serve, runs: Path, browser: object
) -> None:
    (runs / "first" / "plan.toml").write_text("mesh = 3", encoding="utf-8")
    server = serve(runs)
    page = browser.new_page()  # it will complain of the answer 400
    page.goto(server.run_url("first"))
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#plan .note.bad")).to_contain_text(re.compile("plan.toml: mesh"))
    page.close()


def test_all_that_a_page_shows_is_json_without_markup(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    assert main(["report", str(runs / "first"), "--out", str(out)]) == 0
    blocks = re.findall(
        r'<script type="application/json" id="data-(\w+)">(.*?)</script>', out.read_text()
    )
    assert {"page", "head", "plan", "curves"} <= {name for name, _ in blocks}
    assert all("<" not in text and json.loads(text) for _, text in blocks)
