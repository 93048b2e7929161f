"""Models that are planned and priced, but do not run: which commands take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stretto.cli import main

Streams = pytest.CaptureFixture[str]


@pytest.mark.parametrize("words", [["train"], ["verify"]])
def test_what_does_not_run_is_refused_with_all_its_reasons(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "deepseek-v3"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    for what in ("a mixture of 256 experts", "latent attention", "multi-token prediction"):
        assert f"deepseek-v3 has {what}, which can be planned, but is not run yet" in said
    assert "→ run a dense model of the families gpt2, llama, " in said
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_a_model_that_does_not_run_cannot_write(
    tmp_path: Path, capsys: Streams
) -> None:
    config = {
        "model_type": "nemotron", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 20,
        "num_attention_heads": 2, "intermediate_size": 9, "max_position_embeddings": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["generate", str(tmp_path), "--prompt", "a"]) == 2
    assert "has weights of the family nemotron" in capsys.readouterr().err


def test_a_mixture_of_experts_can_be_shown(capsys: Streams) -> None:
    assert main(["show", "mixtral-8x7b", "dp=8", "tp=2", "pp=4", "batch.sequences=64"]) == 0
    out = capsys.readouterr().out
    assert "mixtral-8x7b: 46.7 G parameters, of which a token passes 12.9 G\n" in out
    assert "which can be planned, but is not run yet\n" in out
    assert "stage 3 of 4: " in out


def test_of_a_model_that_predicts_several_tokens_no_program_is_shown(capsys: Streams) -> None:
    assert main(["show", "deepseek-v3", "dp=8"]) == 0
    assert capsys.readouterr().out.endswith("predicts several tokens is not made yet\n")


def test_help_lists_every_preset_within_the_width_of_a_terminal(capsys: Streams) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["show", "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert "  nemotron-4-15b, nemotron-4-340b" in lines
