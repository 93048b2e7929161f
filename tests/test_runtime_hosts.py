"""The same command on several hosts: two network namespaces, Slurm's variables set by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.hosts import Host, hosts

SMALL = (
    "tiny", "dp=2", "zero=3", "steps=4", "batch.sequences=4", "batch.micro_batch=1",
    "batch.seq=32", "numerics.dtype=float64", "vocab=300",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    lines = (f"The {n}th line says that {n} and {n + 1} make {2 * n + 1}." for n in range(900))
    path.write_text("\n\n\n".join(lines))
    return path


def start(host: Host | None, arguments: list[str], **variables: str) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "stretto", "train", *SMALL, *arguments)
    return subprocess.Popen(
        host.command(command) if host else command,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | variables,
    )  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_hosts_under_slurm_train_as_two_local_ranks_do(text: Path, tmp_path: Path) -> None:
    with hosts(2, rate="1gbit") as pair:
        ranks = [
            start(
                host, ["--data", str(text), "--run", str(tmp_path / "slurm")],
                SLURM_PROCID=str(i), SLURM_NTASKS="2", SLURM_LOCALID="0", SLURM_JOB_ID="7",
                SLURM_NTASKS_PER_NODE="1", SLURM_JOB_NODELIST="10.0.0.[1-2]",
                GLOO_SOCKET_IFNAME=host.interface,
            )
            for i, host in enumerate(pair)
        ]  # fmt: skip
        said = [rank.communicate(timeout=200)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    local = start(None, ["--data", str(text), "--run", str(tmp_path / "local"), "--nproc", "2"])
    said = [local.communicate(timeout=200)[0]]
    assert local.returncode == 0, said
    assert losses(tmp_path / "slurm") == pytest.approx(losses(tmp_path / "local"), rel=1e-12)
