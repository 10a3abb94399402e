"""The files that start a cluster, as far as can be told without one.

cluster.yaml and its variant pass Ray's own checks, EC2's own description of its request, and each other; the
Kubernetes manifest the field tables of what it is made of.
"""

import inspect
import itertools
import logging
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml  # as Ray reads it
from botocore.validate import ParamValidator
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from ray.autoscaler._private.command_runner import SSHOptions
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.modules.job import job_supervisor
from typer.testing import CliRunner

from riemannopt_dist.commands import app
from riemannopt_dist.run.config.loading import load_config

CLUSTER = Path("cluster.yaml").read_text(encoding="utf-8")
MANIFEST = yaml.safe_load(Path("jobs/rayjob.yaml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
MARK = "# --- On machines of your own ---\n"
INSTALLED_AT = "/home/ray/riemannopt_dist"


def aws() -> dict[str, Any]:
    """cluster.yaml as it stands."""
    config: dict[str, Any] = yaml.safe_load(CLUSTER)
    return config


def own_machines() -> dict[str, Any]:
    """The variant at its end, uncommented."""
    lines = CLUSTER.split(MARK)[1].splitlines()
    config: dict[str, Any] = yaml.safe_load(
        "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
    )
    return config


VARIANTS = pytest.mark.parametrize("config", [aws(), own_machines()], ids=["aws", "own"])


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@VARIANTS
def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@VARIANTS
def test_a_misspelt_key_would_not_pass(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config({**config, "setup_comands": []}))


@VARIANTS
def test_what_it_names_is_there(config: dict[str, Any]) -> None:
    (project, folder), token = config["file_mounts"].items()
    assert (Path(folder) / "pyproject.toml").is_file()
    assert token == (f"{project.rpartition('/')[0]}/.ray/auth_token", "~/.ray/auth_token")
    commands = " ".join(config["setup_commands"])
    assert commands.endswith(f" {project}")
    if "head_node_type" in config:
        assert config["head_node_type"] in config["available_node_types"]
    # Every folder of a virtual environment that a command starts from is made by one before it.
    for command in [*config.get("head_start_ray_commands", []), *config.get("worker_start_ray_commands", [])]:
        for folder in re.findall(r"(\S+)/bin/", command):
            assert f"venv {folder}" in commands


def test_the_documented_job_fits_the_cluster() -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    (job,) = (line for line in readme.splitlines() if "ray job submit --address" in line)
    options = options_of(job)
    assert int(options["--workers"]) == aws()["available_node_types"]["worker"]["max_workers"]
    assert options["--images"].split("/")[:3] == options["--output"].split("/")[:3]


def node_configs() -> list[tuple[str, dict[str, Any]]]:
    return [(name, kind["node_config"]) for name, kind in aws()["available_node_types"].items()]


def request_problems(node_config: dict[str, Any]) -> str:
    """What is wrong with the node as EC2's RunInstances, by the client library's description of it."""
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    report: str = (
        ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
    )
    market = shape.members["InstanceMarketOptions"].members["MarketType"].enum
    asked = node_config.get("InstanceMarketOptions", {}).get("MarketType", "spot")
    kinds = shape.members["InstanceType"].enum
    return report + ("" if asked in market and node_config["InstanceType"] in kinds else "unknown kind")


@pytest.mark.parametrize(("name", "node"), node_configs())
def test_ec2_would_understand_every_node(name: str, node: dict[str, Any]) -> None:
    assert request_problems(node) == ""
    assert node["IamInstanceProfile"]["Name"].endswith(name)
    # Parameter names of the images that AWS publishes have this form.
    assert re.fullmatch(
        r"resolve:ssm:/aws/service/deeplearning/ami/x86_64/[\w.-]+/latest/ami-id", node["ImageId"]
    )
    for change in (
        {"InstanceTypo": "m5.large"},
        {"InstanceType": "m5.huge"},
        {"InstanceMarketOptions": {"MarketType": "spott"}},
        {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": "150"}}]},
    ):
        assert request_problems({**node, **change})


def test_workers_are_spot_gpus_that_come_and_go_and_the_head_is_neither() -> None:
    config = aws()
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in head["node_config"]
    assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
    assert worker["resources"]["GPU"] == 1
    assert not any(head["resources"].values())
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    regions = {zone[:-1] for zone in config["provider"]["availability_zone"].split(",")}
    assert regions == {config["provider"]["region"]}


def test_docker_is_asked_over_a_connection_that_knows_the_group() -> None:
    """Ray's own connection is closed by then, and the next one is opened."""
    join, wait = aws()["initialization_commands"]
    assert join == f"sudo usermod -aG docker {aws()['auth']['ssh_user']}"
    kept = SSHOptions("key", "folder").arg_dict["ControlPersist"]
    assert int(wait.removeprefix("sleep ")) > int(kept.removesuffix("s"))


def test_a_stopped_job_has_time_for_its_shards_in_flight() -> None:
    """On every head; Ray takes a text for a number of seconds, and knows no such variable by another name."""
    ours = "RAY_JOB_STOP_WAIT_TIME_S"
    assert f'"{ours}"' in inspect.getsource(job_supervisor)
    (head,) = own_machines()["head_start_ray_commands"][1:]
    commands = [*aws()["docker"]["run_options"], head]
    (env,) = pods()["head"]["containers"][0]["env"]
    assert sum(f"{ours}=600" in command for command in commands) == 2
    assert env == {"name": ours, "value": "600"}


# --- The Kubernetes manifest ---

# What a RayJob, its cluster and a pod may hold: the field tables of KubeRay's API reference for ray.io/v1 and
# of Kubernetes, as far as a run has any use for them. True: required.
CONTAINER: dict[str, Any] = {
    "name": (str, True),
    "image": (str, True),
    "env": ([{"name": (str, True), "value": (str, True)}], False),
    "ports": ([{"name": (str, True), "containerPort": (int, True)}], False),
    "resources": ({"requests": (dict, True), "limits": (dict, True)}, True),
    "volumeMounts": (
        [{"name": (str, True), "mountPath": (str, True), "readOnly": (bool, False)}],
        False,
    ),
}
CLAIM = {"claimName": (str, True), "readOnly": (bool, False)}
POD = {
    "spec": (
        {
            "containers": ([CONTAINER], True),
            "volumes": ([{"name": (str, True), "persistentVolumeClaim": (CLAIM, True)}], False),
        },
        True,
    )
}
GROUP = {"rayStartParams": (dict, False), "template": (POD, True)}
WORKERS = {
    **GROUP,
    "groupName": (str, True),
    "replicas": (int, False),
    "minReplicas": (int, True),
    "maxReplicas": (int, True),
}
RAY_JOB = {
    "apiVersion": (str, True),
    "kind": (str, True),
    "metadata": ({"name": (str, True), "namespace": (str, False)}, True),
    "spec": (
        {
            "entrypoint": (str, True),
            "backoffLimit": (int, False),
            "shutdownAfterJobFinishes": (bool, False),
            "ttlSecondsAfterFinished": (int, False),
            "runtimeEnvYAML": (str, False),
            "rayClusterSpec": (
                {
                    "rayVersion": (str, False),
                    "authOptions": ({"mode": (str, True)}, False),
                    "enableInTreeAutoscaling": (bool, False),
                    "autoscalerOptions": ({"idleTimeoutSeconds": (int, False)}, False),
                    "headGroupSpec": (GROUP, True),
                    "workerGroupSpecs": ([WORKERS], False),
                },
                True,
            ),
        },
        True,
    ),
}


def misfits(value: Any, shape: Any, where: str = "") -> Iterator[str]:
    """Where `value` is not of this shape: a type, a mapping of (shape, required), or a list of one shape."""
    if isinstance(shape, type):
        if type(value) is not shape:
            yield f"{where}: expected {shape.__name__}, got {value!r}"
    elif isinstance(shape, list):
        for place, one in enumerate(value):
            yield from misfits(one, shape[0], f"{where}[{place}]")
    else:
        yield from (f"{where}.{key}: unknown" for key in value if key not in shape)
        for key, (inner, required) in shape.items():
            if key in value:
                yield from misfits(value[key], inner, f"{where}.{key}")
            elif required:
                yield f"{where}.{key}: missing"


def pods() -> dict[str, dict[str, Any]]:
    """The pod of the head and of each group of workers."""
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_the_manifest_is_a_ray_job() -> None:
    assert list(misfits(MANIFEST, RAY_JOB)) == []
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")
    # Names of Kubernetes objects are DNS labels.
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", MANIFEST["metadata"]["name"])
    # A parameter of `ray start` is text, whatever it says; so are quantities.
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    for pod in pods().values():
        for quantities in pod["containers"][0]["resources"].values():
            assert all(re.fullmatch(r"\d+(m|[KMGT]i?)?", quantity) for quantity in quantities.values())


def test_misfits_are_found() -> None:
    spoiled = {**MANIFEST, "spec": {"entrypoint": 1, "entrypiont": "", "backoffLimit": "3"}}
    assert sorted(line.split(":")[0] for line in misfits(spoiled, RAY_JOB)) == [
        ".spec.backoffLimit",
        ".spec.entrypiont",
        ".spec.entrypoint",
        ".spec.rayClusterSpec",
    ]


def test_its_pods_agree_with_each_other_and_with_its_job() -> None:
    spec = MANIFEST["spec"]
    (image,) = {container["image"] for pod in pods().values() for container in pod["containers"]}
    assert image.endswith(f":{PROJECT['version']}")
    for pod in pods().values():
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    paths = [{m["mountPath"] for m in pod["containers"][0]["volumeMounts"]} for pod in pods().values()]
    assert all(mounted == paths[0] for mounted in paths)
    options = options_of(spec["entrypoint"])
    assert options["--images"] in paths[0]
    assert any(options["--output"].startswith(f"{path}/") for path in paths[0])
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    resources = pods()[group["groupName"]]["containers"][0]["resources"]
    gpus = group["rayStartParams"]["num-gpus"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == gpus
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert int(options["--workers"]) == group["maxReplicas"] * int(gpus) / float(options["--gpus-per-worker"])
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in pods()["head"]["containers"][0]["resources"]["limits"]


def options_of(entrypoint: str) -> dict[str, str]:
    words = shlex.split(entrypoint)
    return {a: b for a, b in itertools.pairwise(words) if a.startswith("--")}


def test_its_job_is_there_and_takes_its_options(tmp_path: Path) -> None:
    program, script, *options = shlex.split(MANIFEST["spec"]["entrypoint"])
    here = [word.removeprefix(f"{INSTALLED_AT}/") for word in (script, *options)]
    assert program == "python"
    assert Path(here[0]).is_file()
    given = options_of(shlex.join(here))
    load_config(given["--config"])
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(201):
        (folder / f"{n}.jpg").touch()
    chosen = ["--images", str(folder), "--output", str(tmp_path / "run"), "--dry-run", "--rate", "1"]
    ended = CliRunner().invoke(app, ["evaluate", *here[1:], *chosen])
    assert ended.exit_code == 0, ended.output


def test_everything_runs_one_ray_and_one_python_that_the_project_accepts() -> None:
    named = [
        aws()["docker"]["image"],
        *re.findall(r"rayproject/ray:\S+-gpu", Path("jobs/rayjob.yaml").read_text()),
    ]
    assert len(named) == 2
    assert len(set(named)) == 1
    found = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d)(\d+)-gpu", named[0])
    assert found is not None
    assert MANIFEST["spec"]["rayClusterSpec"]["rayVersion"] == found[1]
    ray = next(name for name in PROJECT["dependencies"] if name.startswith("ray["))
    assert Version(found[1]) in SpecifierSet(ray.partition("]")[2])
    assert Version("2.51.99") not in SpecifierSet(ray.partition("]")[2])  # they know no tokens
    assert Version(f"{found[2]}.{found[3]}") in SpecifierSet(PROJECT["requires-python"])
