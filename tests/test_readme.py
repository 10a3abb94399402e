"""The README's commands, run as they stand."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

import riemannopt_dist
from riemannopt_dist.commands import app
from riemannopt_dist.run.config.loading import make_config
from riemannopt_dist.run.config.yaml_text import parse_yaml

README = Path("README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
# make builds its own environment, and jobs need a head node: test_job.py submits one.
ELSEWHERE = ("make", "ray", "kubectl")
CUT = {
    "grid": [{"placements": ["linear", "riemannopt"], "estimators": ["left"], "samples": [4]}],
    "reference": {"intervals": 16},
    "maps": {"images": 1, "cells": ["ig/*/4"]},
}
CUT_OPTIONS = {"audit": ["--intervals", "16"], "fit": ["--samples", "8"]}
READING = "ro.open_run"
"""What stands in a block that reads the run that the commands have made."""
FOLDER = "FOLDER"
"""What stands for the reader's own photos: a block with it takes hours, and is planned here instead."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(own_photos: bool = False) -> list[list[str]]:
    chosen = [block for block in blocks("console") if (FOLDER in block) == own_photos]
    return [shlex.split(line) for block in chosen for line in block.splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a photo and the repository's jobs in it; the demo's takes what a test may take."""
    shutil.copytree("jobs", tmp_path / "jobs")
    demo = tmp_path / "jobs/configs/demo.yaml"
    demo.write_text(json.dumps(parse_yaml(demo.read_text(encoding="utf-8")) | CUT), encoding="utf-8")
    Image.fromarray(data.coffee()).save(tmp_path / "photo.jpg")
    (tmp_path / "photos" / "espresso").mkdir(parents=True)
    shutil.copy(tmp_path / "photo.jpg", tmp_path / "photos" / "espresso")
    return tmp_path


def test_the_library_example_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, on smaller images."""
    code = "\n".join(block for block in blocks("python") if READING not in block).replace("224", "64")
    monkeypatch.chdir(place)
    exec(code, {})
    assert "torch.Size([2, 3, 64, 64])" in capsys.readouterr().out


def test_every_command_runs_one_after_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ray_here: None
) -> None:
    """In this process, which has imported torch already; test_commands.py starts some of their own."""
    monkeypatch.chdir(place)
    ran: list[str] = []
    for program, *arguments in commands():
        if program in ELSEWHERE:
            continue
        assert program == "riemannopt"
        ended = CliRunner().invoke(app, [*arguments, *CUT_OPTIONS.get(arguments[0], [])])
        assert ended.exit_code == 0, f"{program} {arguments}: {ended.output}"
        ran.append(arguments[0])
    assert ran == [
        *("evaluate", "summarize", "verify", "report", "export", "score", "audit"),
        *("fit", "explain", "explain", "evaluate", "status"),
    ]
    assert not (place / "runs/planned").exists()
    assert {path.name for path in (place / "runs/demo").iterdir()} >= {"summary.csv", "results", "report"}
    audited = pd.read_csv(place / "audit.csv")
    assert set(audited["maps"]) == {"ig/left/linear/4", "ig/left/riemannopt/4"}
    with Image.open(place / "explanation.png") as picture:
        assert min(picture.size) > 100
    (reading,) = (block for block in blocks("python") if READING in block)
    exec(reading, {"ro": riemannopt_dist})
    assert "Name: reference_error" in capsys.readouterr().out


def test_every_configuration_is_one() -> None:
    for block in blocks("yaml"):
        assert make_config(parse_yaml(block), "README").model.num_classes == 7
        assert len(block.splitlines()) <= 10


def test_every_command_for_own_photos_has_a_plan(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(101):
        (folder / f"{n}.jpg").touch()
    outputs = []
    for program, *arguments in commands(own_photos=True):
        assert program == "riemannopt"
        if arguments[0] in ("report", "compare"):
            assert {*arguments[1:]} <= {*outputs}
            continue
        outputs.append(arguments[arguments.index("--output") + 1])
        given = [str(folder) if word == FOLDER else word for word in arguments]
        planned = ["--output", str(tmp_path / "run"), "--dry-run", "--rate", "900"]
        ended = CliRunner().invoke(app, [*given, *planned])
        assert ended.exit_code == 0, ended.output
    assert len(outputs) == 3


def test_the_table_of_parts_has_them_all() -> None:
    told = {
        part
        for row in re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
        for part in re.findall("`(.*?)`", row)
    }
    parts = {f"{path.name}/" if path.is_dir() else path.name for path in Path("riemannopt_dist").iterdir()}
    assert {part for part in parts if not part.startswith("__") and part != "py.typed"} <= told


def test_the_commands_that_are_run_elsewhere_exist() -> None:
    elsewhere = [words for words in commands() if words[0] in ELSEWHERE]
    targets = {words[1] for words in elsewhere if words[0] == "make"}
    makefile = Path("Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    options = CliRunner().invoke(app, ["evaluate", "--help"], terminal_width=200).output
    submitted = [words for words in elsewhere if words[:3] == ["ray", "job", "submit"]]
    for job in submitted:
        assert Path(job[job.index("python") + 1]).is_file()
        assert Path(job[job.index("--config") + 1]).is_file()
        given = [word for word in job[job.index("python") :] if word.startswith("--")]
        assert all(f"{option} " in options for option in given)
    assert len(submitted) == 2
    others = [words for words in elsewhere if words[0] != "make" and words not in submitted]
    others.remove(["ray", "get-auth-token", "--generate"])
    assert all(Path(words[-1]).is_file() for words in others)
    assert {words[1] for words in others if words[0] == "ray"} == {"up", "dashboard", "down"}
    assert shutil.which("ray", path=str(BIN))
