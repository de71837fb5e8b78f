"""The examples of deploy/gateway/ say what the commands understand; they are executed by nobody here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from consisid_gateway.settings.settings import GatewaySettings, WorkerSettings
from consisid_runtime.settings.settings import Settings
from generators.commands import leaves

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "gateway"
KINDS = (Settings, GatewaySettings, WorkerSettings)
VARIABLES = {kind.variable(name) for kind in KINDS for name in kind.model_fields} | {"CONSISID_TOKEN"}
OTHERS = ("PG", "POSTGRES_", "AWS_")


def documents() -> list[dict[str, Any]]:
    return [part for part in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()) if part]


def services() -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert set(found) - {"services", "volumes"} == {key for key in found if key.startswith("x-")}
    return dict(found["services"])


def containers() -> Iterator[dict[str, Any]]:
    for part in documents():
        if part["kind"] in ("StatefulSet", "Deployment"):
            assert part["spec"]["selector"]["matchLabels"] == part["spec"]["template"]["metadata"]["labels"]
            yield from part["spec"]["template"]["spec"]["containers"]


def check_command(words: list[str]) -> None:
    command = leaves()[words[0]]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words[1:] if word.startswith("--")} <= known


def test_variables_are_settings() -> None:
    config = next(part["data"] for part in documents() if part["kind"] == "ConfigMap")
    found = [*config, *(each["name"] for container in containers() for each in container.get("env", []))]
    found += [name for service in services().values() for name in service.get("environment", {})]
    assert [name for name in found if name not in VARIABLES and not name.startswith(OTHERS)] == []


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_settings_of_the_cluster_are_possible(kind: Any) -> None:
    config = next(part["data"] for part in documents() if part["kind"] == "ConfigMap")
    prefix = kind.variable("")
    given = {name[len(prefix) :].lower(): value for name, value in config.items() if name.startswith(prefix)}
    assert kind(**given).model_fields_set == given.keys()


def test_commands_exist() -> None:
    for service in services().values():
        if "command" in service:
            check_command(service["command"])
    for container in containers():
        if "args" in container:
            check_command(container["args"])


def test_what_is_mounted_is_there() -> None:
    volumes = yaml.safe_load((FOLDER / "compose.yaml").read_text())["volumes"]
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in volumes or source.startswith("$")
    for part in documents():
        pod = part.get("spec", {}).get("template", {}).get("spec", {})
        named = {volume["name"] for volume in pod.get("volumes", [])}
        assert named >= {mount["name"] for each in pod.get("containers", []) for mount in each.get("volumeMounts", [])}


def test_images_install_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert '"/opt/consisid[gateway]"' in (FOLDER / "Dockerfile").read_text() and "gateway" in extras


def test_parts_of_one_name_belong_together() -> None:
    names = {
        part["metadata"]["name"]: part["kind"] for part in documents() if part["kind"] in ("StatefulSet", "Deployment")
    }
    scaled = next(part for part in documents() if part["kind"] == "ScaledObject")["spec"]["scaleTargetRef"]
    assert names[scaled["name"]] == scaled["kind"]
    # Of its environment KEDA takes the password, which the Secret has.
    (asked,) = (each for each in containers() if each["name"] == scaled["envSourceContainerName"])
    assert {"secretRef": {"name": "consisid"}} in asked["envFrom"]
    service = next(part for part in documents() if part["kind"] == "Service")
    assert service["spec"]["selector"] == {"app": "consisid-gateway"}
