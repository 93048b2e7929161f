"""The command ``stretto``: what is asked for, what is wrong with it, and how it ends.

Nothing is imported before it is needed: help and errors come without torch.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from stretto.cli.arguments import Parser
from stretto.cli.say import complain
from stretto.errors import InputError, Problem, StrettoError

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train a model, or go on with a run",
        "generate": "let a model write",
        "verify": "prove that a plan computes what one rank does",
        "plan": "find the best plan for a model on a cluster, and say what it takes",
        "show": "check a plan and draw its schedule and program",
        "simulate": "play a step of a plan, with what is slow or breaks",
        "forecast": "say when a training will be done, with failures and all",
        "report": "write a page that shows a run or a plan, in one file",
        "ui": "serve the pages of runs, live, on this machine",
        "trace": "show when each rank did what in a run, in words and for Perfetto",
        "export": "write a run's model in Hugging Face format",
        "prepare": "turn text into tokens ahead of training",
        "probe": "measure this machine or cluster, for plans to be made with",
        "calibrate": "fit a cluster's constants to what a run recorded",
        "validate": "predict published measurements, and say how far off it is",
    }
)
"""Every command and what it does. Each is a module of this package with a function `run`."""

_ABOUT = """\
Stretto trains large transformers on any set of devices, from two CPU cores up: a model, a plan and
text become one program, and every rank runs it.

commands:
{commands}

examples:
  stretto plan llama-3-70b --cluster h100x64       what to run there, how fast, at what cost
  stretto train                                    the shipped model on the shipped text, here
  stretto train gpt2 --data my-texts/ dp=2 tp=2    another model, text and mesh
  stretto train --resume runs/2026-05-01-1200-stretto-1m
  stretto generate runs/2026-05-01-1200-stretto-1m --prompt "In the beginning"
  stretto verify plan.toml                         does this plan compute what one rank does?

exit status: 0 done; 2 what was asked for cannot be, or the machine refused; 3 a rank failed;
1 plans differ (verify) or a bug; 130 and 143 after Ctrl-C and SIGTERM, with a checkpoint.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows ``stretto`` on the command line; None to take it from there.

    Returns:
        The exit status: 0; that of a `StrettoError`; 128 and its number after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _command(words)(words[1:])
    except StrettoError as error:
        complain(error, rank=_neighbour(os.environ))
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever reads has seen enough; Python must not try to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = os.path.basename(os.fsdecode(error.filename))
        rule = f"is longer than a name on this machine can be: {len(name):,} letters"
        remedy = "name a preset, or a file that there is"
        complain(InputError(Problem(f"{name:.40}…", rule, remedy)))
        return InputError.exit_code


def _neighbour(variables: Mapping[str, str]) -> int | None:
    """Give this process's rank on its host if others were started before it, who say the same."""
    local = variables.get("LOCAL_RANK", variables.get("SLURM_LOCALID", "0"))
    return int(local) if local.isdigit() and int(local) else None


def _command(words: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """Give the function that runs what `words` name, or that prints help or the version.

    Raises:
        InputError: There is no such command.
    """
    if words and words[0] in COMMANDS:
        command: Callable[[Sequence[str]], int] = importlib.import_module(
            f"stretto.cli.{words[0]}"
        ).run
        return command
    if words and words[0] == "--version":
        return _version
    if not words or words[0] in ("--help", "-h", "help"):
        return _help
    near = Parser.suggest(words[0], COMMANDS)
    remedy = f"{near}choose from {', '.join(COMMANDS)}"
    raise InputError(Problem(words[0], "there is no such command", remedy))


def _help(_: Sequence[str]) -> int:
    commands = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
    print("usage: stretto COMMAND …       stretto COMMAND --help tells more\n")
    print(_ABOUT.format(commands=commands), end="")
    return 0


def _version(_: Sequence[str]) -> int:
    from importlib.metadata import version

    print(f"stretto {version('stretto')}")
    return 0
