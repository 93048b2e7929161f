r"""``python scripts/page_picture.py PAGE.html OUT.png``: a picture of a page for the documentation.

How the ones in docs/img are made, the machine being idle while the run trains:

    stretto report llama-3-8b pp=4 dp=4 tp=4 zero=1 batch.sequences=128 batch.micro_batch=1 \
        batch.seq=8192 numerics.dtype=bfloat16 --cluster h100x64 --out plan.html
    python scripts/page_picture.py plan.html docs/img/report.png --point 300,60
    stretto train pp=2 batch.micro_batch=1 steps=30 record_every=3 --run runs/first
    stretto calibrate runs/first --write && stretto report runs/first --out run.html
    python scripts/page_picture.py run.html docs/img/page.png --section step --height 1140
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from playwright.sync_api import sync_playwright

_DEVICES = ".plan-canvas .over"


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(prog="python scripts/page_picture.py", description=__doc__)
    parser.add_argument("page", type=Path, help="a file that stretto report has written")
    parser.add_argument("out", type=Path, help="the picture")
    parser.add_argument("--section", help="what to begin with (the head)")
    parser.add_argument("--point", metavar="X,Y", help="where to point at the devices")
    parser.add_argument("--width", type=int, default=1240)
    parser.add_argument("--height", type=int, default=1180)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        page = browser.new_page(viewport={"width": given.width, "height": given.height})
        page.emulate_media(reduced_motion="reduce")  # it scrolls at once
        page.goto(given.page.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        if given.section:
            page.evaluate("id => document.getElementById(id).scrollIntoView()", given.section)
        if given.point:
            x, y = map(int, given.point.split(","))
            page.locator(_DEVICES).hover(position={"x": x, "y": y})
        page.wait_for_timeout(1000)  # what is drawn when nothing else is to be done
        page.screenshot(path=given.out)
        browser.close()


if __name__ == "__main__":
    main()
