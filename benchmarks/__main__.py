"""``python -m benchmarks``: the command line."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import hosts, plain
from benchmarks.config import Config
from benchmarks.groups import Contender, Group, groups
from benchmarks.ranks import Team, Window, team
from benchmarks.table import rates, section, write
from stretto.errors import MachineError, StrettoError
from stretto.units import show_seconds

_CHECKED_STEPS = 8
_PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def _arguments() -> argparse.Namespace:
    names = [group.name for group in groups()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare Stretto with stock PyTorch on this machine, in turn, and write the "
        "tables to docs/benchmarks.md.",
    )
    parser.add_argument("group", nargs="*", help=f"of {', '.join(names)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (5)")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps in a turn (4)")
    parser.add_argument("--only", default="", help="only contenders whose name has this in it")
    parser.add_argument("--output", type=Path, default=_PAGE, help="the page to write")
    parser.add_argument(
        "--check",
        action="store_true",
        help="measure nothing; see that every contender trains, and rivals as the plain loop does",
    )
    given = parser.parse_args()
    if unknown := sorted(set(given.group) - set(names)):
        parser.error(f"no group {', '.join(unknown)}; there are {', '.join(names)}")
    if given.rounds < 1 or given.steps < 1:
        parser.error(f"--rounds {given.rounds} --steps {given.steps}: both must be 1 or more")
    return given


def _chosen(given: argparse.Namespace) -> Iterator[Group]:
    """The groups to run, less what this machine refuses if it was not asked for by name."""
    refused = hosts.missing()
    for group in groups():
        if given.group and group.name not in given.group:
            continue
        if group.rate and refused:
            if given.group:
                raise MachineError(refused)
            print(f"{group.name} is left out: {'; '.join(map(str, refused))}")
            continue
        contenders = tuple(c for c in group.contenders if given.only in c.name)
        if contenders:
            yield dataclasses.replace(group, contenders=contenders)


@contextmanager
def _teams(group: Group) -> Iterator[Iterator[Team]]:
    """Give the contenders of a group as they are started; end all at the end."""
    with ExitStack() as stack:
        places = (
            stack.enter_context(hosts.hosts(group.world, rate=group.rate)) if group.rate else ()
        )
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

        def start(contender: Contender, number: int) -> Team:
            own = folder / str(number)
            own.mkdir()
            made = team(contender, world=group.world, folder=own, hosts=places)
            return stack.enter_context(made)

        yield (start(contender, number) for number, contender in enumerate(group.contenders))


class _Progress:
    """A line for each turn: where the run is, and about how long it will still take."""

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self._done = 0
        self._begin_s = time.monotonic()

    def say(self, text: str) -> None:
        self._done += 1
        spent_s = time.monotonic() - self._begin_s
        left_s = spent_s / self._done * (self._turns - self._done)
        print(f"[{self._done}/{self._turns}, {show_seconds(left_s)} left] {text}", flush=True)


def _measure(group: Group, progress: _Progress, *, rounds: int, steps: int) -> str:
    """Run the contenders of a group in turn and give its section of the page."""
    windows: dict[str, tuple[Window, ...]] = {}
    with _teams(group) as starting:
        teams = []
        for made in starting:
            made.run(1)
            teams.append(made)
            progress.say(f"{group.name}: {made.contender.name}: warm")
        for turn in range(rounds):
            for made in teams:
                name = made.contender.name
                window = made.run(steps)
                windows[name] = (*windows.get(name, ()), window)
                (rate,) = rates(made.contender, (window,), steps=steps)
                progress.say(f"{group.name}: round {turn + 1}: {name}: {rate:,.0f} tokens/s")
    return section(group, windows, steps=steps, rounds=rounds)


def _losses(group: Group, contender: Contender) -> tuple[float, ...]:
    """Train one contender on one batch again and again, and give its losses."""
    config = dataclasses.replace(contender.config, batches=1)
    alone = dataclasses.replace(contender, config=config)
    with _teams(dataclasses.replace(group, contenders=(alone,))) as starting:
        return next(starting).run(_CHECKED_STEPS).losses


def _check(chosen: tuple[Group, ...]) -> int:
    """Say of every contender whether its loss falls, and of a rival whether as it should.

    Returns:
        How many do not train as they should.
    """
    single = next(group for group in groups() if group.world == 1)
    expected = _losses(single, Contender("plain loop", plain.build, Config()))
    bad = 0
    for group, contender in [(g, c) for g in chosen for c in g.contenders]:
        losses = _losses(group, contender)
        apart = max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
        allowed = 1e-4 if contender.config.precision == "float32" else 1e-2
        rival = not contender.name.startswith("stretto")
        fine = losses[-1] < losses[0] - 0.2 and (apart < allowed or not rival)  # not with a NaN
        bad += not fine
        print(
            f"{'good' if fine else 'BAD '} {group.name}: {contender.name}: "
            f"loss {losses[0]:.4f} to {losses[-1]:.4f}, {apart:.1e} from the plain loop",
            flush=True,
        )
    return bad


def main() -> int:
    """Run the command line and give its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    given = _arguments()
    try:
        chosen = tuple(_chosen(given))
        if given.check:
            return 1 if _check(chosen) else 0
        turns = sum(len(group.contenders) for group in chosen) * (given.rounds + 1)
        progress = _Progress(turns)
        for group in chosen:
            text = _measure(group, progress, rounds=given.rounds, steps=given.steps)
            print(f"\n{text}")
            write(given.output, group.name, text)
    except StrettoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
