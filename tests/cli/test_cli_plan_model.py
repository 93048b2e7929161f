"""A plan's file names the model that it was made for, so that nobody has to say it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stretto.cli import main
from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.huggingface import write_config
from stretto.plan import Plan
from stretto.presets import preset
from stretto.recipe import Recipe

PLAN = Plan.of(dp=2, zero=1)


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main([*words]) == status
    said = capsys.readouterr()
    return " ".join((said.err if status else said.out).split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with a model that is no preset."""
    (tmp_path / "mine").mkdir()
    own = json.dumps(write_config(preset("tiny")))
    (tmp_path / "mine" / "config.json").write_text(own)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_plan_saves_is_simulated_without_saying_the_model_again(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "plan", "gpt2", "--cluster", "h100x8", "runs=true", "--save", "plan.toml")
    said = told(capsys, "simulate", "plan.toml", "--cluster", "h100x8")
    assert said.startswith("gpt2 on ")
    assert "assumed" not in said


def test_a_model_that_is_named_goes_before_that_of_the_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plan.toml").write_text(PLAN.to_toml(model="gpt2"))
    assert "model gpt2:" in told(capsys, "show", "plan.toml")
    assert "model tiny:" in told(capsys, "show", "plan.toml", "tiny")


def test_a_config_is_found_from_the_file_and_not_from_where_one_stands(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "plans").mkdir()
    words = ("--cluster", "h100x2", "runs=true", "--save", "plans/mine.toml")
    told(capsys, "plan", "mine/config.json", *words)
    assert 'model = "../mine/config.json"' in (place / "plans" / "mine.toml").read_text()
    monkeypatch.chdir(place / "mine")
    assert "model mine:" in told(capsys, "show", "../plans/mine.toml")


def test_show_writes_the_model_that_was_named_and_no_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(capsys, "show", "gpt2", "dp=2", "--toml").startswith('model = "gpt2"')
    assert told(capsys, "show", "mine", "dp=2", "--toml").startswith('model = "mine"')
    assert told(capsys, "show", "dp=2", "--toml").startswith("[mesh]")
    Path("plan.toml").write_text(PLAN.to_toml(model="gpt2"))
    assert told(capsys, "show", "plan.toml", "--toml").startswith('model = "gpt2"')


def test_train_trains_the_model_of_its_plan(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plan.toml").write_text(PLAN.to_toml(model="tiny"))
    said = told(capsys, "train", "--plan", "plan.toml", "--nproc", "2", "--dry-run")
    assert "tiny:" in said and "stretto-1m" not in said
    said = told(capsys, "train", "gpt2", "--plan", "plan.toml", "--nproc", "2", "--dry-run")
    assert "gpt2:" in said


def test_a_model_that_is_no_name_or_is_not_there_is_told(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("plan.toml").write_text(PLAN.to_toml(model="gone/config.json"))
    assert "gone/config.json no such file" in told(capsys, "show", "plan.toml", status=2)
    for value, rule in (
        ("3", "is 3"),
        ('""', "is ''"),
        ('"gpt3"', "there is no preset 'gpt3' → did you mean gpt2?"),
        (f'"{"x" * 300}"', "… is longer than a name on this machine can be"),
    ):
        Path("plan.toml").write_text(f"model = {value}\n[mesh]\ndp = 2\n")
        said = told(capsys, "show", "plan.toml", status=2)
        assert rule in said and ("plan.toml: model" in said or "x" * 39 in said)


def test_the_plan_of_a_run_is_of_the_model_of_the_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = Start(preset("tiny"), PLAN, Recipe(), Settings(), ())
    RunDirectory(place / "first").write(start, command=[])
    for name in ("first", "first/plan.toml"):
        assert "model tiny:" in told(capsys, "show", name)
        dry = told(capsys, "train", "--plan", name, "--nproc", "2", "--dry-run")
        assert "tiny:" in dry and "stretto-1m" not in dry
    assert told(capsys, "show", "first", "--toml").startswith('model = "first/config.json"')


def test_a_directory_called_as_a_preset_is_is_not_taken_for_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine").rename(place / "gpt2")
    words = ("--cluster", "h100x2", "runs=true", "--save", "mine.toml")
    told(capsys, "plan", "./gpt2", *words)
    assert "36 k parameters" in told(capsys, "show", "mine.toml")


def test_a_path_is_found_through_a_link_to_the_directory_of_the_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "real" / "deep").mkdir(parents=True)
    (place / "link").symlink_to(place / "real" / "deep")
    words = ("--cluster", "h100x2", "runs=true", "--save", "link/mine.toml")
    told(capsys, "plan", "mine", *words)
    for file in ("link/mine.toml", "real/deep/mine.toml"):
        assert "36 k parameters" in told(capsys, "show", file)
