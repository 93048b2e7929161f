"""Real ranks, each time with one thing wrong: it is what costs the most, and is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.timeline.hurt import CASES, case

from stretto.cost import stack
from stretto.program.lower import lower
from stretto.runtime.recorder import WARM
from stretto.simulate import simulate
from stretto.timeline.compare import compare
from stretto.timeline.diagnose import diagnose
from stretto.timeline.finding import Cause, Finding
from stretto.timeline.recorded import read


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded step of every case."""
    path = tmp_path_factory.mktemp("hurt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.timeline.hurt", str(path), *CASES],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return path


def found(home: Path, name: str) -> tuple[Finding, ...]:
    model, plan, cluster = case(name)
    program, software = lower(model, plan), stack("stretto-cpu")
    recording = read(home / name, WARM, program=program)
    predicted = simulate(program, cluster, stack=software)
    compared = compare(predicted, recording.timeline, program=program)
    return diagnose(compared, cluster=cluster, stack=software, recording=recording)


@pytest.mark.parametrize(
    ("name", "cause", "where"),
    [
        ("slow rank", Cause.SLOW_RANK, "rank 1"),
        ("slow link", Cause.SLOW_LINK, "rank 1–rank 2"),
        ("wrong constant", Cause.WRONG_CONSTANT, "spine.one_way_bandwidth"),
        ("data wait", Cause.DATA_WAIT, "rank 1"),
        ("host", Cause.HOST, "all ranks"),
        ("memory pressure", Cause.MEMORY_PRESSURE, "rank 1"),
    ],
)
def test_what_is_wrong_with_real_ranks_is_named(
    home: Path, name: str, cause: Cause, where: str
) -> None:
    findings = found(home, name)
    assert findings, "nothing was found"
    told = "\n".join(f"{f.share:.1%} {f.cause} {f.where}: {f.why}" for f in findings)
    assert (findings[0].cause, findings[0].where) == (cause, where), told
