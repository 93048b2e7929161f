"""What starts a trainer: files, and the command that torchrun is given."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from stretto.emit.job import Job
from stretto.errors import Problem

Argument = tuple[str, ...]
"""An argument of a command and the values that follow it."""


@dataclass(frozen=True, slots=True)
class Emitted:
    """A plan as another project's trainer reads it.

    Attributes:
        files: (name, text) of each file.
        notes: What the plan decides and the trainer does in a way of its own.
    """

    files: tuple[tuple[str, str], ...]
    notes: tuple[Problem, ...] = ()


def torchrun(job: Job, script: Argument, *, arguments: Iterable[Argument]) -> str:
    """Give the command that starts `script` on every node, one argument a line.

    Args:
        job: What is to be trained.
        script: What torchrun starts.
        arguments: What the script is told.
    """
    local = min(job.world, job.per_node)
    nodes = [("--standalone",)] if job.nodes == 1 else [
        ("--node-rank", '"${NODE_RANK:?number of this node, from 0}"'),
        ("--master-addr", '"${MASTER_ADDR:?address of node 0}"'),
    ]  # fmt: skip
    lines = ["torchrun", f"--nnodes {job.nodes}", f"--nproc-per-node {local}"]
    lines += [" ".join(line) for line in nodes]
    lines += [shlex.join(line) for line in (script, *arguments)]
    return " \\\n  ".join(lines) + "\n"


def script(*, about: str, notes: Iterable[Problem], lines: Iterable[str], command: str) -> str:
    """Give a shell script.

    Args:
        about: What it starts, and where it is run.
        notes: What to know of it.
        lines: What is done before.
        command: What it starts.
    """
    comments = [about, *(f"note: {note}" for note in notes)]
    wrapped = [f"# {line}" for comment in comments for line in textwrap.wrap(comment, 98)]
    head = ["#!/usr/bin/env bash", *wrapped, "set -euo pipefail", *lines]
    return "\n".join([*head, command])
