"""What a page is given of a step, and what it may ask for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from steps import a_recording, a_subject, known, on_disk, unpacked
from tests.diagnose.injected import Scene, Slow, measured

from stretto.errors import InputError
from stretto.page import step, step_why
from stretto.page.html import as_json
from stretto.page.step import answer, beside, chosen, data, picture, spread, still
from stretto.page.step_rows import book, places
from stretto.page.step_why import longer, only, why
from stretto.page.subject import Subject
from stretto.program.instruction import Compute, Move, Update
from stretto.program.render import label
from stretto.simulate import Halt, SlowRank, simulate
from stretto.timeline import KINDS
from stretto.timeline.recorded import Recording

SLOW = SlowRank(1, 3.0)


@pytest.fixture
def run(tmp_path: Path) -> Subject:
    """A run of which two steps are recorded, the newer with a slow rank."""
    subject = a_subject(run=tmp_path)
    on_disk(subject, a_recording(subject, step=50))
    on_disk(subject, a_recording(subject, faults=[SLOW], step=100))
    return subject


# ── what is given ────────────────────────────────────────────────────────────────────────────────


def test_without_a_program_there_is_no_step() -> None:
    assert data(replace(a_subject(), program=None)) is None
    assert data(replace(a_subject(), predicted=None)) is None


def test_of_a_plan_there_is_what_is_predicted() -> None:
    found = data(a_subject())
    assert found is not None
    assert found["recordings"] == [] and list(found["steps"]) == []
    assert unpacked(found["predicted"]["player"]).tolist() == [0, 0, 1, 1]
    assert unpacked(found["stage"]).tolist() == [0, 0, 1, 1]
    as_json(found)


def test_of_a_run_there_is_the_newest_step_and_a_file_has_older_ones_and_causes(
    run: Subject,
) -> None:
    live, file = data(run), still(run, lambda _: None)
    assert live is not None and file is not None
    assert list(live["steps"]) == [50, 100]
    assert [one["step"] for one in live["recordings"]] == [100]
    assert "top" not in live["recordings"][0]
    assert [one["step"] for one in file["recordings"]] == [50, 100]
    assert file["recordings"][1]["top"]
    as_json(live), as_json(file)


def test_a_step_of_another_plan_is_left_out(run: Subject) -> None:
    other = a_subject(run=run.run, micro_batches=3)
    found = data(other)
    assert found is not None and found["recordings"] == []


def test_the_measured_step_is_as_long_as_its_slowest_rank_makes_it(run: Subject) -> None:
    program, _ = known(run)
    found = data(run)
    assert found is not None
    slow = simulate(program, run.cluster, stack=run.stack, faults=[SLOW])
    assert found["recordings"][0]["measured"]["step_s"] == pytest.approx(slow.step_s)


def test_the_critical_path_ends_with_the_step_and_has_no_gap() -> None:
    found = data(a_subject())
    assert found is not None
    path = {k: unpacked(v) for k, v in found["predicted"]["path"].items()}
    ends = path["begin"] + path["length"]
    assert ends[-1] == pytest.approx(found["predicted"]["step_s"])
    assert np.allclose(path["begin"][1:], ends[:-1], atol=1e-6)
    assert (path["row"] >= 0).all()


def test_a_step_that_never_ends_is_drawn_as_far_as_it_comes() -> None:
    subject = a_subject()
    program, _ = known(subject)
    stuck = simulate(program, subject.cluster, stack=subject.stack, faults=[Halt(3, at=20)])
    found = data(replace(subject, predicted=stuck))
    assert found is not None
    assert found["predicted"]["finished"] is False
    begin = unpacked(found["predicted"]["stages"][1]["begin"])
    assert np.isnan(begin).any() and not np.isnan(begin).all()
    as_json(found)


# ── which ranks ──────────────────────────────────────────────────────────────────────────────────


def test_of_many_ranks_one_of_each_kind_and_the_most_deviating_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "RANKS", 4)
    subject = a_subject(dp=8)
    program, predicted = known(subject)
    leaves = book(program)
    line = a_recording(subject, faults=[SlowRank(5, 2.0)]).timeline
    ranks = chosen(leaves, predicted, line, extra_s=longer(subject, line, book=leaves))
    assert len(ranks) == 4
    assert {0, 5, 8} <= set(ranks)


def test_a_page_is_given_no_more_rows_than_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = a_subject(dp=4)
    program, predicted = known(subject)
    leaves = book(program)
    longest = max(len(sheet.key) for sheet in leaves.sheets)
    monkeypatch.setattr(step, "ROWS", 3 * longest)
    assert chosen(leaves, predicted) == [0, 1, 4]


@pytest.mark.parametrize(
    ("count", "steps"), [(0, []), (1, [1]), (3, [9, 5, 1]), (9, [9, 8, 7, 6, 5, 4, 3, 2, 1])]
)
def test_older_steps_are_spread_evenly(count: int, steps: list[int]) -> None:
    assert spread(list(range(1, 10)), count) == steps


# ── differences ──────────────────────────────────────────────────────────────────────────────────


def test_every_compute_of_a_device_three_times_slower_takes_two_more_than_predicted() -> None:
    subject = a_subject(pp=1, dp=1)
    program, predicted = known(subject)
    line = a_recording(subject, faults=[SlowRank(0, 3.0)]).timeline
    extra = longer(subject, line, book=book(program))
    device = line.kind == KINDS.index("device")
    assert np.array_equal(line.instruction, predicted.instruction)
    assert np.allclose(extra[device], 2 * predicted.work_s[device])
    assert np.isnan(extra[line.kind == 0]).all()


def test_the_instructions_that_cost_most_are_named_with_their_rank_place_and_cause() -> None:
    subject = a_subject(layers=4)
    program, _ = known(subject)
    recording = a_recording(subject, faults=[SLOW], noise=0.01)
    found = why(subject, recording, ranks=[])
    assert len(found["top"]) == 5
    assert found["findings"][0]["title"] == "slow rank: rank 1"
    for one in found["top"]:
        stage = program.of(one["rank"])
        instruction = book(program).sheets[stage.stage].instruction[one["row"]]
        assert one["name"] == label(program, stage, stage.instructions[instruction])
        assert one["extra_s"] == pytest.approx(one["measured_s"] - one["predicted_s"])
        if isinstance(stage.instructions[instruction], Compute | Update):
            assert (one["rank"], one["cause"]) == (1, "slow rank: rank 1")


def slowed(subject: Subject, *slow: Slow, noise: float = 0.0) -> Recording:
    """Give a recording in which some instructions take longer."""
    program, _ = known(subject)
    scene = Scene("small", program, subject.cluster, subject.stack)
    line = measured(scene, seed=1, noise=noise, slow=slow)
    return replace(a_recording(subject), timeline=line)


def causes(subject: Subject, recording: Recording) -> dict[str, set[str]]:
    """Give the causes that are listed, of computes and of messages."""
    program, _ = known(subject)
    found: dict[str, set[str]] = {"computes": set(), "messages": set()}
    for one in why(subject, recording, ranks=[])["top"]:
        stage = program.of(one["rank"])
        instruction = book(program).sheets[stage.stage].instruction[one["row"]]
        computes = isinstance(stage.instructions[instruction], Compute | Update)
        found["computes" if computes else "messages"].add(one["cause"])
    return found


def test_a_compute_is_not_blamed_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_why, "TOP", 8)  # so many that some are longer by chance
    subject = a_subject(layers=4)
    (level,) = subject.cluster.levels
    far = replace(subject.cluster, levels=(replace(level, latency_s=0.3),))
    recording = slowed(replace(subject, cluster=far), noise=0.04)
    assert causes(subject, recording) == {
        "computes": {"not explained"}, "messages": {"wrong constant: node.latency"},
    }  # fmt: skip


def test_a_message_is_not_blamed_on_the_number_of_a_device() -> None:
    subject = a_subject(layers=4)
    program, _ = known(subject)
    (part,) = subject.cluster.parts
    rates = tuple((name, rate / 1.5) for name, rate in part.device.efficiency)
    weak = replace(part, device=replace(part.device, efficiency=rates))
    moves = [i for i, x in enumerate(program.of(0).instructions) if isinstance(x, Move)]
    recording = slowed(
        replace(subject, cluster=replace(subject.cluster, parts=(weak,))),
        Slow(0, {moves[-1]: 2000.0}),
        noise=0.04,
    )
    assert causes(subject, recording) == {
        "computes": {"wrong constant: efficiency.float32"}, "messages": {"not explained"},
    }  # fmt: skip


def test_a_cause_of_the_smaller_part_of_what_a_row_took_longer_is_not_its_cause() -> None:
    subject = a_subject(layers=4)
    program, _ = known(subject)
    computes = [i for i, x in enumerate(program.of(1).instructions) if isinstance(x, Compute)]
    times = dict.fromkeys(computes, 1.5) | {computes[3]: 30.0}
    found = why(subject, slowed(subject, Slow(1, times), noise=0.01), ranks=[])
    assert "slow rank: rank 1" in {one["title"] for one in found["findings"]}
    first, *others = (one for one in found["top"] if one["rank"] == 1)
    assert first["measured_s"] / first["predicted_s"] > 25
    assert first["cause"] == "not explained"
    assert others and {one["cause"] for one in others} == {"slow rank: rank 1"}


def test_who_waits_is_not_listed_and_who_is_waited_for_is() -> None:
    subject = a_subject(layers=4)
    found = why(subject, a_recording(subject, faults=[SLOW]), ranks=[])
    assert {one["rank"] for one in found["top"]} == {1}


def test_part_of_a_recording_is_what_some_ranks_recorded() -> None:
    subject = a_subject()
    whole = a_recording(subject, faults=[SLOW])
    part = only(whole, [1, 3])
    assert part.timeline.alike == ((1,), (3,))
    assert [c.rank for c in part.counters] == [1, 3]
    for player, rank in enumerate((1, 3)):
        here, there = part.timeline.player == player, whole.timeline.player == rank
        for name in ("instruction", "start_s", "stop_s", "kind"):
            ours, theirs = (getattr(line, name) for line in (part.timeline, whole.timeline))
            assert np.array_equal(ours[here], theirs[there])
    cause = part.timeline.cause
    assert cause.max() < len(cause)
    kept = cause >= 0
    assert (part.timeline.stop_s[cause[kept]] <= part.timeline.start_s[kept] + 1e-9).all()
    there = np.flatnonzero(np.isin(whole.timeline.rank, (1, 3)))
    for row, at in enumerate(whole.timeline.cause[there].tolist()):
        while at >= 0 and at not in there:  # over what others did to what is kept
            at = int(whole.timeline.cause[at])
        assert (there[cause[row]] if cause[row] >= 0 else -1) == at


# ── what may be asked for ────────────────────────────────────────────────────────────────────────


def test_the_rows_of_a_rank_that_is_asked_for_are_those_of_the_whole_step(run: Subject) -> None:
    program, _ = known(run)
    found, whole = answer(run, {"step": "100", "rank": "3"}), data(run)
    assert whole is not None
    theirs = whole["recordings"][0]["measured"]["stages"][1]
    ours = found["measured"]["stages"][1]
    place = theirs["players"].index(3)
    assert len(ours["players"]) == 1
    device = book(program).sheets[1].queue < 0
    for name in ("begin", "length"):
        one, other = unpacked(ours[name])[0], unpacked(theirs[name])[place]
        assert np.allclose(one[device], other[device], atol=1e-6)


def test_a_rank_of_a_plan_has_what_is_predicted() -> None:
    found = answer(a_subject(), {"rank": "2"})
    assert found["predicted"]["stages"][1]["players"] == [1]
    assert "measured" not in found


def test_a_step_that_is_asked_for_is_that_one_else_the_newest(run: Subject) -> None:
    assert answer(run, {"step": "50"})["step"] == 50
    assert answer(run, {})["step"] == 100
    assert answer(a_subject(), {}) == {"steps": ()}


def test_causes_may_be_asked_for(run: Subject) -> None:
    assert answer(run, {"why": "1", "step": "100"})["top"]
    assert answer(run, {"why": "1", "step": "50"})["findings"] == []


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ({"rank": "4"}, "there are 4 ranks"),
        ({"rank": "-1"}, "no number"),
        ({"step": "7"}, "step 7 was not recorded"),
        ({"step": "../../etc"}, "no number"),
    ],
)
def test_what_there_is_not_is_refused(run: Subject, query: dict[str, str], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        answer(run, query)


def test_beside_a_rank_are_those_that_it_exchanges_messages_with() -> None:
    assert beside(a_subject(dp=4), 1) == [0, 1, 2, 3, 5]


def test_the_map_of_differences_is_coloured_wherever_a_row_that_differs_lies() -> None:
    subject = a_subject()
    program, _ = known(subject)
    recording = a_recording(subject, faults=[SLOW])
    late = picture(subject, [recording], steps=[50])["recordings"][0]["measured"]["late"]
    cells, line = unpacked(late["cells"]), recording.timeline
    extra_s = longer(subject, line, book=book(program))
    at = int(np.nanargmax(np.where(line.rank == 1, extra_s, np.nan)))
    bin_s = line.step_s / cells.shape[1]
    first, last = (int(edge[at] / bin_s) for edge in (line.start_s, line.stop_s))
    assert last - first > 3
    share = min(1.0, extra_s[at] / late["row_s"])
    mine = cells[line.player[at], first : min(last + 1, cells.shape[1])]
    assert mine.min() >= round(127 * math.sqrt(share)) > 90


def test_a_picture_holds_only_rows_that_it_names() -> None:
    subject = a_subject()
    program, _ = known(subject)
    found = picture(subject, [a_recording(subject)], steps=[50])
    leaves = book(program)
    path = {k: unpacked(v) for k, v in found["recordings"][0]["measured"]["path"].items()}
    for rank, row in zip(path["rank"], path["row"], strict=True):
        assert 0 <= row < len(leaves.sheets[program.of(int(rank)).stage].key)
    assert places(known(subject)[1], leaves.sheets[0], rows=slice(0, 0))[0].tolist() == []
