"""``stretto train``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stretto.cli.arguments import Parser
from stretto.cli.foretold import peak_flops_per_s, predicted_s
from stretto.cli.keys import every, sort
from stretto.cli.plans import in_words
from stretto.cli.request import Asked, Request, request
from stretto.cli.rundir import RunDirectory
from stretto.cli.say import table
from stretto.cli.texts import CACHE, Telling, tokens_of
from stretto.cli.voice import Voice
from stretto.data.prepared import Prepared
from stretto.data.tokens import TokenSet, unigram_loss
from stretto.errors import Problem, StrettoError
from stretto.presets import name_of
from stretto.report.quantities import step
from stretto.units import show_count

if TYPE_CHECKING:
    from stretto.runtime.environment import World
    from stretto.runtime.train import Job

_ABOUT = """\
Trains a language model. Without arguments: the shipped small model on the shipped text (the King
James Bible), on all cores of this machine, in a few minutes.

MODEL is a preset (stretto show --help lists them), a config.json of Hugging Face, or a directory
with one (default: the one that --plan names, else the small one that is shipped); its weights start
fresh, unless --from says where they are.

Under torchrun, or under Slurm's srun, the same command is one rank of a larger run.
"""

_EXAMPLES = """\
keys:
  dp= tp= pp=              ranks of the mesh: data, tensor and pipeline parallel
  zero= shard=             what data-parallel ranks shard (0 nothing, 1 optimizer, 2 gradients too,
                           3 parameters too), and over how many of them
  sequence=                whether activations are split over tp too (true)
  batch.seq=512, memory.recompute=full, numerics.dtype=bfloat16, …
                           any key of a plan; stretto show --toml prints them
  steps= lr= schedule= warmup= decay= final_lr= beta1= beta2= eps= weight_decay= clip= seed=
                           the recipe: AdamW; cosine, wsd or constant
  checkpoint_every= evaluate_every= record_every= keep= vocab= valid_fraction= mask_documents=
  field=                   the run; record_every=50 records the timeline of every 50th step

examples:
  stretto train
  stretto train tiny steps=50 lr=3e-3
  stretto train path/to/config.json --data texts/ more.jsonl.gz --nproc 8 tp=2 batch.sequences=64
  stretto train --from path/to/smollm2 --data notes.txt lr=1e-4 steps=200
  stretto train gpt2 --plan plan.toml --dry-run
  stretto train --resume runs/2026-05-01-120000-gpt2 --nproc 4 steps=2000
  torchrun --nproc-per-node 8 -m -- stretto train gpt2 dp=4 tp=2 --run runs/gpt2
"""


def run(arguments: Sequence[str]) -> int:
    """Train, or say what would be trained."""
    asked, options, problems = _read(arguments)
    wanted = request(asked, problems)
    leads = wanted.world is None or wanted.world.rank == 0
    with contextlib.ExitStack() as stack:
        log = wanted.run.log if leads and not options.dry_run else None
        say = Voice(stack, log, silent=not leads)
        say(_described(wanted))
        if options.dry_run:
            return _would(wanted, say)
        text = _prepared(wanted, options.cache, say)
        if leads:
            _keep(wanted, text)
            say.open()
        baseline = unigram_loss(text.train, text.valid)
        say(_text_in_words(wanted, text, baseline))
        predicted_s = _predicted(wanted, say) if leads else None
        try:
            stopped = _launch(wanted, text, predicted_s)
        except StrettoError as error:
            say.note("\n".join(table(error.problems)))
            say(_how_to_go_on(wanted, "ended by an error"))
            raise
        if stopped is not None:
            say(_how_to_go_on(wanted, f"stopped by {signal.Signals(stopped).name}"))
        elif leads:
            _finish(wanted, text.valid, baseline, say)
        if leads and options.trace is not None:
            _trace(wanted, options.trace, say)
    return 0 if stopped is None else 128 + stopped


def _read(arguments: Sequence[str]) -> tuple[Asked, argparse.Namespace, list[Problem]]:
    """Give what run is asked for, how it is to be started, and what is wrong with the words."""
    parser = _parser()
    options, pairs, problems = parser.read(arguments)
    data = tuple(Path(name) for name in options.data or ())
    problems += [
        Problem(name, "a second model", "name one; paths of text stand after --data")
        for name in options.words[1:]
    ]
    keys = sort(pairs, problems, kinds=("mesh", "recipe", "run", "plan"))
    if options.trace is not None and keys.run.get("record_every") == 0:
        rule = "record_every=0 records no step"
        problems.append(Problem("--trace", rule, "leave one of them out"))
    problems += _trace_problems(options.trace)
    asked = Asked(
        next(iter(options.words), None),
        data,
        options.plan,
        options.nproc,
        options.weights,
        options.resume,
        options.run,
        options.tokenizer,
        keys,
        options.cluster,
    )
    return asked, options, problems


def _trace_problems(out: Path | None) -> Iterator[Problem]:
    """Give what keeps the trace from being written, before the run."""
    if out is not None and not out.parent.is_dir():
        yield Problem("--trace", f"there is no directory {out.parent}", "make it first")
    elif out is not None and out != Path() and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        yield Problem("--trace", f"{out} cannot be written", "name another file")


def _parser() -> Parser:
    parser = Parser(
        "train",
        usage="[MODEL] [--data PATH …] [--plan FILE] [--nproc N] [--from DIR] [--resume RUN]\n"
        "                     [--run DIR] [--tokenizer FILE] [--cache DIR] [--cluster NAME|FILE]\n"
        "                     [--trace [FILE]] [--dry-run] [key=value …]",
        about=_ABOUT,
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="MODEL, key=value", help="the model, and keys: see below")
    add(
        "--data",
        nargs="+",
        action="extend",
        metavar="PATH",
        help=".txt, .jsonl (both also .gz, .xz) and .parquet files, directories of them, or one "
        "directory that stretto prepare has made",
    )
    add("--plan", type=Path, metavar="FILE", help="a plan in TOML; else a sensible one is made")
    add(
        "--nproc",
        type=_positive,
        metavar="N",
        help="ranks to start here (default: what the plan has, else one for each GPU or core)",
    )
    add(
        "--from",
        dest="weights",
        type=Path,
        metavar="DIR",
        help="weights to start from: a directory in Hugging Face format, or a run",
    )
    add(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run from its newest checkpoint, under the same plan or any other",
    )
    add("--run", type=Path, metavar="DIR", help="where to keep the run (default: runs/DATE-MODEL)")
    add(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="a tokenizer.json (default: that of the model; else one is trained on the text)",
    )
    add(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help=f"where tokens are kept (default: {CACHE})",
    )
    add(
        "--cluster",
        metavar="NAME",
        help="where it runs, to predict its steps: a preset or a file (default: this machine)",
    )
    add(
        "--trace",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="at the end, write the recorded steps for https://ui.perfetto.dev (RUN/trace.json)",
    )
    add("--dry-run", action="store_true", help="check everything, print the plan, and stop")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; write a whole number of 1 or more")
    return int(text)


_LONGEST_PATH = 4096  # bytes: PATH_MAX of Linux


# ── before ───────────────────────────────────────────────────────────────────────────────────────


def _described(wanted: Request) -> str:
    """Give what is about to be done."""
    start, recipe = wanted.start, wanted.start.recipe
    model, tokens = start.model, recipe.steps * start.plan.batch.sequences * start.plan.batch.seq
    weights = f"from {start.weights}" if start.weights else f"fresh, seed {recipe.seed}"
    if wanted.resume:
        weights = f"from the newest checkpoint of {wanted.run.path}"
    rows = {
        "model": f"{model.name or 'config.json'}: {show_count(model.parameter_count)} parameters, "
        f"{model.layers} layers × {model.embed}, vocabulary {model.vocab}",
        "weights": weights,
        "plan": in_words(start.plan),
        "recipe": f"{recipe.steps} steps, {show_count(tokens)} tokens; "
        f"learning rate {recipe.lr:g}, {recipe.schedule}",
        "text": ", ".join(str(path) for path in start.data),
        "run": str(wanted.run.path),
    }
    return "\n".join(f"{name:9}{text}" for name, text in rows.items())


def _would(wanted: Request, say: Callable[[str], None]) -> int:
    say("\n" + wanted.start.plan.to_toml(model=name_of(wanted.start.model)).rstrip())
    say("\nnothing was started: this was a dry run")
    return 0


def _prepared(wanted: Request, cache: Path, say: Callable[[str], None]) -> Prepared:
    """Give the tokens; every rank of a host waits until one has made them."""
    start = wanted.start
    telling = Telling() if wanted.world is None or wanted.world.rank == 0 else None
    found = tokens_of(
        start.data,
        cache,
        model=start.model,
        tokenizer=start.tokenizer,
        settings=start.settings,
        progress=telling,
    )
    if telling is not None:
        telling.done()
    for note in found.notes:
        say(f"note     {note}")
    return found


def _keep(wanted: Request, text: Prepared) -> None:
    wanted.run.write(wanted.start, command=sys.argv, cluster=wanted.cluster)
    wanted.run.keep_tokenizer(text.tokenizer_path)


def _text_in_words(wanted: Request, text: Prepared, baseline: float) -> str:
    start = wanted.start
    seen = start.recipe.steps * start.plan.batch.sequences * start.plan.batch.seq
    return (
        f"tokens   {show_count(text.train.size)} to train on, {show_count(text.valid.size)} held "
        f"out; the run sees {seen / text.train.size:.2g} epochs\n"
        f"baseline a unigram model's held-out loss is {baseline:.3f} nats per token"
    )


# ── the ranks ────────────────────────────────────────────────────────────────────────────────────


def _predicted(wanted: Request, say: Callable[[str], None]) -> float | None:
    """Give the seconds that a step is predicted to take; None where nobody can say."""
    cluster = wanted.cluster
    if cluster is None:
        return None
    seconds = predicted_s(wanted.start, cluster)
    say(f"foretold {step(seconds)} a step on {cluster.name}\n")
    return seconds


def _launch(wanted: Request, text: Prepared, predicted_s: float | None) -> int | None:
    """Run the ranks; give the signal at which they stopped before the end."""
    from stretto.runtime.launch import launch
    from stretto.runtime.train import Job

    start, settings = wanted.start, wanted.start.settings
    steps = start.recipe.steps
    job = Job(
        model=start.model,
        plan=start.plan,
        recipe=start.recipe,
        train=text.train,
        valid=text.valid,
        checkpoints=wanted.run.checkpoints,
        checkpoint_every=every(settings.checkpoint_every, steps=steps),
        evaluate_every=every(settings.evaluate_every, steps=steps),
        weights=start.weights,
        resume=wanted.resume,
        mask_documents=settings.mask_documents,
        keep=settings.keep,
        home=wanted.run.path,
        record_every=settings.record_every,
        peak_flops_per_s=peak_flops_per_s(start, wanted.cluster) if wanted.cluster else None,
    )
    if start.weights is not None and not wanted.resume:
        from stretto.runtime.weights import check_weights

        check_weights(start.weights, start.model)
    return launch(lambda world: _work(job, wanted.run, world, predicted_s), nproc=wanted.nproc)


def _work(job: Job, run: RunDirectory, world: World, predicted_s: float | None) -> int | None:
    """Be a rank; the first one tells of the run."""
    from dataclasses import replace

    from stretto.cli.audience import Audience, logged
    from stretto.runtime.train import train

    home = RunDirectory(_agreed(run.path))
    job = replace(job, checkpoints=home.checkpoints, home=home.path)

    def note(problem: Problem) -> None:
        text = "\n".join(["note: the run goes on, but", *table([problem])])
        print(text, file=sys.stderr, flush=True)
        logged(home, text)

    if world.rank:
        return train(job, world, report=lambda _: None, note=note)
    with Audience(home, predicted_s=predicted_s, hints=job.record_every > 0) as report:
        return train(job, world, report=report, note=note)


def _agreed(path: Path) -> Path:
    """Give the path that rank 0 has: other clocks may have named the run otherwise."""
    import torch
    import torch.distributed as dist

    name = os.fsencode(path.resolve())
    frame = torch.tensor([*name, *bytes(_LONGEST_PATH - len(name))], dtype=torch.uint8)
    dist.broadcast(frame, src=0)
    return Path(os.fsdecode(bytes(frame.tolist()).rstrip(b"\0")))


# ── after ────────────────────────────────────────────────────────────────────────────────────────


def _how_to_go_on(wanted: Request, ended: str) -> str:
    newest = wanted.run.newest()
    if newest is None:
        return f"\n{ended} before there was a checkpoint"
    return (
        f"\n{ended} after saving {newest.name}; go on with:\n"
        f"  stretto train --resume {wanted.run.path}"
    )


def _trace(wanted: Request, file: Path, say: Voice) -> None:
    """Write what was recorded for Perfetto."""
    from stretto.cli.trace import written

    out = wanted.run.trace if file == Path() else file
    say(f"\n{written(wanted.run, wanted.start, out)}")


def _finish(wanted: Request, valid: TokenSet, baseline: float, say: Callable[[str], None]) -> None:
    """Write the model, say how good it is, and let it write."""
    from stretto.cli.pretrained import export, load
    from stretto.cli.samples import samples
    from stretto.report.curve import curve
    from stretto.report.metrics import read

    run = wanted.run
    records = read(run.metrics)
    held = [r["valid_loss"] for r in records if "valid_loss" in r]
    if held:
        say(f"\nheld-out loss {held[-1]:.3f} nats per token; a unigram model's is {baseline:.3f}")
    run.curve.write_text(
        curve(records, baseline=baseline, title=f"{wanted.start.model.name} · {run.path.name}")
    )
    say(f"the curve of the run is in {run.curve}")
    if run.model.exists():  # of an earlier end of the run
        shutil.rmtree(run.model)
    export(run, run.model)
    say(f"the model is in {run.model}\n")
    for sample in samples(load(run.model), valid, seed=wanted.start.recipe.seed):
        say(sample)
    say(f'\nlet it write more:  stretto generate {run.path} --prompt "…"')
