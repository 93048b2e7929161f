"""``stretto verify``: what it proves, what it says, and its status."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stretto.cli import main
from stretto.model import Model
from stretto.plan import Plan
from stretto.runtime import parity
from stretto.runtime.parity import Difference


def test_a_plan_and_random_ones_compute_what_one_rank_does(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(Plan.of(dp=2, tp=2, zero=3).to_toml())
    for words in (["plan.toml", "tiny"], ["--random", "2", "--seed", "5"]):
        done = subprocess.run(
            [sys.executable, "-m", "stretto", "verify", *words], cwd=tmp_path, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        same = [line for line in lines if line.startswith("same ")]
        assert len(same) == (2 if "--random" in words else 1)
        assert all("one rank: loss " in line and "array reference: loss " in line for line in same)
    assert lines[-1] == "2 of 2 plans compute what one rank does"


@pytest.mark.parametrize(
    ("gap", "status"),
    [
        (Difference(0.0, 9e-10, "head.weight"), 0),
        (Difference(0.0, 1e-9, "head.weight"), 1),
        (Difference(2e-9, 0.0, ""), 1),
        (Difference(float("nan"), 0.0, ""), 1),
        (Difference(0.0, float("nan"), "head.weight"), 1),
    ],
)
def test_the_status_is_0_only_below_a_difference_of_1e_9(
    gap: Difference,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def check(model: Model, plan: Plan, *, seed: int) -> Iterator[tuple[str, Difference]]:
        yield "one rank", gap
        yield "array reference", Difference(0.0, 0.0, "")

    monkeypatch.setattr(parity, "check", check)
    assert main(["verify", "tiny", "dp=2"]) == status
    out = capsys.readouterr().out
    assert out.startswith("DIFFERS" if status else "same")
    assert ("(head.weight)" in out) == bool(status and gap.parameter)
