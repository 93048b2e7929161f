"""Does a program compute a training step? All stages are played at once, on names for numbers.

Every buffer holds a sum of *terms*: the value that enters block 3 on micro-batch 0, what block 2
adds to the gradient of a parameter on micro-batch 1, and so on. A move keeps the terms; a compute
checks that it reads the terms that it should, and writes its own. In the end every gradient must be
the sum of each of its terms once, and every weight a new one.

A stage waits where it first reads what it receives, and before an update for all stages to vote: if
all wait, the program deadlocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from stretto.program.fault import Fault
from stretto.program.group import Group, groups
from stretto.program.instruction import (
    STAYS,
    Buffer,
    Compute,
    Free,
    Move,
    Phase,
    Program,
    Recv,
    Role,
    Send,
    StageProgram,
    Sums,
    Update,
    Vote,
)
from stretto.program.lifetime import reads

Content = Counter["Term"]
"""A sum of terms: how often each is in it."""
Mail = dict[tuple[int, int], list[tuple[Content, ...]]]
"""The messages sent so far, by source and target."""


class What(StrEnum):
    """What a term is a name for."""

    GIVEN = "given"
    PARAMETER = "parameter"
    NEW = "new value of"
    STATE = "state"
    VALUE = "value"
    LOSS = "loss"
    GRAPH = "graph"
    COTANGENT = "cotangent"
    """All of it, of what enters a block."""
    PART = "part of the cotangent"
    """What one group of a block contributes."""
    GRADIENT = "gradient"
    """What one block contributes on one micro-batch."""
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True)
class Term:
    """A name for numbers.

    Attributes:
        what: What it is.
        name: Of the value, the parameter or the buffer.
        block: Index of the block; -1 where none is concerned.
        micro_batch: The micro-batch; -1 where none is concerned.
        segment: First segment of the group; -1 where none is concerned.
    """

    what: What
    name: str
    block: int = -1
    micro_batch: int = -1
    segment: int = -1

    def __str__(self) -> str:
        places = (("block", self.block), ("segment", self.segment), ("m", self.micro_batch))
        return " ".join((self.what, self.name, *(f"{p} {n}" for p, n in places if n >= 0))).strip()


def play(program: Program) -> list[Fault]:
    """Give what a program computes wrongly, or where it deadlocks.

    Args:
        program: Every buffer is named and lives as it should, and every message has two ends.
    """
    parts = tuple(groups(block, program.placement) for block in program.chain)
    players = [_Player(program, parts, stage) for stage in program.stages]
    mail: Mail = {}
    moved = True
    while moved:
        moved = False
        for player in players:
            voted = all(p.voted for p in players)
            while not player.done and player.ready(mail, voted=voted):
                player.step(mail)
                moved = True
    faults = [fault for player in players for fault in player.faults]
    for player in players:
        if not player.done:
            rule = "waits for ever, as all stages do"
            faults.append(Fault(player.stage.stage, player.at, rule, "send before one waits"))
    return faults or list(_ends(program, players))


def _ends(program: Program, players: list[_Player]) -> Iterator[Fault]:
    """Every weight is new, and the norm has counted every gradient once."""
    votes = Counter(name for player in players for name in player.counted)
    for parameter in program.model.parameters:
        if votes[parameter.name] != 1:
            rule = f"the gradient of {parameter.name} is in {votes[parameter.name]} votes"
            yield Fault(players[0].stage.stage, -1, rule, "count it once")
    for player in players:
        for name in player.stage.resting(Role.PARAMETER):
            wanted = Term(What.NEW, player.stage.buffers[name].parameter)
            if player.content[name] != Content([wanted]):
                rule = f"{name} ends as {_show(player.content[name])}"
                yield Fault(player.stage.stage, -1, rule, f"leave the {wanted} there")


def _show(content: Content) -> str:
    terms = [f"{n} × {t}" if n != 1 else str(t) for t, n in content.items()]
    more = f" and {len(terms) - 3} more" if len(terms) > 3 else ""
    return " + ".join(terms[:3]) + more or "nothing"


@dataclass(slots=True)
class _Player:
    """One stage while it is played.

    Attributes:
        program: The program.
        groups: The groups of each block of the chain.
        stage: The stage.
        at: Index of the next instruction.
        content: What each buffer holds.
        awaited: Received buffers that nobody has read: from which stage, which message, which part
            of it, and what is added.
        received: Messages received from each stage so far.
        faults: What is wrong.
        voted: Whether it has voted.
        counted: Parameters whose gradients it has voted on.
    """

    program: Program
    groups: tuple[tuple[Group, ...], ...]
    stage: StageProgram
    at: int = 0
    content: dict[Buffer, Content] = field(default_factory=dict)
    awaited: dict[Buffer, tuple[int, int, int, Content]] = field(default_factory=dict)
    received: Counter[int] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    voted: bool = False
    counted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put what stays where it is."""
        for name in self.stage.resting(*STAYS):
            spec = self.stage.buffers[name]
            match spec.role:
                case Role.PARAMETER:
                    term = Term(What.PARAMETER, spec.parameter)
                case Role.STATE:
                    term = Term(What.STATE, name)
                case _:
                    term = Term(What.GIVEN, name)
            self.content[name] = Content([term])

    @property
    def done(self) -> bool:
        """Whether the list is played to its end."""
        return self.at == len(self.stage.instructions)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────

    def ready(self, mail: Mail, *, voted: bool) -> bool:
        """Say whether the next instruction need not wait, and take what it waited for.

        Args:
            mail: The messages sent so far, by source and target.
            voted: Whether all stages have voted.
        """
        instruction = self.stage.instructions[self.at]
        for name in dict.fromkeys(n for n in reads(instruction) if n in self.awaited):
            peer, message, part, added = self.awaited[name]
            sent = mail.get((peer, self.stage.stage), [])
            if len(sent) <= message:
                return False
            self._put(name, sent[message][part] + added)
            del self.awaited[name]
        return voted or not isinstance(instruction, Update)

    # ── the instructions ─────────────────────────────────────────────────────────────────────────

    def step(self, mail: Mail) -> None:
        """Play one instruction."""
        instruction = self.stage.instructions[self.at]
        match instruction:
            case Compute(phase=Phase.BACKWARD):
                self._backward(instruction)
            case Compute():
                self._forward(instruction)
            case Move():
                self._move(instruction)
            case Send():
                box = mail.setdefault((self.stage.stage, self.stage.stage + instruction.by), [])
                box.append(tuple(self.content[b] for b in instruction.buffers))
            case Recv():
                self._receive(instruction)
            case Vote():
                self._vote(instruction)
            case Update():
                self._update(instruction)
            case Free():
                pass  # `lifetime` sees to it that nobody reads again
        self.at += 1

    def _move(self, move: Move) -> None:
        for leg in move.legs:
            self._write(leg.target, self.content[leg.source], move.adds)

    def _receive(self, recv: Recv) -> None:
        peer = self.stage.stage + recv.by
        for part, name in enumerate(recv.buffers):
            self.awaited[name] = (peer, self.received[peer], part, self._added(name, recv.adds))
        self.received[peer] += 1

    def _expect(self, buffer: Buffer, *terms: Term) -> None:
        content = self.content[buffer]
        if content != Content(terms):
            rule = f"{buffer} holds {_show(content)}, not {_show(Content(terms))}"
            self.faults.append(Fault(self.stage.stage, self.at, rule, "compute or move that first"))

    def _write(self, buffer: Buffer, content: Content, adds: Sums) -> None:
        self._put(buffer, content + self._added(buffer, adds))

    def _added(self, buffer: Buffer, adds: Sums) -> Content:
        """Give what is added to what is written to `buffer`, as it stands now."""
        return sum((self.content[a] for target, a in adds if target == buffer), Content())

    def _put(self, buffer: Buffer, content: Content) -> None:
        """Hold a sum; the parts of a block's cotangent are all of it once they are complete."""
        part = next((t for t in content if t.what is What.PART and t.name == "x"), None)
        if part is not None and content == self._cotangent("x", part.block, part.micro_batch):
            content = Content([Term(What.COTANGENT, "x", part.block, part.micro_batch)])
        self.content[buffer] = content

    def _cotangent(self, name: str, block: int, m: int) -> Content:
        """Give the cotangent of what is read in `block` under `name`: a part for each reader."""
        return Content(
            Term(What.COTANGENT, "x", block + 1, m)
            if group.is_sum
            else Term(What.PART, name, block, m, group.span[0])
            for group in self.groups[block]
            if name in {v.name for v in group.reads}
        )

    def _forward(self, compute: Compute) -> None:
        b, m = compute.block, compute.micro_batch
        segments = self.program.segments(compute)
        given = {v.name for s in segments for v in s.reads if v.kind == "given"}
        for name, buffer in compute.values:
            if name in given:
                self._expect(buffer, Term(What.GIVEN, f"{name}.m{m}"))
            else:
                self._expect(buffer, Term(What.VALUE, name, b, m))
        for name, buffer in compute.parameters:
            self._expect(buffer, Term(What.PARAMETER, name))
        for name, buffer in compute.writes:
            term = Term(What.VALUE, name, b + 1 if name == "x" else b, m)
            if name == "loss":
                term = Term(What.LOSS, "", b, m)
            self._write(buffer, Content([term]), compute.adds)
        if compute.graph:
            term = Term(What.GRAPH, "", b, m, compute.segments[0])
            self.content[compute.graph] = Content([term])

    def _backward(self, compute: Compute) -> None:
        b, m, segment = compute.block, compute.micro_batch, compute.segments[0]
        self._expect(compute.graph, Term(What.GRAPH, "", b, m, segment))
        for name, buffer in compute.values:
            if name == "x":  # what leaves the block
                self._expect(buffer, Term(What.COTANGENT, "x", b + 1, m))
            else:
                self._expect(buffer, *self._cotangent(name, b, m).elements())
        for name, buffer in compute.parameters:
            self._expect(buffer, Term(What.PARAMETER, name))
        for name, buffer in compute.writes:
            self._write(buffer, Content([Term(What.PART, name, b, m, segment)]), compute.adds)
        for name, buffer in compute.gradients:
            self._write(buffer, Content([Term(What.GRADIENT, name, b, m)]), compute.adds)

    # ── the end of the step ──────────────────────────────────────────────────────────────────────

    def _gradient(self, name: str) -> tuple[Term, ...]:
        """Give the terms of a whole gradient: every block that uses the parameter, every batch."""
        return tuple(
            Term(What.GRADIENT, name, b, m)
            for b, block in enumerate(self.program.chain)
            if name in {p.name for p in block.parameters}
            for m in range(self.program.plan.micro_batches)
        )

    def _vote(self, vote: Vote) -> None:
        micro_batches = range(self.program.plan.micro_batches)
        for buffer in vote.loss:
            head = len(self.program.chain) - 1
            self._expect(buffer, *(Term(What.LOSS, "", head, m) for m in micro_batches))
        if vote.counts and vote.counts != tuple(f"count.m{m}" for m in micro_batches):
            rule = f"counts {vote.counts}, not every micro-batch once"
            self.faults.append(Fault(self.stage.stage, self.at, rule, "count each once"))
        for buffer in vote.gradients:
            name = self.stage.buffers[buffer].parameter
            self._expect(buffer, *self._gradient(name))
            self.counted.append(name)
        self.content[vote.verdict] = Content([Term(What.VERDICT, "")])
        self.voted = True

    def _update(self, update: Update) -> None:
        self._expect(update.verdict, Term(What.VERDICT, ""))
        for weight in update.weights:
            self._expect(weight.gradient, *self._gradient(weight.parameter))
            for state in weight.state:
                own = state == weight.weight
                what = Term(What.PARAMETER, weight.parameter) if own else Term(What.STATE, state)
                self._expect(state, what)
            new = Content([Term(What.NEW, weight.parameter)])
            self.content |= dict.fromkeys((weight.state[0], weight.weight), new)
