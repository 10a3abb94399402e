"""The command line as a user meets it: help, errors of one line and exit code 2, the small commands."""

import json
import logging
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from riemannopt_dist import local
from riemannopt_dist.commands import app, console
from riemannopt_dist.quadrature.profile import Profile
from riemannopt_dist.reports.figures import picture, profile_figure, single_profiles_figure
from riemannopt_dist.reports.summary import csv_of
from riemannopt_dist.run import verification
from riemannopt_dist.run.config.yaml_text import parse_yaml
from riemannopt_dist.run.directory import RunDirectory
from riemannopt_dist.run.failure import Failure
from riemannopt_dist.run.ray import driver
from riemannopt_dist.run_data import data as run_data
from riemannopt_dist.storage.base import Storage
from riemannopt_dist.testing.small_world import make_pictures, small_fields
from riemannopt_dist.text import printable

CLI = [str(Path(sys.executable).with_name("riemannopt"))]
runner = CliRunner()


def test_help_names_every_command() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(
        name in shown.output
        for name in (
            *("demo", "fit", "evaluate", "status", "summarize", "verify", "report", "compare", "explain"),
            *("export", "score", "audit"),
        )
    )


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (
            "summarize",
            ["summary.csv", "summary.parquet", "comparisons.csv", "efficiency.csv", "tolerances.csv"],
        ),
        ("summarize", ["controls.csv"]),
        ("explain", ["by Integrated Gradients", "with the estimator rescale, intervals"]),
        ("explain", ["the one that suits the estimator, for most of them exact"]),
        ("evaluate", ["Exactly so many workers", "nodes are asked for", "https:// addresses (no folders"]),
    ],
)
def test_help_tells(command: str, named: list[str]) -> None:
    shown = runner.invoke(app, [command, "--help"], terminal_width=400).output
    assert all(text in " ".join(shown.replace("│", " ").split()) for text in named), shown


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    fields = small_fields(make_pictures(tmp_path / "pictures"), tmp_path / "run")
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["evaluate", "-c", "missing.yaml"], "missing.yaml"),
        (["evaluate", "-c", "CONFIG", "--rate", "9"], "goes with --dry-run only"),
        (["summarize", "missing-run"], "missing-run"),
        (["report", "missing-run"], "missing-run"),
        (["verify", "missing-run"], "missing-run"),
        (["status", "missing-run"], "missing-run"),
        (["export", "missing-run", "maps", "--to", "npy"], "missing-run"),
        (["score", "missing-run", "--metrics", "insertion"], "missing-run"),
        (["audit", "missing", "--images", "demo:"], "maps: there is no missing"),
        (["audit", "missing", "--images", "demo:", "-o", "a.txt"], "ends in .parquet or .csv, got a.txt"),
        (
            ["audit", "missing", "--images", "demo:", "--explain", "loss"],
            "explain: expected one of probability",
        ),
        (["audit", "missing", "--images", "demo:", "--baseline", "grey"], "baseline: expected black, white"),
        (["explain", "missing.png"], "missing.png"),
        (["explain", "CONFIG"], "not an image"),
        (
            ["explain", "missing.png", "-o", "nodir/x.png"],
            "a file in a folder that is there, got nodir/x.png",
        ),
        (["explain", "missing.png", "-o", "."], "output: expected a file, got the folder ."),
        (
            ["explain", "missing.png", "-o", "x"],
            "ends in .png, .jpg, .jpeg, .svg, .pdf, .npy or .html, got x\n",
        ),
        (["explain", "missing.png", "-o", "x.bmp"], "or .html, got x.bmp"),
        (["explain", "missing.png", "-o", "x.png.gz"], "or .html, got x.png.gz"),
        (["explain", "missing.png", "-o", "png"], "or .html, got png"),
        (["explain", "missing.png", "-o", ".png"], "or .html, got .png"),
        (["fit", "-o", "p", "--images", "missing"], "a name that ends in .json, got p\n"),
        (["fit", "-o", "p.png", "--images", "missing"], "a name that ends in .json, got p.png"),
        (["fit", "-o", "nodir/p.json", "--images", "missing"], "a folder that is there, got nodir/p.json"),
        (["fit", "-o", ".", "--images", "missing"], "output: expected a file, got the folder ."),
        (["fit", "-o", "p.json", "--images", "missing"], "missing"),
        (["fit", "-o", "p.json", "--images", "demo:", "--model", "resnet_fifty"], "resnet_fifty"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    there = [str(config_file) if part == "CONFIG" else part for part in arguments]
    before = set(tmp_path.rglob("*"))
    ended = runner.invoke(app, there)
    assert ended.exit_code == 2
    assert named in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert set(tmp_path.rglob("*")) == before


def test_a_process_of_its_own_says_that_line_and_no_more(config_file: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    command = [*CLI, "evaluate", "-c", str(config_file), "--images", "missing"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: .*missing'.*\n", ended.stderr)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["status", "summarize", "verify", "report", "evaluate", "demo"])
@pytest.mark.parametrize("output", ["file", "file/run"])
def test_a_file_is_no_run_directory(config_file: Path, tmp_path: Path, command: str, output: str) -> None:
    (tmp_path / "file").touch()
    place = str(tmp_path / output)
    arguments = {
        "evaluate": ["-c", str(config_file), "--output", place, "--dry-run", "--rate", "1"],
        "demo": ["--output", place],
    }.get(command, [place])
    ended = runner.invoke(app, [command, *arguments])
    assert ended.stderr == f"error: {tmp_path}/file: is a file, expected a folder\n"
    assert ended.exit_code == 2


@pytest.mark.parametrize("command", ["evaluate", "dry run", "fit", "explain"])
def test_a_model_that_cannot_be_explained_is_one_line_before_ray_starts(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(driver, "ray_session", lambda: pytest.fail("Ray was started"))
    fields = parse_yaml(config_file.read_text())
    config_file.write_text(json.dumps({**fields, "model": {"name": "tests.unsound:dictionary"}}))
    before = set(tmp_path.rglob("*"))
    model = ["--model", "tests.unsound:dictionary"]
    arguments = {
        "evaluate": ["evaluate", "-c", str(config_file)],
        "dry run": ["evaluate", "-c", str(config_file), "--dry-run", "--rate", "1"],
        "fit": ["fit", "-o", str(tmp_path / "p.json"), "--images", str(tmp_path / "pictures"), *model],
        "explain": ["explain", str(tmp_path / "pictures/p00.png"), "-o", str(tmp_path / "out.png"), *model],
    }[command]
    ended = runner.invoke(app, arguments)
    assert re.fullmatch(
        r"error: model: expected logits, .*return out\['logits'\], or give output_key: logits\n", ended.stderr
    )
    assert ended.exit_code == 2
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["fit", "explain"])
def test_a_map_that_is_not_finite_is_no_result(tmp_path: Path, command: str) -> None:
    folder = make_pictures(tmp_path / "pictures", 1)
    output, arguments = {
        "fit": (tmp_path / "p.json", ["--images", str(folder), "--samples", "4"]),
        "explain": (tmp_path / "p.png", [str(folder / "p00.png")]),
    }[command]
    arguments = [*arguments, "-o", str(output)]
    ended = runner.invoke(app, [command, *arguments, "--model", "tests.unsound:standardised"])
    assert re.fullmatch(r"error: .*p00.png: .* not finite.*\n", ended.stderr)
    assert ended.exit_code == 2
    assert not output.exists()


@pytest.mark.parametrize("command", ["summarize", "report"])
def test_other_tables_are_no_results(tmp_path: Path, command: str) -> None:
    Storage(tmp_path).write_table("results/shard-00000.parquet", pa.table({"x": [1]}))
    ended = runner.invoke(app, [command, str(tmp_path)])
    assert ended.exit_code == 2
    named = f"{tmp_path}/results/shard-00000.parquet: not that of a run (expected a column image_id)"
    assert ended.stderr == f"error: {named}\n"


@pytest.mark.parametrize("command", ["fit", "explain", "report", "evaluate"])
def test_only_a_run_goes_on_after_an_interruption(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "fit_profile", interrupted)
    monkeypatch.setattr(local, "explain", interrupted)
    monkeypatch.setattr(run_data, "results_so_far", interrupted)
    monkeypatch.setattr(driver, "evaluate", interrupted)
    monkeypatch.setattr(driver, "ray_session", nullcontext)
    arguments = {
        "fit": ["-o", str(tmp_path / "p.json"), "--images", "demo:"],
        "explain": ["a.png", "-o", str(tmp_path / "a.png")],
        "report": [str(tmp_path)],
        "evaluate": ["-c", str(config_file)],
    }[command]
    ended = runner.invoke(app, [command, *arguments])
    goes_on = "; the same command goes on from here" if command == "evaluate" else ""
    assert (ended.exit_code, ended.stderr) == (130, f"interrupted{goes_on}\n")


def test_where_every_image_failed_the_failures_are_told_first(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory(Storage(tmp_path / "run"))
    directory.write_failures([Failure("results", "a.png", "killed", 3)])
    monkeypatch.setattr(driver, "evaluate", lambda config, finish: finish(directory))
    monkeypatch.setattr(driver, "ray_session", nullcontext)
    ended = runner.invoke(app, ["evaluate", "-c", str(config_file)])
    told, error = ended.output.splitlines()
    assert told == f"1 image(s) given up on: see {tmp_path}/run/failures.parquet"
    assert error.startswith("error: ")
    assert "no results in it" in error
    assert ended.exit_code == 2


def test_a_run_that_gave_up_on_too_much_is_no_success(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of the images of a stage, one in a hundred by default, whatever it was that failed."""
    directory = RunDirectory(Storage(tmp_path / "run"))
    row = {"uri": "/x", "label": None, "prediction": 0, "probability": 1.0, "error": None}
    ids = [f"{n:03}" for n in range(200)]
    fit = json.loads(config_file.read_text())["fit"]["images"]
    directory.write_images(
        {**row, "image_id": name, "selected": True, "in_fit": n < fit} for n, name in enumerate(ids)
    )
    monkeypatch.setattr(driver, "evaluate", lambda config, finish: directory)
    for count, code in ((0, 0), (1, 0), (3, 1)):
        directory.write_failures(Failure("results", name, "killed", 3) for name in ids[-count:] if count)
        ended = runner.invoke(app, ["evaluate", "-c", str(config_file)])
        assert ended.exit_code == code, ended.output
    assert re.fullmatch(
        r"error: 1\.\d\d% of the images of a stage were given up on .*1.00%\)\n", ended.stderr
    )


@pytest.mark.parametrize("option", ["images", "labels", "output"])
def test_a_password_on_the_command_line_is_refused(
    config_file: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where everybody sees it: in the list of processes, and in Ray's table of jobs."""
    secrets = ["s3://key:swordfish@bucket/x?region=y", "https://host/x.tar?token=swordfish"]
    for secret in secrets:
        ended = runner.invoke(app, ["evaluate", "-c", str(config_file), f"--{option}", secret])
        assert ended.exit_code == 2
        assert f"error: {option}: a password, or a token after a ?, is seen" in ended.stderr
        assert f"RIEMANNOPT_{option.upper()}" in ended.stderr
        assert "swordfish" not in ended.output
    # Without one, and in the environment, it is an address like others: here one that is no place for a run.
    monkeypatch.setenv(f"RIEMANNOPT_{option.upper()}", "ftp://key:swordfish@host/x")
    ended = runner.invoke(app, ["evaluate", "-c", str(config_file), "--dry-run", "--rate", "1"])
    assert ended.exit_code == 2
    assert "is seen" not in ended.stderr
    assert "ftp://" in ended.stderr
    assert "swordfish" not in ended.output


ADDRESS = "s3://KEY:swordfish@bucket/x?region=y"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("images", ["audit", "maps", "--images", ADDRESS]),
        ("baseline", ["audit", "maps", "--images", "demo:", "--baseline", ADDRESS]),
        ("runs", ["compare", "run", ADDRESS]),
        ("output", ["demo", "-o", ADDRESS]),
        ("images", ["explain", "a.png", ADDRESS]),
        ("path", ["explain", "a.png", "--path", f"ig(baseline={ADDRESS})"]),
        ("profile", ["explain", "a.png", "--profile", ADDRESS]),
        ("run", ["export", ADDRESS, "out", "--to", "npy"]),
        ("destination", ["export", "run", ADDRESS, "--to", "npy"]),
        ("images", ["fit", "-o", "a.json", "--images", "https://host/x.tar?token=swordfish"]),
        ("model", ["fit", "-o", "a.json", "--images", "demo:", "--model", f"hf:{ADDRESS}"]),
        ("weights", ["fit", "-o", "a.json", "--images", "demo:", "--weights", ADDRESS]),
        ("run", ["report", ADDRESS]),
        ("run", ["score", ADDRESS, "--metrics", "insertion"]),
        ("images", ["score", "run", "--metrics", "insertion", "--images", ADDRESS]),
        ("run", ["status", ADDRESS]),
        ("run", ["summarize", ADDRESS]),
        ("run", ["verify", ADDRESS]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_no_command_takes_a_password_from_the_command_line(named: str, words: list[str]) -> None:
    ended = runner.invoke(app, words)
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"error: {named}: a password, or a token after a ?, is seen by all users")
    assert ended.stderr.count("\n") == 1
    assert "swordfish" not in ended.output


def test_names_that_a_terminal_or_a_table_would_obey_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2Jb\nc\u202e$x$ \\ [red]d"
    console.print_table(pd.DataFrame({"path": [name], "n": [0.5]}), "table")
    told = capsys.readouterr().out
    assert r"a\x1b[2Jb\nc\u202e$x$ \ [red]d" in told
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s: given up on", (name,), None)
    assert console.Printable("%(message)s").format(record) == printable(name) + ": given up on"
    image = {"image_id": f"{name}$\\frac{{", "alphas": [0.0, 1.0], "variation": [1.0]}
    for kind in ("png", "svg"):
        assert picture(single_profiles_figure("$x_{$", [image, image]), kind)
    marks = {"$\\frac{$": np.array([0.5])}
    assert picture(profile_figure("a $b_{$ c", np.array([0.0, 1.0]), np.array([1.0, 1.0]), marks))
    assert csv_of(pd.DataFrame({"path": ["=1+1", "-x", "ig"], "gap": [-1.0, 2.0, 3.0]})) == (
        "path,gap\n'=1+1,-1.0\n'-x,2.0\nig,3.0\n"
    )


def test_verify_prints_an_address_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "problems", lambda directory: [])
    address = "s3://KEY:swordfish@bucket/run?endpoint_override=127.0.0.1:1&scheme=http&region=x"
    monkeypatch.setenv("RIEMANNOPT_OUTPUT", address)
    assert runner.invoke(app, ["verify"]).output == "s3://bucket/run: every row is there once\n"


def test_fit_and_explain_go_together(tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", 3)
    model = ["--model", "riemannopt_dist.testing.small_world:tiny_classifier"]
    profile = tmp_path / "profile.json"
    fitted = runner.invoke(
        app, ["fit", "-o", str(profile), "--images", str(folder), "--samples", "16", *model]
    )
    assert fitted.exit_code == 0, fitted.output
    assert Profile.from_json(profile.read_text()).images == 3
    png = tmp_path / "out.png"
    shown = runner.invoke(
        app, ["explain", str(folder / "p00.png"), "-o", str(png), "--profile", str(profile), *model]
    )
    assert shown.exit_code == 0, shown.output
    assert "relative error" in shown.output
    with Image.open(png) as picture:
        assert np.asarray(picture).std() > 0
    secants = ["--estimator", "rescale", "--samples", "2", "--profile", str(profile)]
    complete = runner.invoke(app, ["explain", str(folder / "p00.png"), "-o", str(png), *secants, *model])
    assert "2 roughness rescale samples, relative error 0.000" in complete.output
    refused = runner.invoke(app, ["explain", str(folder / "p00.png"), "--target", "6", *model])
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("a.png", b"\x89PNG"),
        ("a.PNG", b"\x89PNG"),
        ("a.b.jpg", b"\xff\xd8\xff"),
        ("a.JPEG", b"\xff\xd8\xff"),
        ("a.svg", b"<?xml"),
        ("a.pdf", b"%PDF-"),
    ],
)
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, begin: bytes) -> None:
    image = make_pictures(tmp_path / "pictures", 1) / "p00.png"
    model = ["--model", "riemannopt_dist.testing.small_world:tiny_classifier", "--samples", "2"]
    shown = runner.invoke(app, ["explain", str(image), "-o", str(tmp_path / name), *model])
    assert shown.exit_code == 0, shown.output
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_what_can_be_refused_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from riemannopt_dist.commands import app; "
        "run = lambda *words: CliRunner().invoke(app, words).exit_code; "
        "assert run('--help') == 0; assert run('explain', 'a.png', '-o', 'x.bmp') == 2; "
        "assert run('fit', '-o', 'p.png', '--images', 'demo:') == 2; "
        "assert run('summarize', 'missing') == run('report', 'missing') == run('status', 'missing') == 2; "
        "assert not {'torch', 'ray'} & {*sys.modules}"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.long
def test_evaluate_prints_the_table_and_what_it_wrote(
    config_file: Path, tmp_path: Path, ray_here: None
) -> None:
    ended = runner.invoke(app, ["evaluate", "-c", str(config_file)])
    assert ended.exit_code == 0, ended.output
    assert "relative error" in ended.stdout
    assert (tmp_path / "run/summary.csv").exists()
    again = runner.invoke(app, ["summarize", str(tmp_path / "run")])
    assert again.exit_code == 0
    verified = runner.invoke(app, ["verify", str(tmp_path / "run")])
    assert (verified.exit_code, "once" in verified.output) == (0, True)
    drawn = runner.invoke(app, ["report", str(tmp_path / "run")])
    assert drawn.exit_code == 0, drawn.output
    written = {path.name for path in (tmp_path / "run/report").iterdir()}
    names = ("insertion", "relative_error_mean", "profile_ig", "profiles_ig")
    pictures = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert written == pictures | {"table1.md", "table1.tex", "table1.csv", "worst.csv", "index.html"}
    # The table is the same; only the progress of the run itself is not repeated.
    assert again.output.splitlines()[:5] == ended.stdout.splitlines()[:5]


def test_the_module_is_the_command() -> None:
    ended = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
        for command in (CLI, [sys.executable, "-m", "riemannopt_dist"])
    ]
    assert [run.returncode for run in ended] == [0, 0]
    assert ended[0].stdout == ended[1].stdout != ""
