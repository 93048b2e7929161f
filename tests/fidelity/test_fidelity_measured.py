"""Throughput in a row's own unit, by its own convention: worked out by hand.

24 layers of width 2,048, feed-forward of four times that, vocabulary 51,200, 2,048 positions:
12 h² = 50,331,648 matrix elements a layer, 104,857,600 of the head; 6 FLOPs a token for each.
Attention over all positions is 12 · layers · h · s FLOPs a token.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.fidelity.cases import made

from stretto.fidelity.predict import predict

LAYERS = 6 * 24 * 50_331_648
HEAD = 6 * 104_857_600
FULL = 12 * 24 * 2048 * 2048


def only(**values: Any) -> dict[str, Any]:
    return {"step_time_s": None, "attn_flops": "full", "flops_def": "model"} | values


@pytest.mark.parametrize(
    ("convention", "flops"),
    [
        ({}, LAYERS + HEAD + FULL),
        ({"attn_flops": "causal_half"}, LAYERS + HEAD + FULL / 2),
        ({"recompute": "full"}, LAYERS + HEAD + FULL),
        ({"flops_def": "hardware", "recompute": "full"}, (LAYERS + FULL) * 4 / 3 + HEAD),
        ({"flops_def": "hardware", "recompute": "selective"}, LAYERS + HEAD + FULL * 4 / 3),
        ({"flops_def": "hardware"}, LAYERS + HEAD + FULL),
    ],
)
def test_printed_tflops_are_tokens_by_the_stated_convention(
    convention: dict[str, Any], flops: float
) -> None:
    one = made(**only(tflops_per_gpu=100, **convention))
    assert (one.measured.value, one.measured.unit) == (100, "TFLOP/s")
    assert one.tokens_per_s == pytest.approx(100e12 / flops)


def test_recomputed_hardware_flops_are_those_of_the_published_formula() -> None:
    # 96 B s l h² (1 + s/6h + V/16lh) for a step (Narayanan et al., 2021)
    flops = 96 * 24 * 2048**2 * (1 + 2048 / (6 * 2048) + 51200 / (16 * 24 * 2048))
    one = made(**only(tflops_per_gpu=100, flops_def="hardware", recompute="full"))
    assert one.tokens_per_s == pytest.approx(100e12 / flops)


def test_mfu_is_of_the_model_and_hfu_of_the_device_whatever_flops_def_says() -> None:
    mfu = made(**only(mfu=0.5, peak_tflops_assumed=312, flops_def="hardware", recompute="full"))
    assert mfu.tokens_per_s == pytest.approx(156e12 / (LAYERS + HEAD + FULL))
    hfu = made(**only(hfu=0.5, peak_tflops_assumed=312, recompute="full"))
    assert hfu.tokens_per_s == pytest.approx(156e12 / ((LAYERS + FULL) * 4 / 3 + HEAD))


def test_a_peak_that_is_not_stated_is_the_data_sheets_and_listed() -> None:
    one = made(**only(mfu=0.5))
    assert one.measured.value == pytest.approx(156)
    assert one.assumed == ("peak_tflops_assumed = 312.0",)


def test_mfu_in_percent_is_told() -> None:
    one = made(**only(mfu=50, peak_tflops_assumed=312))
    assert one.measured.value == pytest.approx(156)
    assert one.assumed == ("mfu = 50 %",)


def test_attention_is_counted_in_full_unless_a_row_says_otherwise() -> None:
    one = made(**only(tflops_per_gpu=100, attn_flops=None))
    assert one.assumed == ("attn_flops = full",)


@pytest.mark.parametrize(
    "values",
    [
        {"derived": {"tokens_per_s_per_gpu": 8192}, "step_time_s": 9.0, "tflops_per_gpu": 1},
        {"tokens_per_s_per_gpu": 8192, "tokens_per_s": 1},
        {"tokens_per_s": 8192 * 16},
        {"samples_per_s_per_gpu": 4},
        {"samples_per_s": 64},
        {"step_time_s": 1.0, "tflops_per_gpu": 1},
    ],
)
def test_tokens_come_before_flops_and_derived_ones_first(values: dict[str, Any]) -> None:
    one = made(**only(**values))
    assert one.tokens_per_s == pytest.approx(8192)
    assert one.measured.unit == "tokens/s"


def test_a_row_that_measured_no_throughput_has_no_error() -> None:
    one = made(**only(peak_mem_gb=40))
    assert one.measured.value is None
    (guess,) = predict([one])
    assert guess.error is None and guess.throughput > 0
    assert guess.row.peak_bytes == 40e9


def test_the_unit_changes_both_sides_and_no_error() -> None:
    flops = LAYERS + HEAD + FULL
    tokens = made(**only(tokens_per_s_per_gpu=100e12 / flops))
    tflops = made(**only(tflops_per_gpu=100))
    a, b = predict([tokens, tflops])
    assert b.throughput == pytest.approx(a.throughput * flops / 1e12)
    assert b.error == pytest.approx(a.error)


def test_one_layers_time_is_compared_with_one_layers() -> None:
    one = made(layers=1, gbs=None, measurement_kind="per_layer_fwd_bwd", step_time_s=0.01, dp=8)
    assert one.measured.unit == "tokens/s of a layer"
    assert one.measured.value == pytest.approx(2 * 2048 / 0.01 / 2)  # two devices share it
    assert one.tokens_per_s is None
    (guess,) = predict([one])
    assert guess.throughput > predict([made(layers=1)])[0].throughput  # no embedding, no head


def test_a_peak_is_compared_with_what_it_counts() -> None:
    kinds = ("nvidia-smi", "torch max reserved", "torch max allocated")
    device, reserved, allocated = predict([made(peak_mem_gb=40, mem_kind=k) for k in kinds])
    assert device.peak_bytes > reserved.peak_bytes > allocated.peak_bytes
    assert device.fits == reserved.fits == allocated.fits
