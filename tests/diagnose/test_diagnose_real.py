"""Real ranks, each time with one thing wrong: it is what costs the most, and is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.diagnose.hurt import CASES, case

from stretto.cost import stack
from stretto.diagnose.compare import Comparison, compare
from stretto.diagnose.diagnose import diagnose
from stretto.diagnose.finding import Cause, Finding
from stretto.diagnose.replay import step_s
from stretto.program.lower import lower
from stretto.runtime.recorder import WARM
from stretto.simulate import simulate
from stretto.timeline.recorded import Recording, read


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded step of every case."""
    path = tmp_path_factory.mktemp("hurt")
    done = subprocess.run(
        [sys.executable, "-m", "tests.diagnose.hurt", str(path), *CASES],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return path


def compared(home: Path, name: str) -> tuple[Comparison, Recording]:
    """Put the recorded step of a case beside what our own runtime was predicted to take."""
    model, plan, cluster = case(name)
    program = lower(model, plan)
    recording = read(home / name, WARM, program=program)
    predicted = simulate(program, cluster, stack=stack("stretto-cpu"))
    return compare(predicted, recording.timeline, program=program), recording


def found(home: Path, name: str) -> tuple[Finding, ...]:
    _, _, cluster = case(name)
    both, recording = compared(home, name)
    return diagnose(both, cluster=cluster, stack=stack("stretto-cpu"), recording=recording)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_step_plays_again_to_the_second(home: Path, name: str) -> None:
    both, recording = compared(home, name)
    assert step_s(both.web, both.taken) == pytest.approx(recording.timeline.step_s)


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
    told = "\n".join(f"{f.share:.1%} {f.cause} {f.where}: {f.why}" for f in findings)
    # That all devices are slower than their file says is right where others use the machine too.
    common = {Cause.WRONG_CONSTANT, Cause.UNEXPLAINED} - {cause}
    blamed = [(f.cause, f.where) for f in findings if f.cause not in common]
    assert blamed[:1] == [(cause, where)], told
