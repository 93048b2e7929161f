"""torchtitan: a configuration in Python for 0.3, and the TOML of 0.2 where that can do the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from stretto.emit.flavor import Flavor, flavor_of
from stretto.emit.job import Job
from stretto.emit.launch import Emitted, script, torchrun
from stretto.emit.limits import noted, refused, refused_model, which
from stretto.errors import PlanError, Problem
from stretto.model import Model

Tree = dict[str, dict[str, Any]]

WHO = "torchtitan"
ORDERS = (("pp", "dp", "cp", "tp"),)
SCHEDULES: Mapping[str, str] = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "Interleaved1F1B",
    "breadth-first": "LoopedBFS",
    "zb-v": "ZBVZeroBubble",
}
"""What torch.distributed.pipelining calls a schedule."""

_ABOUT = (
    "torchtitan 0.3: run on every node, in the root of its repository, with stretto_plan.py "
    "beside. For 0.2: -m torchtitan.train --job.config_file torchtitan-0.2.toml."
)


def emit(job: Job) -> Emitted:
    """Give the configuration that trains the plan with torchtitan.

    Raises:
        PlanError: All that torchtitan cannot do as the plan says.
    """
    problems = (
        *refused(job, WHO, orders=ORDERS, schedules=SCHEDULES),
        *refused_model(job.model, WHO, kinds=((True, "silu"),)),
        *_refused(job),
        *_refused_model(job.model),
    )
    if problems:
        raise PlanError(problems)
    flavor = flavor_of(job.model)
    older = _refused_by_older(job, flavor)
    notes = (*noted(job, WHO), *_notes(job, flavor), *older)
    options = ("--module", "stretto_plan", "--config", "plan")
    command = torchrun(job, ("-m", "torchtitan.train", *options), arguments=())
    lines = ['export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}"']
    start = script(about=_ABOUT, notes=notes, lines=lines, command=command)
    toml = () if older else (("torchtitan-0.2.toml", tomli_w.dumps(_toml_tree(job, flavor))),)
    files = (("torchtitan.sh", start), ("stretto_plan.py", _python(job, flavor)), *toml)
    return Emitted(files, notes)


def _refused(job: Job) -> tuple[Problem, ...]:
    plan, words, memory = job.plan, job.words, job.plan.memory
    rest, compiled, bubble = memory.optimizer_offload, plan.numerics.compile, _zero_bubble(job)
    return which(
        (bubble and compiled, "numerics.compile",
         "torch.compile does not go with torchtitan's zero-bubble schedule",
         "use compile = false, or another schedule"),
        (bubble and words.cp > 1, "mesh.cp",
         "torchtitan splits sequences in FlexAttention, which is compiled, and torch.compile does "
         "not go with its zero-bubble schedule", "use cp = 1, or another schedule"),
        (words.zero in (1, 2), "zero",
         f"torchtitan shards parameters too or nothing, but zero is {words.zero}",
         "use zero = 3; with regather = false they stay gathered meanwhile, as under ZeRO-2"),
        (words.zero == 0 and words.cp > 1, "zero",
         "torchtitan shards over context-parallel ranks, but zero is 0", "use zero = 3"),
        (words.zero == 3 and words.shard % words.cp > 0, "shard",
         f"torchtitan shards over all of cp, but {words.shard} % {words.cp} is not 0",
         "use a multiple of cp"),
        (words.ep > 1 and words.etp > 1, "etp",
         f"torchtitan leaves experts whole where ranks share them out, but etp is {words.etp}",
         "use etp = 1"),
        (job.model.tied and words.pp > 1, "mesh.pp",
         "torchtitan has no pipeline for tied embeddings", "use pp = 1"),
        (memory.recompute_layers is not None, "memory.recompute_layers",
         "torchtitan runs all layers again or none", "leave it out"),
        (memory.offload > 0, "memory.offload", "torchtitan keeps activations on the device",
         "use offload = 0"),
        (rest > 0 and (rest < 1 or words.zero != 3), "memory.optimizer_offload",
         "torchtitan offloads shards, and all of them", "use 0, or 1 with zero = 3"),
        (plan.communication.codec == "bfloat16", "communication.codec",
         "torchtitan reduces gradients in float32", "use none"),
        (plan.communication.tensor_overlap and not (compiled and words.tp > 1),
         "communication.tensor_overlap", "it is torch.compile that overlaps tp in torchtitan",
         "use tp > 1 and compile = true"),
    )  # fmt: skip


def _zero_bubble(job: Job) -> bool:
    return job.plan.pipeline.schedule == "zb-v" and job.words.pp > 1


def _refused_model(model: Model) -> tuple[Problem, ...]:
    other = "use --emit megatron"
    biases = model.qkv_bias or model.out_bias or model.ff_bias
    more = model.latent is not None or model.mtp_layers > 0 or model.shared_ff > 0
    return which(
        (model.norm != "rms" or biases or model.rope is None, "model",
         "torchtitan's Llama 3 and Qwen 3 have RMSNorm, rotary positions and no biases", other),
        (model.experts > 0 and not model.qk_norm, "model.experts",
         "torchtitan has experts in Qwen 3, whose heads are normalised, and not in Llama 3", other),
        (more or model.window > 0 or len(model.dense_layers) > 0, "model",
         "torchtitan's Llama 3 and Qwen 3 have no window, latent attention, shared experts, "
         "dense layers among experts, or multi-token prediction", other),
    )  # fmt: skip


def _refused_by_older(job: Job, flavor: Flavor) -> tuple[Problem, ...]:
    """Give what torchtitan 0.2 cannot do as the plan says, though 0.3 can."""
    words, newer = job.words, "use torchtitan 0.3"
    alone = words.dp in (1, job.world)
    return which(
        (words.zero == 0 and not alone, "zero",
         "torchtitan 0.2 replicates over data-parallel ranks alone or not at all", newer),
        (words.tp > 1 and not words.sequence, "sequence",
         "torchtitan 0.2 always splits activations over tp", newer),
        (flavor.module == "qwen3" and words.pp > 1, "mesh.pp",
         "torchtitan 0.2 has no pipeline for Qwen 3", newer),
        (job.plan.numerics.matrix == "float4", "numerics.matrix",
         "torchtitan 0.2 has no float4", newer),
    )  # fmt: skip


def _notes(job: Job, flavor: Flavor) -> tuple[Problem, ...]:
    plan, rope = job.plan, job.model.rope
    low = plan.numerics.matrix != "same" and not plan.numerics.compile
    scaling = rope.scaling if rope else "none"
    usual = {"llama3": "llama3", "qwen3": "none"}[flavor.module]
    return which(
        (not flavor.known, "model",
         f"torchtitan's {flavor.module} comes in no such size: {flavor.sizes}",
         f"add it as {flavor.name!r} to torchtitan/models/{flavor.module}/__init__.py"),
        (plan.memory.optimizer_offload > 0, "memory.optimizer_offload",
         "torchtitan moves parameters and gradients to the host too", "expect more traffic"),
        (low, "numerics.matrix", f"{plan.numerics.matrix} is slow here without torch.compile",
         "use compile = true"),
        (scaling != usual, "model.rope.scaling",
         f"rotary positions of torchtitan's {flavor.module} are scaled as {usual}, not {scaling}",
         "change it in the flavor"),
        (True, "communication.bucket", "FSDP moves a layer at a time, not buckets of "
         f"{plan.communication.bucket_bytes} B", "expect messages of a layer"),
    )  # fmt: skip


def _tree(job: Job, *, head: str) -> Tree:
    """Give the options that 0.2 and 0.3 share.

    Args:
        job: What is to be trained.
        head: What the output projection is called.
    """
    plan, recipe = job.plan, job.recipe
    batch, piped = plan.batch, job.words.pp > 1
    falls = {"decay_ratio": recipe.decay} if recipe.schedule == "wsd" else {}
    return {
        "training": {
            "local_batch_size": batch.micro_batch * (plan.micro_batches if piped else 1),
            "global_batch_size": batch.sequences,
            "seq_len": batch.seq,
            "steps": recipe.steps,
            "max_norm": recipe.clip or 1e9,  # it always clips
            "dtype": "float32",
            "mixed_precision_param": plan.numerics.dtype,
            "mixed_precision_reduce": "float32",
            "enable_cpu_offload": plan.memory.optimizer_offload > 0,
        },
        "parallelism": dict(_parallelism(job, head)),
        "compile": {"enable": plan.numerics.compile, "components": ["model", "loss"]},
        "lr_scheduler": {
            "warmup_steps": job.warmup_steps,
            "decay_type": "cosine" if recipe.schedule == "cosine" else "linear",
            "min_lr_factor": job.final_lr / recipe.lr,
            **falls,
        },
        "debug": {"seed": recipe.seed},
    }


def _parallelism(job: Job, head: str) -> Iterator[tuple[str, Any]]:
    plan, words = job.plan, job.words
    replicas = words.dp * words.cp // words.shard if words.zero else words.dp
    yield "data_parallel_replicate_degree", replicas
    yield "data_parallel_shard_degree", words.dp // replicas
    yield "fsdp_reshard_after_forward", "always" if plan.memory.regather else "never"
    yield "context_parallel_degree", words.cp
    yield "tensor_parallel_degree", words.tp
    yield "pipeline_parallel_degree", words.pp
    yield "expert_parallel_degree", words.ep
    if words.pp > 1:
        yield "pipeline_parallel_schedule", SCHEDULES[plan.pipeline.schedule]
        yield "pipeline_parallel_microbatch_size", plan.batch.micro_batch
        parts = [
            ["tok_embeddings"] * stage.embedding
            + [f"layers.{layer}" for layer in stage.layers]
            + ["norm", head] * stage.head
            for stage in job.stages
        ]
        yield "module_fqns_per_model_part", parts


def _toml_tree(job: Job, flavor: Flavor) -> dict[str, Any]:
    """Give the job configuration of 0.2."""
    recipe, words, tree = job.recipe, job.words, _tree(job, head="output")
    tree["parallelism"] |= {
        "enable_async_tensor_parallel": job.plan.communication.tensor_overlap,
        "expert_tensor_parallel_degree": words.etp if words.ep > 1 else 1,
    }
    float8 = job.plan.numerics.matrix == "float8"
    linear = {"float8": {"recipe_name": "rowwise", "filter_fqns": ["output"]}}
    return {
        "job": {"description": f"{job.model.name}, a plan of Stretto"},
        "model": {
            "name": flavor.module,
            "flavor": flavor.name,
            "hf_assets_path": flavor.assets,
            "converters": ["quantize.linear.float8"] * float8,
        },
        "optimizer": {
            "name": "AdamW",
            "lr": recipe.lr,
            "beta1": recipe.beta1,
            "beta2": recipe.beta2,
            "eps": recipe.eps,
            "weight_decay": recipe.weight_decay,
        },
        **tree,
        "activation_checkpoint": {
            "mode": job.plan.memory.recompute,
            "selective_ac_option": "op",
        },
        **({"quantize": {"linear": linear}} if float8 else {}),
    }


def _python(job: Job, flavor: Flavor) -> str:
    """Give the configuration function of 0.3."""
    plan, words, tree = job.plan, job.words, _tree(job, head="lm_head")
    tree["training"]["disable_cuda_graphs"] = words.pp > 1 or words.ep > 1
    tree["parallelism"]["enable_sequence_parallel"] = words.sequence
    tree["compile"]["enable_async_tensor_parallel"] = plan.communication.tensor_overlap
    converter, policy = _converter(job), {"selective": "SelectiveAC", "full": "FullAC"}
    again = policy.get(plan.memory.recompute)
    models, lines = f"torchtitan.models.{flavor.module}", dict(_lines(job, flavor))
    for section, options in tree.items():
        lines |= {f"{section}.{key}": repr(value) for key, value in options.items()}
    imports = [
        "from torchtitan.components.optimizer import default_adamw",
        f"from {models} import model_registry",
        f"from {models}.config_registry import {flavor.base}",
        "from torchtitan.trainer import Trainer",
    ]
    if converter:
        imports.append(f"from torchtitan.components.quantization import {converter[0]}")
    if again:
        imports.append(f"from torchtitan.distributed.activation_checkpoint import {again}")
    lines["activation_checkpoint"] = f"{again}.Config()" if again else "None"
    text = [
        f'"""{job.model.name}, a plan of Stretto, for torchtitan 0.3."""\n',
        *sorted(imports),
        "\n\ndef plan() -> Trainer.Config:",
        '    """Give the configuration: --module stretto_plan --config plan."""',
        f"    config = {flavor.base}()",
        *(f"    config.{name} = {value}" for name, value in lines.items()),
        "    return config\n",
    ]
    return "\n".join(text)


def _converter(job: Job) -> tuple[str, str] | None:
    """Give the class that replaces matrix products by ones of low precision, and its arguments."""
    compiled = f"model_compile_enabled={job.plan.numerics.compile}"
    match job.plan.numerics.matrix:
        case "same":
            return None
        case "float8":
            return "Float8LinearConverter", f'filter_fqns=["lm_head"], {compiled}'
        case "float4":
            return "NVFP4LinearConverter", f'fqns=["layers"], {compiled}'


def _lines(job: Job, flavor: Flavor) -> Iterator[tuple[str, str]]:
    """Give the attributes of 0.3 that are objects, and the Python that makes them."""
    recipe, converter = job.recipe, _converter(job)
    converters = f", converters=[{converter[0]}.Config({converter[1]})]" if converter else ""
    attention = ", attn_backend='varlen'" if _zero_bubble(job) else ""
    yield "model_spec", f"model_registry({flavor.name!r}{attention}{converters})"
    yield "hf_assets_path", repr(flavor.assets)
    yield (
        "optimizer",
        f"default_adamw(lr={recipe.lr!r}, betas=({recipe.beta1!r}, {recipe.beta2!r}), "
        f"eps={recipe.eps!r}, weight_decay={recipe.weight_decay!r})",
    )
