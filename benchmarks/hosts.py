"""Hosts of one machine: network namespaces around a switch, each behind a link of its own.

          switch (a bridge)
      port0   port1   port2  …       each port and each eth0 sends through `tc tbf` at the rate,
        │       │       │            so a link is limited in both directions
      eth0    eth0    eth0
      host 0  host 1  host 2

The bridge and its ports stand in a namespace of their own: nothing is added to the machine's own
network, and deleting the namespaces deletes everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stretto.errors import MachineError, Problem

_PREFIX = "stretto-hosts"
_NAMED = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace that can reach its neighbours and nothing else.

    Attributes:
        name: Of the namespace, as `ip netns` knows it.
        interface: The interface to the others.
        address: Its IPv4 address.
    """

    name: str
    interface: str
    address: str

    def command(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """Give the command line that runs `arguments` on this host."""
        return ("ip", "netns", "exec", self.name, *arguments)

    def enter(self) -> None:
        """Move the calling thread, and what it starts, to this host; there is no way back.

        Raises:
            OSError: The host is gone, or the process is not privileged.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        with (_NAMED / self.name).open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the host {self.name}")


def missing() -> tuple[Problem, ...]:
    """What keeps this process from making hosts; empty if nothing does."""
    problems = [
        Problem("hosts", f"the command {command} is not found", "install Debian's iproute2")
        for command in ("ip", "tc")
        if shutil.which(command) is None
    ]
    if os.geteuid() != 0:
        rule = f"network namespaces need root, and this is user {os.geteuid()}"
        problems.append(Problem("hosts", rule, "run as root"))
    return tuple(problems)


@contextlib.contextmanager
def hosts(n: int, *, rate: str = "1gbit") -> Iterator[tuple[Host, ...]]:
    """Make `n` hosts, and remove them at the end whatever happens.

    Args:
        n: Hosts, up to 250.
        rate: Of each link, in each direction, as `tc` writes it.

    Yields:
        The hosts.

    Raises:
        MachineError: Not root, a command missing, or refused.
    """
    if problems := missing():
        raise MachineError(problems)
    _sweep()
    # The process's number lets a later run see that the owner is dead.
    name = f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        yield _make(name, n, rate=rate)
    finally:
        _remove(name)


def _make(name: str, n: int, *, rate: str) -> tuple[Host, ...]:
    switch = f"{name}-switch"
    _run("ip", "netns", "add", switch)
    _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
    _run("ip", "-n", switch, "link", "set", "bridge", "up")
    made = tuple(Host(f"{name}-{i}", "eth0", f"10.0.0.{i + 1}") for i in range(n))
    for i, host in enumerate(made):
        port = f"port{i}"
        _run("ip", "netns", "add", host.name)
        _run(*f"ip -n {switch} link add {port} type veth".split(), *("peer", "name"),
             host.interface, "netns", host.name)  # fmt: skip
        _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
        _run("ip", "-n", host.name, "link", "set", "lo", "up")
        _run("ip", "-n", host.name, "link", "set", host.interface, "up")
        _run("ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", host.interface)
        for end, device in ((switch, port), (host.name, host.interface)):
            _run(*f"tc -n {end} qdisc add dev {device} root tbf".split(),
                 *f"rate {rate} burst 256kb latency 50ms".split())  # fmt: skip
    return made


def _run(*command: str) -> None:
    # A session of its own: Ctrl-C must not break the removal half-way.
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        rule = f"`{' '.join(command)}` failed: {done.stderr.strip()}"
        raise MachineError(Problem("hosts", rule, "a kernel with veth, bridge and sch_tbf"))


def _remove(prefix: str) -> None:
    for namespace in tuple(_NAMED.glob(f"{prefix}-*")):
        with contextlib.suppress(MachineError):  # the others shall go all the same
            _run("ip", "netns", "delete", namespace.name)


def _sweep() -> None:
    """Remove what a killed process left."""
    for switch in tuple(_NAMED.glob(f"{_PREFIX}-*-switch")):
        name = switch.name.removesuffix("-switch")
        owner = name.removeprefix(f"{_PREFIX}-").split("-")[0]
        if not Path(f"/proc/{owner}").exists():
            _remove(name)
