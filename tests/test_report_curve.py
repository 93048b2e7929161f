"""The picture of a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from stretto.report.curve import curve

SVG = "{http://www.w3.org/2000/svg}"
RECORDS = [
    {
        "step": s,
        "tokens": 1000 * s,
        "loss": 6.0 - s / 10,
        **({"valid_loss": 5.5} if s == 20 else {}),
    }
    for s in range(1, 21)
]


def points(path: str) -> list[tuple[float, float]]:
    pairs = [part.strip("ML").split() for part in path.replace("L", "|L").split("|")]
    return [(float(x), float(y)) for x, y in pairs]


def test_the_training_curve_has_a_point_for_each_step_and_falls_as_the_loss_does() -> None:
    root = ET.fromstring(curve(RECORDS, baseline=6.2, title="a < b & c"))
    (train,) = (p for p in root.iter(f"{SVG}path") if p.get("class") == "train")
    drawn = points(train.get("d", ""))
    assert len(drawn) == len(RECORDS)
    assert drawn == sorted(drawn)  # to the right, and down the page as the loss falls
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)


def test_equal_losses_lie_at_equal_heights() -> None:
    root = ET.fromstring(curve(RECORDS, baseline=5.5, title="run"))
    (base,) = (p for p in root.iter(f"{SVG}path") if p.get("class") == "base")
    (dot,) = root.iter(f"{SVG}circle")
    height = float(base.get("d", "").split()[1].split("H")[0])
    assert height == pytest.approx(float(dot.get("cy", "")), abs=0.1)


def test_a_run_without_an_evaluation_or_with_losses_that_were_not_finite_is_drawn() -> None:
    records = [{"step": 1, "tokens": 10, "loss": None}, {"step": 2, "tokens": 20, "loss": 3.0}]
    ET.fromstring(curve(records, baseline=4.0, title="run"))
