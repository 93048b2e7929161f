"""The page writes a quantity in one way: in Python and in its scripts, in sentences and tables."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from stretto import page as package
from stretto import quantities
from stretto.quantities import change, count, energy, money, number, seconds, share, size, span

NAMES = {
    "seconds": "seconds",
    "span": "span",
    "size": "bytes",
    "count": "count",
    "number": "number",
    "money": "money",
    "energy": "energy",
    "share": "percent",
}
"""What the scripts call the same."""


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (seconds, 0.4123, "412 ms"),
        (seconds, 0.000412, "412 µs"),
        (seconds, 4.2, "4.20 s"),
        (seconds, 0.9996, "1.00 s"),
        (seconds, 75.26, "75.3 s"),
        (seconds, 1240.4, "1,240 s"),
        (seconds, -0.0068, "−6.80 ms"),
        (seconds, 0.0, "0 s"),
        (span, 75.26, "1 min 15 s"),
        (span, 3725.0, "1 h 02 min"),
        (span, 2.0, "2.00 s"),
        (size, 512, "512 B"),
        (size, 11.766 * 2**30, "11.8 GiB"),
        (size, 1.125 * 2**30, "1.13 GiB"),
        (size, 1003 * 2**20, "1,003 MiB"),
        (size, 2**24, "16.0 MiB"),
        (count, 60, "60"),
        (count, 999.6, "1.00 k"),
        (count, 9200, "9.20 k"),
        (count, 8.03e9, "8.03 G"),
        (number, 6.32, "6.320"),
        (number, 0.004, "0.004"),
        (number, 12, "12"),
        (money, 440.32, "440 USD"),
        (money, 0.0042, "0.00420 USD"),
        (money, 2.37e6, "2.37 M USD"),
        (energy, 1.55, "1.55 J"),
        (energy, 3600 * 219e6, "219 MWh"),
        (share, 0.32, "32.0 %"),
        (share, 0.0576, "5.8 %"),
        (share, 0.0076, "0.76 %"),
        (share, 1.0, "100 %"),
        (change, 1.547, "+54.7 %"),
        (change, 0.996, "−0.40 %"),
    ],
)
def test_a_quantity_has_three_digits_and_its_unit(
    show: Callable[[float], str], value: float, text: str
) -> None:
    assert show(value) == text


@pytest.mark.parametrize("name", NAMES)
def test_the_scripts_write_what_python_writes(browser: Browser, name: str) -> None:
    drawn = random.Random(name)
    values = [
        sign * drawn.choice((round(scale * drawn.random(), 3), scale * drawn.random(), scale))
        for scale in [10.0**k for k in range(-8, 14)] + [2.0**k for k in range(-3, 45, 3)]
        for sign in ((1, 1, -1) if name != "span" else (1, 1, 1))
    ]
    script = Path(package.__file__).parent / "static" / "numbers.js"
    page = browser.new_page()
    page.add_script_tag(path=str(script))
    written = page.evaluate(
        "([name, values]) => values.map((value) => Numbers[name](value))", [NAMES[name], values]
    )
    page.close()
    show = getattr(quantities, name)
    assert [text.replace("\u00a0", " ") for text in written] == [show(value) for value in values]


def test_what_python_wrote_keeps_each_number_and_its_unit_on_one_line(browser: Browser) -> None:
    script = Path(package.__file__).parent / "static" / "numbers.js"
    page = browser.new_page()
    page.add_script_tag(path=str(script))
    said = "it costs 1.55 ms of 204 ms (0.76 %), 4 sequences and 11.8 GiB"
    assert page.evaluate("text => Numbers.tie(text)", said) == (
        "it costs 1.55\u00a0ms of 204\u00a0ms (0.76\u00a0%), 4 sequences and 11.8\u00a0GiB"
    )
    page.close()
