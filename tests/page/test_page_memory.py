"""What a page is given of memory: predicted and measured bytes by kind, and every rank's peak."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from steps import PROCESS, a_recording, a_subject, known, on_disk, unpacked
from tests.simulate.toy import cluster

from stretto.cluster import Cluster, Part
from stretto.errors import InputError
from stretto.page.html import as_json
from stretto.page.memory import (
    answer,
    capacities,
    curves,
    data,
    measured_peaks,
    picture,
    processes,
    still,
    thinned,
)
from stretto.page.subject import Subject
from stretto.timeline.memory import NAMES, MemoryCurve, curve


@pytest.fixture
def run(tmp_path: Path) -> Subject:
    subject = a_subject(run=tmp_path)
    on_disk(subject, a_recording(subject, step=50))
    return subject


def a_curve(total: list[int], other: list[int] | None = None) -> MemoryCurve:
    """A curve that changes every second."""
    rest = np.zeros(len(total), dtype=np.int64) if other is None else np.array(other)
    held = {name: np.zeros(len(total), dtype=np.int64) for name in NAMES}
    held |= {"activations": np.array(total) - rest, "other": rest}
    return MemoryCurve(np.arange(float(len(total))), held, np.full(len(total), -1))


def test_without_a_program_there_is_no_memory() -> None:
    assert data(replace(a_subject(), program=None)) is None


def test_of_a_plan_there_is_what_is_predicted_of_every_stage() -> None:
    subject = a_subject()
    program, predicted = known(subject)
    found = data(subject)
    assert found is not None and found["measured"] is None
    assert unpacked(found["player"]).tolist() == [0, 0, 1, 1]
    assert [one["rank"] for one in found["curves"]] == [0, 1, 2, 3]
    peaks = unpacked(found["predicted"])
    for player, ranks in enumerate(predicted.alike):
        most = curve(predicted, program, player).total_bytes.max()
        assert peaks[list(ranks)].tolist() == [most] * len(ranks)
    as_json(found)


def test_the_kinds_of_a_moment_sum_to_all_that_is_held() -> None:
    subject = a_subject()
    program, predicted = known(subject)
    found = curves(subject, None, 2)["predicted"]
    line = curve(predicted, program, 1)
    assert unpacked(found["bytes"]).sum(axis=0).tolist() == line.total_bytes.tolist()
    assert np.allclose(unpacked(found["seconds"]), line.times_s, rtol=1e-6)
    assert found["peak"] == line.peak


def test_what_a_process_holds_throughout_is_told_apart_and_nothing_is_lost() -> None:
    subject = a_subject()
    program, _ = known(subject)
    recording = a_recording(subject)
    held = recording.memory_bytes
    found = curves(subject, recording, 1)["measured"]
    columns = unpacked(found["bytes"])
    line = curve(recording.timeline, program, 1, measured_bytes=held)
    assert columns.sum(axis=0).tolist() == line.total_bytes.tolist()
    ours = curve(recording.timeline, program, 1)
    beyond = line.total_bytes - ours.total_bytes
    assert columns[0].tolist() == [beyond.min()] * columns.shape[1]
    assert columns[-1].tolist() == (beyond - beyond.min()).tolist()  # what the allocator keeps
    assert columns[1 + NAMES.index("other")].tolist() == ours.held_bytes["other"].tolist()


def test_a_process_is_what_is_measured_beyond_the_buffers_at_the_least() -> None:
    subject = a_subject()
    program, _ = known(subject)
    recording = a_recording(subject)
    line = recording.timeline
    held = np.empty(len(line.player), dtype=np.int64)
    for player in range(len(line.alike)):
        twin = curve(line, program, player)
        mine = np.flatnonzero(line.player == player)
        held[mine] = PROCESS * (player + 1) + twin.total_bytes.max()
        first = mine[line.instruction[mine] == twin.made[twin.peak]]
        assert len(first)
    recording = replace(recording, memory_bytes=held)
    assert processes(subject, recording).tolist() == [PROCESS * n for n in (1, 2, 3, 4)]


def test_the_measured_peak_of_a_rank_is_the_most_that_it_ever_held() -> None:
    subject = a_subject()
    recording = a_recording(subject)
    line = recording.timeline
    peaks = measured_peaks(recording, 6)
    for rank in range(4):
        assert peaks[rank] == recording.memory_bytes[line.player == rank].max()
    assert np.isnan(peaks[4:]).all()


def test_a_rank_that_rested_higher_than_it_ran_has_that_peak() -> None:
    recording = a_recording(a_subject())
    resting = replace(recording, resting_bytes=np.full(4, 10**9))
    assert measured_peaks(resting, 4).tolist() == [1e9] * 4


def test_devices_of_an_uneven_cluster_have_their_own_capacity() -> None:
    subject = a_subject()
    device = subject.cluster.device
    small = replace(device, memory_bytes=5.0)
    pair, all_four = cluster(2).levels, cluster(4, node=2).levels
    uneven = Cluster("two", (Part(device, 2, pair), Part(small, 2, pair)), all_four)
    assert capacities(uneven, 3).tolist() == [device.memory_bytes, device.memory_bytes, 5.0]


@pytest.mark.parametrize("points", [2, 7, 50])
def test_a_thinned_curve_keeps_the_peak_and_the_fullest_of_every_stretch(points: int) -> None:
    total = np.random.default_rng(3).integers(0, 1000, 400)
    kept = thinned(a_curve(total.tolist()), points)
    assert len(kept) <= points
    assert total[kept].max() == total.max()
    assert (np.diff(kept) > 0).all()
    edges = np.linspace(0, 399, points)
    for low, high in itertools.pairwise(edges):
        inside = [i for i in range(400) if low <= i < high]
        assert max(total[kept[(kept >= low) & (kept < high)]]) == max(total[inside])


def test_a_curve_with_few_points_is_kept_whole() -> None:
    assert thinned(a_curve([1, 2, 3]), 3).tolist() == [0, 1, 2]


def test_of_equally_full_moments_that_counts_at_which_buffers_hold_most() -> None:
    line = a_curve([9, 9, 9, 8], other=[8, 2, 5, 0])
    assert thinned(line, 2)[0] == 1


def test_the_fullest_rank_is_shown_first() -> None:
    subject = a_subject()
    recording = a_recording(subject)
    line = recording.timeline
    held = np.where(line.player == 3, 10**7, recording.memory_bytes)
    found = picture(subject, replace(recording, memory_bytes=held))
    assert found["fullest"] == 3
    assert 3 in [one["rank"] for one in found["curves"]]


def test_a_rank_s_memory_may_be_asked_for(run: Subject) -> None:
    (found,) = answer(run, {"rank": "2", "step": "50"})["curves"]
    assert found["rank"] == 2 and set(found) == {"rank", "predicted", "measured"}
    assert answer(run, {})["step"] == 50
    assert answer(a_subject(), {})["measured"] is None


@pytest.mark.parametrize(("query", "rule"), [({"rank": "4"}, "4 ranks"), ({"rank": "x"}, "number")])
def test_what_there_is_not_is_refused(run: Subject, query: dict[str, str], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        answer(run, query)


def test_a_file_has_the_memory_of_the_older_steps_that_it_draws(tmp_path: Path) -> None:
    subject = a_subject(run=tmp_path)
    recordings = {}
    for step in (10, 20, 30):
        one = a_recording(subject, step=step)
        recordings[step] = replace(one, memory_bytes=one.memory_bytes + step * 2**24)
        on_disk(subject, recordings[step])
    found = still(subject, lambda _: None)
    assert found is not None and found["step"] == 30
    assert [one["step"] for one in found["older"]] == [10, 20]
    for one in found["older"]:
        expected = measured_peaks(recordings[one["step"]], 4)
        assert unpacked(one["measured"]).tolist() == pytest.approx(expected.tolist())
        assert [c["rank"] for c in one["curves"]] == [0, 1, 2, 3]
        peak = unpacked(one["curves"][0]["measured"]["bytes"]).sum(axis=0).max()
        assert peak == pytest.approx(expected[0])
    as_json(found)


def test_of_a_plan_a_file_has_no_older_steps() -> None:
    found = still(a_subject(), lambda _: None)
    assert found is not None and found["step"] is None and found["older"] == []
