"""What a row states, what is assumed where it is silent, and what is wrong with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fidelity.cases import PLAIN, changed, made

from stretto.cost import PRECISIONS, SCHEDULES
from stretto.errors import InputError
from stretto.fidelity.fields import NEEDED, NUMBER, TEXT, WHOLE
from stretto.fidelity.predict import predict
from stretto.fidelity.rows import read, row, sift

# ── laws ─────────────────────────────────────────────────────────────────────────────────────────

_JUNK = st.sampled_from([None, 0, -1, 3, "4", "auto", "", 1.5, True, [], {}, 1e30, math.nan])


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from((*WHOLE, *NUMBER, *TEXT)), _JUNK, max_size=6),
    st.sets(st.sampled_from(sorted(set(PLAIN) - set(NEEDED))), max_size=12),
)
def test_any_row_is_predicted_with_finite_numbers_or_refused_with_a_reason(
    junk: dict[str, Any], missing: set[str]
) -> None:
    tree = {key: value for key, value in (PLAIN | junk).items() if key not in missing}
    try:
        one = row(tree)
    except InputError:
        return
    (guess,) = predict([one])
    assert math.isfinite(guess.throughput) and guess.throughput > 0
    assert math.isfinite(guess.peak_bytes) and guess.peak_bytes > 0
    json.dumps(guess.tree(), allow_nan=False)


@given(st.sampled_from(sorted(set(PLAIN) - set(NEEDED))))
def test_a_row_with_one_thing_less_is_still_predicted(name: str) -> None:
    assert predict([made(**{name: None})])[0].throughput > 0


def test_every_row_is_predicted_alike_alone_and_beside_others() -> None:
    rows = [made(mbs=m, tp=t, dp=16 // t, recompute=r) for m, t, r in
            ((1, 1, "none"), (2, 4, "full"), (4, 8, "selective"))]  # fmt: skip
    together = predict(rows)
    alone = [predict([one])[0] for one in rows]
    assert [p.throughput for p in together] == [p.throughput for p in alone]
    assert [p.peak_bytes for p in together] == [p.peak_bytes for p in alone]


# ── what a row states ────────────────────────────────────────────────────────────────────────────


def test_a_row_that_leaves_nothing_open_assumes_nothing() -> None:
    one = made()
    assert one.assumed == ()
    assert one.tokens_per_s == 64 * 2048 / 16
    c = one.pricing.choice
    assert (c.tp, c.dp, c.micro_batch, c.micro_batches, c.zero) == (2, 8, 2, 4, 1)


@pytest.mark.parametrize(
    ("missing", "assumed"),
    [
        ("vocab", "vocab = 51200"),
        ("ffn", "ffn = 8192"),
        ("kv_heads", "kv_heads = 16"),
        ("heads", "heads = 16"),
        ("head_dim", "head_dim = 128"),
        ("tied_embeddings", "tied_embeddings = False"),
        ("mbs", "mbs = 1"),
        ("cp", "cp = 1"),
        ("dp", "dp = 8"),
        ("dp_sharding", "dp_sharding = zero1"),
        ("precision", "precision = bf16"),
        ("sequence_parallel", "sequence_parallel = True"),
        ("accel_mem_gb", None),
        ("gpus_per_node", "gpus_per_node = 8"),
        ("inter_node_gbps_per_gpu", "inter_node_gbps_per_gpu = 200"),
    ],
)
def test_every_default_that_is_taken_is_listed(missing: str, assumed: str | None) -> None:
    listed = made(**{missing: None}).assumed
    assert listed == ((assumed,) if assumed else ())


def test_without_a_batch_accumulation_is_assumed() -> None:
    assert made(gbs=None).assumed == ("grad_accum = 1",)
    assert made(gbs=None, pp=2, dp=4).assumed == ("grad_accum = 8",)


def test_where_the_layout_is_open_the_fastest_that_fits_is_taken_and_that_is_listed() -> None:
    large = {"layers": 48, "hidden": 8192, "heads": 64, "kv_heads": 64, "ffn": 32768, "n_gpus": 64}
    one = made(**large, tp=None, pp=None, dp=None)
    assert any("the fastest that fits" in text for text in one.assumed)
    assert predict([one])[0].fits
    c = one.pricing.choice
    assert c.tp * c.pp * c.dp == 64
    assert c.tp * c.pp > 1  # 39 B parameters and their state do not fit on one device


def test_a_stated_extent_stays_while_the_other_is_chosen() -> None:
    assert made(tp=None, dp=None).pricing.choice.pp == 1
    assert made(pp=None, dp=None).pricing.choice.tp == 2


def test_parameters_sharded_and_no_layout_named_mean_data_parallelism_alone() -> None:
    one = made(tp=None, pp=None, dp=None, dp_sharding="fsdp")
    assert (one.pricing.choice.dp, one.pricing.choice.zero) == (16, 3)


@pytest.mark.parametrize(
    ("text", "zero"),
    [
        ("none", 0), ("none (pure DP)", 0), ("zero1", 1), ("ZeRO-2", 2), ("zero stage 3", 3),
        ("zero1 (distributed optimizer)", 1), ("distributed optimizer", 1), ("fsdp2_full_shard", 3),
        ("HSDP", 3), ("fsdp_shard_grad_op", 3), ("zero0", 0), ("fsdp (zero2)", 2),
    ],
)  # fmt: skip
def test_words_for_sharding(text: str, zero: int) -> None:
    assert made(dp_sharding=text).pricing.choice.zero == zero


def test_sharding_inside_groups_cuts_a_tensor_over_so_many() -> None:
    c = made(dp_sharding="zero1 inside groups of 4").pricing.choice
    assert (c.zero, c.shard) == (1, 4)


def test_only_shard_grad_op_keeps_gathered_parameters_for_the_backward_pass() -> None:
    assert made(dp_sharding="fsdp_shard_grad_op").pricing.choice.regather == 0
    assert made(dp_sharding="fsdp_full_shard").pricing.choice.regather == 1


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("none", (0, 0, 0)), ("full_per_block", (1, 1, 1)), ("Full", (1, 1, 1)), (True, (1, 1, 1)),
        ("selective", (1, 0, 0)), ("selective_attention", (1, 0, 0)), (False, (0, 0, 0)),
        ("selective (every other layer)", (0.5, 0.5, 0.5)), ("selective []", (0, 0, 0)),
    ],
)  # fmt: skip
def test_words_for_recomputation(text: Any, again: tuple[float, ...]) -> None:
    c = made(recompute=text).pricing.choice
    assert (c.again_core, c.again_matrix, c.again_pointwise) == again


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bf16", "bfloat16"), ("fp16", "bfloat16"), ("amp_bf16", "bfloat16"), ("fp32", "float32"),
        ("tf32", "float32"), ("fp8 (current scaling)", "float8"), ("mxfp8", "float8"),
        ("int8", "float8"), ("nvfp4", "float4"), ("mixed", "bfloat16"),
    ],
)  # fmt: skip
def test_words_for_precision(text: str, name: str) -> None:
    one = made(precision=text)
    assert PRECISIONS[int(one.pricing.choice.precision)] == name
    assert bool(one.assumed) == (text == "mixed")


@pytest.mark.parametrize(
    ("text", "vpp", "name", "stages"),
    [
        ("1F1B", 1, "1f1b", 1), ("1F1B interleaved", 3, "interleaved", 3), ("ZB-1p", 1, "zb-1p", 1),
        ("ZB-2p", 1, "zb-2p", 1), ("ZB-V", None, "zb-v", 2), ("GPipe", 1, "gpipe", 1),
        ("breadth-first", 2, "breadth-first", 2), (None, 2, "interleaved", 2),
    ],
)  # fmt: skip
def test_words_for_the_schedule(text: str | None, vpp: int | None, name: str, stages: int) -> None:
    c = made(pp=4, dp=2, schedule=text, vpp=vpp).pricing.choice
    assert (SCHEDULES[int(c.schedule)], c.interleave) == (name, stages)


def test_a_batch_smaller_than_a_micro_batch_for_each_replica_makes_micro_batches_smaller() -> None:
    one = made(gbs=8, mbs=2)
    assert (one.pricing.choice.micro_batch, one.pricing.choice.micro_batches) == (1, 1)
    assert one.assumed == ("mbs = 1, as gbs is 8 for 8 replicas",)


def test_replicas_that_do_not_make_up_the_devices_are_corrected() -> None:
    one = made(dp=4)
    assert one.pricing.choice.dp == 8
    assert one.assumed == ("dp = 8, not 4: n_gpus is 16",)


def test_a_value_of_the_wrong_kind_is_left_out_and_that_is_listed() -> None:
    one = made(cp="auto", vocab=-3)
    assert one.assumed[:2] == (
        "vocab left out: -3 is no whole number above 0",
        "cp left out: 'auto' is no whole number above 0",
    )


def test_a_number_in_quotes_is_a_number() -> None:
    assert made(tp="2", gbs="64").assumed == ()


def test_latent_attention_and_multi_token_prediction_are_read_from_words() -> None:
    s = made(
        layers=61, n_experts=256, top_k=8, moe_ffn=2048, arch_family="moe",
        model_extra="MLA (q_lora 1536, kv_lora 512, rope 64, v 128); 3 dense layers; MTP 1 layer",
    ).pricing.shape  # fmt: skip
    assert (s.q_rank, s.kv_rank, s.rope_dim, s.head_dim) == (1536, 512, 64, 192)
    assert (s.layers, s.expert_layers, s.heads_out) == (62, 59, 2)


def test_a_model_of_experts_that_does_not_say_how_many_is_taken_as_dense() -> None:
    one = made(arch_family="moe")
    assert one.pricing.shape.experts == 0
    assert one.assumed == ("arch_family = dense, as n_experts is not stated",)


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_row_must_state_is_told_by_name(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: is None; a row must state it$"):
        row(changed(**{name: None}))


def test_all_that_is_missing_is_told_together() -> None:
    with pytest.raises(InputError) as caught:
        row({"hardware": "A100", "layers": "many"})
    assert [p.field for p in caught.value.problems] == ["layers", "hidden", "seq_len", "n_gpus"]


def test_a_plan_of_more_devices_than_there_are_is_told() -> None:
    with pytest.raises(InputError, match="tp × pp × cp is 32, but n_gpus is 16; state 32 or more"):
        row(changed(tp=8, pp=4))


def written(path: Path, *lines: Any) -> Path:
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(text), "utf-8")
    return path


def test_good_rows_of_a_file_are_given_beside_what_is_wrong_with_others(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", changed(), "{", "", "[1]", changed(layers=None))
    rows, problems = sift(path)
    assert len(rows) == 1
    assert [p.field for p in problems] == [f"{path}:2", f"{path}:4", f"{path}:5: layers"]
    assert [p.rule.split(":")[0] for p in problems] == [
        "is not JSON", "is JSON, but a list", "is None",
    ]  # fmt: skip


def test_reading_strictly_raises_what_is_wrong_with_any_row(tmp_path: Path) -> None:
    assert len(read(written(tmp_path / "good.jsonl", changed(), changed()))) == 2
    with pytest.raises(InputError, match=r"bad.jsonl:2: is not JSON"):
        read(written(tmp_path / "bad.jsonl", changed(), "{"))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda p: p, "cannot be read: No such file or directory"),
        (lambda p: p.parent, "cannot be read: Is a directory"),
        (lambda p: p.write_bytes(b"\xff\xfe") and p, "is not UTF-8"),
        (lambda p: written(p, "", " "), "has no rows"),
    ],
)
def test_a_file_without_rows_is_told(tmp_path: Path, make: Any, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        sift(make(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5, "fast"])
def test_a_derived_throughput_that_is_none_is_left_out_and_listed(value: object) -> None:
    found = made(derived={"tokens_per_s_per_gpu": value})
    assert found.tokens_per_s == pytest.approx(64 * 2048 / 16)  # of step_time_s
    (note,) = found.assumed
    assert note == f"derived.tokens_per_s_per_gpu left out: {value!r} is no number above 0"


def test_a_framework_that_is_not_known_is_listed_with_what_it_is_taken_for() -> None:
    assert "software = modern, by the year" in made(framework="Abacus").assumed
    assert "software = eager, by the year" in made(framework=None, year=2023).assumed
    assert not [note for note in made().assumed if note.startswith("software")]
