"""What is in `deploy/` fits the command line, the options, Ray's schema, and itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from sfwriter import WriterConfig

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HELP: dict[str, str] = {}


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def check_command(words: list[str]) -> None:
    """The command exists, and has the options that are given."""
    command, *arguments = words
    if command not in HELP:
        done = subprocess.run(
            [sys.executable, "-m", "sfwriter", command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, words
        HELP[command] = done.stdout
    for option in [word for word in arguments if word.startswith("--")]:
        assert re.search(rf"{option}\b", HELP[command]), (option, words)


def test_the_example_configuration_is_a_good_one() -> None:
    config = WriterConfig.from_file(DEPLOY / "service.toml", {})
    assert (config.compression, config.memory_fraction) == ("zstd", 0.2)


def test_what_the_image_copies_is_there_and_its_commands_exist() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert [name for names in copied for name in names if not (ROOT / name).exists()] == []
    assert "USER sfwriter" in lines
    (health,) = [json.loads(line.partition("CMD ")[2]) for line in lines if line.startswith("HEALTHCHECK")]
    (entry,) = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("ENTRYPOINT")]
    (default,) = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("CMD ")]
    assert (health[0], entry) == ("sfwriter", ["sfwriter"])
    check_command(health[1:])
    check_command(default)


def test_compose_gives_the_drain_its_time() -> None:
    (compose,) = documents("compose.yaml")
    service = compose["services"]["logs"]
    check_command(service["command"])
    drain = float(service["command"][service["command"].index("--drain-timeout") + 1])
    assert float(service["stop_grace_period"].removesuffix("s")) > drain
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    named = [volume.split(":")[0] for volume in service["volumes"] if not volume.startswith(".")]
    assert set(named) == set(compose["volumes"])


def test_the_launcher_file_is_what_ray_asks_for() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    (launcher,) = documents("ray-cluster.yaml")
    jsonschema.validate(launcher, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**launcher, "max_workers": "two"}, schema)
    for line in launcher["head_start_ray_commands"]:
        if "/sfwriter serve" in line:
            check_command(line.partition("/sfwriter ")[2].split("bin/sfwriter ")[-1].split())


def pods() -> list[tuple[str, Any]]:
    cluster, _ = documents("kuberay/raycluster.yaml")
    (job,) = documents("kuberay/rayjob.yaml")
    groups = {"head": cluster["spec"]["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    return [
        *((name, group["template"]["spec"]) for name, group in groups.items()),
        ("job", job["spec"]["submitterPodTemplate"]["spec"]),
    ]


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda found: found if isinstance(found, str) else "")
def test_every_pod_has_the_token_from_a_secret(name: str, pod: Any) -> None:
    for container in pod["containers"]:
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert "value" not in environment["RAY_AUTH_TOKEN"]
        assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["key"] == "auth_token"


def test_the_cluster_has_the_memory_that_it_promises_and_one_warehouse_for_all() -> None:
    cluster, claim = documents("kuberay/raycluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for _, pod in pods()[:-1]:
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
        assert volumes == {"warehouse": claim["metadata"]["name"]}
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment["SFWRITER_WAREHOUSE"] == mounted["warehouse"]
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_serves_in_that_cluster_and_may_drain() -> None:
    cluster, _ = documents("kuberay/raycluster.yaml")
    (job,) = documents("kuberay/rayjob.yaml")
    words = job["spec"]["entrypoint"].split()
    assert words[0] == "sfwriter"
    check_command(words[1:])
    settings = dict(words[place + 1].split("=") for place, word in enumerate(words) if word == "--set")
    WriterConfig.from_env({f"SFWRITER_{option.upper()}": value for option, value in settings.items()})
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    grace = job["spec"]["submitterPodTemplate"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > float(words[words.index("--drain-timeout") + 1])
