"""The list of runs as people find it: on a screen, on a phone, and after asking for what is not."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect
from runs import Look, Serve, a_run, silent


def test_the_list_says_which_runs_start_go_on_and_have_ended(
    look: Look, serve: Serve, runs: Path
) -> None:
    a_run(runs / "new", steps=0, planned=9)
    silent(a_run(runs / "killed", steps=5, planned=9))
    page = look(serve(runs).url)
    for name, status in {"new": "starting", "first": "finished", "killed": "stopped"}.items():
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        expect(row.locator(".badge")).to_have_text(status)
        expect(row).to_contain_text("tiny")
        expect(row).to_contain_text("dp 2; 8 sequences × 64 tokens")
    expect(page.locator("tbody a").first).to_have_text("new")


def test_on_a_phone_every_figure_of_the_list_is_seen_below_its_run(
    look: Look, serve: Serve, runs: Path
) -> None:
    page = look(serve(runs).url, width=390)
    expect(page.locator("tbody tr")).to_have_count(2)
    for box in page.locator("tbody td").all():
        place = box.bounding_box()
        assert place is not None and place["x"] >= 0 and place["x"] + place["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    labels = page.locator("tbody tr").first.locator("td:not(:first-child)")
    assert all(box.get_attribute("data-label") for box in labels.all())


def test_on_a_phone_no_run_is_wider_than_the_screen_however_long_the_names(
    look: Look, serve: Serve, runs: Path
) -> None:
    a_run(runs / "2026-05-01-120000-a-name-that-is-longer-than-any-phone-is-wide", steps=9)
    page = look(serve(runs).run_url("first"), width=390)
    expect(page.locator("#curves .select option")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_run_that_is_gone_leads_to_those_that_are_there(
    serve: Serve, runs: Path, browser: Browser
) -> None:
    page = browser.new_page()  # it will complain of the answer 404
    page.goto(serve(runs).run_url("gone"))
    expect(page.get_by_role("heading")).to_have_text("There is nothing here")
    page.get_by_role("link", name="first").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("first")
    page.go_back()
    page.get_by_role("link", name="All runs").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    page.close()
