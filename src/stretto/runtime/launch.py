"""Start the ranks of this machine, and see how they end.

Ranks are forked from a parent that has imported everything, which takes 0.2 s for eight instead of
ten. The first failure is the one that is reported; the others are stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stretto.errors import InputError, MachineError, Problem, RankError, StrettoError
from stretto.runtime.environment import World, from_environment
from stretto.runtime.world import join

GRACE_S = 10.0
"""How long ranks may take to stop once one has failed."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to stop."""

Work = Callable[[World], int | None]
"""What a rank does; gives the signal after which it ended early, None if it did all."""


@dataclass(slots=True)
class _Rank:
    """A forked rank, as its parent sees it.

    Attributes:
        number: Its rank.
        pid: Its process.
        pipe: Where it says what went wrong.
        said: What it said.
        status: How it ended, as `os.waitpid` has it; None while it runs.
        dismissed: The parent told it to end, because another one had failed.
    """

    number: int
    pid: int
    pipe: int
    said: bytes = b""
    status: int | None = None
    dismissed: bool = False

    @property
    def message(self) -> dict[str, Any]:
        """What it said at its end; empty for nothing."""
        lines = self.said.splitlines() if b"\n" in self.said else []
        found: dict[str, Any] = json.loads(lines[0]) if lines else {}
        return found

    @property
    def ended_by(self) -> int:
        """The signal that ended it; 0 for none."""
        return os.WTERMSIG(self.status) if self.status and os.WIFSIGNALED(self.status) else 0


@dataclass(slots=True)
class _Signals:
    """Signals that the parent was sent, in order."""

    asked: list[int] = field(default_factory=list)


def launch(work: Work, *, nproc: int) -> int | None:
    """Run `work` on every rank.

    Under torchrun or Slurm this process is one rank; otherwise `nproc` ranks are forked.

    Args:
        work: What a rank does once it has met the others.
        nproc: Ranks to start when nobody else does.

    Returns:
        The signal after which the work ended early; None if it is done.

    Raises:
        StrettoError: What the first rank to fail raised.
    """
    world = from_environment(os.environ)
    if world is None:
        return spawn(work, nproc=nproc)
    try:
        return _be(world, work)
    except (RuntimeError, OSError) as error:
        if not _lost_a_peer(str(error)):
            raise
        reason = str(error).splitlines()[0]
        rule = f"lost another rank: {reason:.200}"
        raise RankError(Problem(f"rank {world.rank}", rule, "see what the others say")) from None


def spawn(work: Work, *, nproc: int) -> int | None:
    """Fork `nproc` ranks on this machine and wait for them; see `launch`."""
    meeting = Path(tempfile.mkdtemp(prefix="stretto-"))
    sys.stdout.flush()
    sys.stderr.flush()
    ranks: list[_Rank] = []
    try:
        for number in range(nproc):
            world = World(number, nproc, number, nproc, f"file://{meeting}/store")
            ranks.append(_fork(world, work))
        with _passed_on(ranks) as signals:
            _watch(ranks)
    finally:
        _stop(ranks)
        shutil.rmtree(meeting, ignore_errors=True)
    return _verdict(ranks, signals)


def _fork(world: World, work: Work) -> _Rank:
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Rank(world.rank, pid, reading)
    os.close(reading)
    status = 0
    try:
        for number in STOPS:  # until `work` says otherwise
            signal.signal(number, signal.SIG_DFL)
        _die_with(parent)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        stopped = _be(world, work)
        if stopped is not None:
            _tell(writing, {"stopped": stopped})
    except BaseException as error:  # the parent tells the user
        status = error.exit_code if isinstance(error, StrettoError) else 1
        _tell(writing, _described(error))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    raise AssertionError("not reached")


def _be(world: World, work: Work) -> int | None:
    """Be a rank: meet the others, work, leave."""
    if "OMP_NUM_THREADS" not in os.environ and world.device.type == "cpu":
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(max(1, cores // world.local_size))
    join(world)
    try:
        return work(world)
    finally:
        dist.destroy_process_group()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _described(error: BaseException) -> dict[str, Any]:
    """Give an error as JSON."""
    problems = error.problems if isinstance(error, StrettoError) else ()
    return {
        "kind": type(error).__name__,
        "problems": [(p.field, p.rule, p.remedy) for p in problems[:100]],
        "text": str(error)[:2000],
        "trace": "".join(traceback.format_exception(error))[-20_000:],
    }


def _tell(pipe: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(message).encode() + b"\n")


def _watch(ranks: list[_Rank]) -> None:
    """Wait until every rank has ended, or one has failed and the others had time to."""
    deadline_s = math.inf
    open_pipes = {r.pipe: r for r in ranks}
    while any(r.status is None for r in ranks) and time.monotonic() < deadline_s:
        _listen(open_pipes)
        for rank in ranks:
            if rank.status is None:
                pid, status = os.waitpid(rank.pid, os.WNOHANG)
                rank.status = status if pid else None
        if deadline_s == math.inf and any(r.status for r in ranks):
            deadline_s = time.monotonic() + GRACE_S
            for rank in ranks:
                _dismiss(rank, signal.SIGTERM)
    while _listen(open_pipes):
        pass


def _listen(open_pipes: dict[int, _Rank]) -> bool:
    """Take in what ranks say, forget the pipes that they have closed; tell if there was any."""
    ready, _, _ = select.select(list(open_pipes), [], [], 0.05)
    for pipe in ready:
        said = os.read(pipe, 65_536)
        open_pipes[pipe].said += said
        if not said:
            del open_pipes[pipe]
    return bool(ready)


def _dismiss(rank: _Rank, number: int) -> None:
    if rank.status is None:
        rank.dismissed = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank.pid, number)


def _stop(ranks: list[_Rank]) -> None:
    for rank in ranks:
        if rank.status is None:
            _dismiss(rank, signal.SIGKILL)
            rank.status = os.waitpid(rank.pid, 0)[1]
        os.close(rank.pipe)


@contextlib.contextmanager
def _passed_on(ranks: list[_Rank]) -> Iterator[_Signals]:
    """Pass signals that ask to stop on to the ranks, which finish their step; a third one kills."""
    signals = _Signals()

    def handle(number: int, _: Any) -> None:
        signals.asked.append(number)
        for rank in ranks:
            if rank.status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank.pid, signal.SIGKILL if len(signals.asked) > 2 else number)

    before = {number: signal.signal(number, handle) for number in STOPS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdict(ranks: list[_Rank], signals: _Signals) -> int | None:
    """Give the signal after which the ranks ended, or raise what the first one to fail said.

    Whom a signal ended that nobody here sent was first; whom another's failure ended was not.
    """
    failed = [r for r in ranks if r.status and not (r.dismissed and r.ended_by)]
    if not failed:
        stopped = [r.message["stopped"] for r in ranks if "stopped" in r.message]
        return signals.asked[0] if signals.asked and stopped else next(iter(stopped), None)
    signalled = [r for r in failed if r.ended_by]
    ours = {*signals.asked, *([signal.SIGKILL] if len(signals.asked) > 2 else [])}
    if any(r.ended_by in ours for r in signalled):  # before its first step, or at the third request
        return signals.asked[0]
    for kind in (InputError, MachineError):
        messages = [r.message for r in failed if r.message.get("kind") in _names(kind)]
        problems = [Problem(*p) for message in messages for p in message["problems"]]
        if problems:  # several ranks may have found the same
            raise kind(dict.fromkeys(problems))
    if signalled:
        raise RankError([_killed(rank) for rank in signalled])
    raise _failure(sorted(failed, key=lambda r: _lost_a_peer(r.message.get("text", "")))[0])


def _killed(rank: _Rank) -> Problem:
    return Problem(
        f"rank {rank.number}",
        f"was ended by {signal.Signals(rank.ended_by).name}",
        "if nobody sent it, look for the kernel's out-of-memory killer in dmesg",
    )


def _failure(rank: _Rank) -> RankError:
    """Give the error of a rank that failed, after showing its traceback."""
    message = rank.message or {"kind": "an exit", "text": f"status {rank.status}", "trace": ""}
    sys.stderr.write(message["trace"])
    first = (message["text"].splitlines() or [""])[0]
    rule = f"failed with {message['kind']}: {first}".removesuffix(": ")
    remedy = "its traceback is above; the other ranks were stopped"
    return RankError(Problem(f"rank {rank.number}", rule, remedy))


def _lost_a_peer(text: str) -> bool:
    lost = ("connection", "closed by peer", "timed out", "timeout", "broken pipe")
    return any(word in text.lower() for word in lost)


def _names(kind: type[StrettoError]) -> set[str]:
    return {kind.__name__, *(name for sub in kind.__subclasses__() for name in _names(sub))}
