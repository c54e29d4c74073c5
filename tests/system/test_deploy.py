"""What lies in deploy/: files that say what they should, as far as that can be told without a cluster or an engine.

What is run for real, on a real Prefect server: deployments, a worker of a process pool, and a schedule. Not run
anywhere here: the image, the compose file, and the manifests.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dask_kubernetes
import jsonschema
import pytest
import yaml
from prefect import Flow
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from prefect.utilities.importtools import import_object
from prefect_kubernetes.worker import KubernetesWorker
from pydantic import SecretStr

from flows.clusters.environment import ENVIRONMENT
from flows.clusters.kubernetes import kubernetes_spec
from flows.clusters.settings import parse_cluster
from flows.grow import grow
from flows.server.deployment import read_sweep
from flows.sweep import sweep
from netsim.networks import parse_reference
from netsim.settings import load_settings, shipped_sweeps
from netsim.store.layout import report_path
from netsim.store.quarantine import quarantined
from netsim.store.run import Run
from support.servers import wait_until
from support.sweeps import TINY
from system.test_flow_sweep import ask

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")


def run(*command: str, **how: Any) -> str:
    """What a command prints. Fails if it does."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


# ---- sweeps and deployments


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_every_sweep_that_comes_with_netsim_is_one(name):
    settings = load_settings(name)
    for member in (*settings.members, *settings.observing):
        parse_reference(member.reference)


def of_flow(flow: Flow[..., Any]) -> list[dict[str, Any]]:
    """List the deployments of a flow."""
    return [each for each in DEPLOYMENTS if import_object(each["entrypoint"]) is flow]


def test_every_deployment_is_of_a_flow_that_runs_a_sweep():
    (watched,) = of_flow(grow)
    assert len(DEPLOYMENTS) == len(of_flow(sweep)) + 1
    taken = grow.validate_parameters(watched["parameters"])
    assert taken["cluster"] == parse_cluster(watched["parameters"]["cluster"])


@pytest.mark.parametrize("deployment", of_flow(sweep), ids=lambda deployment: deployment["name"])
def test_a_deployment_of_settings_has_those_of_a_shipped_sweep(deployment):
    ((step, arguments),) = deployment["build"][0].items()
    assert import_object(step) is read_sweep
    settings = read_sweep(arguments["sweep"], arguments.get("changes", ()))["settings"]
    assert (settings["inversion"]["preset"] == "fast") == ("fast" in deployment["tags"])
    assert deployment["parameters"]["settings"] == f"{{{{ {arguments['id']}.settings }}}}"
    taken = sweep.validate_parameters(deployment["parameters"] | {"settings": settings})
    assert taken["cluster"] == parse_cluster(deployment["parameters"]["cluster"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_runs_once_at_a_time_with_heartbeats_and_a_schedule_that_is_paused(deployment):
    assert deployment["work_pool"]["job_variables"]["env"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]


def test_a_store_belongs_to_one_deployment():
    stores = [deployment["parameters"]["store"] for deployment in DEPLOYMENTS]
    assert len(set(stores)) == len(stores)


def prefect_in(folder: Path, environment: Mapping[str, str]) -> Callable[..., str]:
    """Prefect's command line, called in a folder; gives what it prints."""

    def command(*arguments: str) -> str:
        return run(sys.executable, "-m", "prefect", *arguments, env={**environment, "PWD": str(folder)}, cwd=folder)

    return command


@pytest.fixture
def prefect(server: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    return prefect_in(tmp_path, server)


@pytest.fixture
def worker(server: dict[str, str], prefect: Callable[..., str], tmp_path: Path) -> Iterator[Path]:
    """A worker of the pool `laptop`. Gives its log."""
    prefect("work-pool", "create", "laptop", "--type", "process")
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "laptop"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=server, cwd=tmp_path, stdout=output, stderr=output)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.site
def test_a_schedule_produces_runs_and_a_worker_of_the_pool_runs_the_sweep(server, prefect, worker, tmp_path):
    """With an SQLAlchemy that Prefect did not expect, everything but schedules seems to work."""
    prefect("--no-prompt", "deploy", "--prefect-file", str(DEPLOY / "prefect.yaml"), "--name", "demo")
    (deployment,) = (found for found in ask(server, "deployments") if found["name"] == "demo")
    assert deployment["parameters"]["settings"] == read_sweep("demo")["settings"]
    (schedule,) = deployment["schedules"]
    assert not schedule["active"] and not ask_runs(server, deployment, "SCHEDULED")

    settings = f"settings={json.dumps(TINY)}"
    prefect(
        "deployment",
        "run",
        "sweep/demo",
        "--param",
        settings,
        "--param",
        f"cluster={json.dumps({'kind': 'local', 'workers': 1})}",
    )

    def states() -> str:
        return f"{[run['state_name'] for run in ask_runs(server, deployment)]} {worker.read_text()[-3000:]}"

    wait_until(lambda: bool(ask_runs(server, deployment, "COMPLETED")), seconds=300, what=states)
    finished = Run.open(str(tmp_path / "runs" / "demo"))
    assert not quarantined(finished)
    assert finished.files.exists(report_path(finished.sweep.id, "report.html"))

    prefect("deployment", "schedule", "resume", "sweep/demo", schedule["id"])
    wait_until(lambda: bool(ask_runs(server, deployment, "SCHEDULED")), seconds=300, what=states)
    prefect("deployment", "schedule", "pause", "sweep/demo", schedule["id"])


def ask_runs(server: dict[str, str], deployment: dict[str, Any], state: str | None = None) -> list[dict[str, Any]]:
    found = ask(server, "flow_runs", deployments={"id": {"any_": [deployment["id"]]}})
    return [run for run in found if state in (None, run["state_type"])]


# ---- the image, the compose file, the manifests


def test_a_linter_of_dockerfiles_has_nothing_to_say():
    assert run(str(BIN / "hadolint"), str(DEPLOY / "Dockerfile")) == ""


def test_the_image_is_built_from_what_is_there_and_nobody_is_root_in_it():
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names} == let_in
    assert all((ROOT / name).exists() for name in let_in)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 10001:10001"
    variables = " ".join(line for line in lines if line.startswith("ENV "))
    assert all(f"{name}={value}" in variables for name, value in ENVIRONMENT.items() if name.startswith("DASK_"))
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_a_compose_file_has_the_form_of_one_and_its_variables_are_in_the_example(name):
    run(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / name))
    text = (DEPLOY / name).read_text()
    example = set(re.findall(r"^(\w+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) <= example
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_what_compose_starts_waits_for_what_is_there_and_only_this_machine_reaches_it():
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = content["services"]
    for service in services.values():
        for other, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in services[other]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        named = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert set(named) <= content["volumes"].keys()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_has_the_form_of_one_and_is_in_the_kustomization(path):
    run(str(BIN / "kubernetes-validate"), "--strict", str(path))
    assert path.name in yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every pod of the manifests, with each of its containers."""
    for path in MANIFESTS:
        for manifest in yaml.safe_load_all(path.read_text()):
            pod = manifest.get("spec", {}).get("template", {}).get("spec")
            for container in pod["containers"] if pod else ():
                yield pod, container


def test_no_container_is_root_and_no_secret_is_written_down():
    found = list(containers())
    assert len(found) == 3
    for pod, container in found:
        assert pod["securityContext"]["runAsNonRoot"] and container["resources"]["limits"]["memory"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        for variable in container["env"]:
            secret = re.search("PASSWORD$|AUTH_STRING$", variable["name"])
            assert ("valueFrom" in variable) == bool(secret), variable["name"]


def commands() -> Iterator[list[str]]:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    yield from ([str(part) for part in service["command"]] for service in services if service.get("image") == "netsim")
    yield from ([str(part) for part in container["args"]] for _, container in containers() if "args" in container)
    for component in ("worker", "scheduler"):
        spec = kubernetes_spec(parse_cluster({"kind": "kubernetes", "image": "netsim"}))["spec"][component]
        yield spec["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command[:3]))
def test_what_a_container_runs_is_there_and_knows_its_options(command):
    """Every option is in the help of the command."""
    words = [word for word in command if re.fullmatch(r"[a-z]+", word)][: 3 if command[0] == "prefect" else 2]
    told = run(str(BIN / words[0]), *words[1:], "--help", env=os.environ | {"COLUMNS": "200"})
    for option in (word for word in command if word.startswith("--")):
        assert option in told, f"{shlex.join(words)} has no {option}"


def test_the_work_pool_of_kubernetes_is_that_of_prefect_with_secrets_by_reference():
    ours = json.loads((DEPLOY / "kubernetes" / "work-pool.json").read_text())
    theirs = KubernetesWorker.get_default_base_job_template()
    pod = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod.pop("securityContext")["runAsNonRoot"]
    (container,) = pod["containers"]
    assert container.pop("envFrom") == [{"secretRef": {"name": "netsim-runs"}}]
    assert container.pop("securityContext")["capabilities"] == {"drop": ["ALL"]}
    assert ours == theirs


def test_the_pods_a_sweep_asks_for_are_what_the_dask_operator_takes():
    said = {"kind": "kubernetes", "image": "lab/netsim:1", "secret": "netsim-runs", "service_account": "sweep"}
    spec = kubernetes_spec(parse_cluster(said | {"minimum": 2, "memory": "32Gi"}))
    folder = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    resource = yaml.safe_load((folder / "crds" / "daskcluster.yaml").read_text())
    jsonschema.validate(spec, resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    for component in ("worker", "scheduler"):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": component},
            "spec": spec["spec"][component]["spec"],
        }
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as file:
            file.write(yaml.safe_dump(pod))
            file.flush()
            run(str(BIN / "kubernetes-validate"), "--strict", file.name)
        (container,) = pod["spec"]["containers"]  # type: ignore[index]
        assert container["envFrom"] == [{"secretRef": {"name": "netsim-runs"}}]
    worker = spec["spec"]["worker"]["spec"]["containers"][0]
    assert worker["resources"]["limits"] == {"cpu": "2", "memory": str(32 << 30), "nvidia.com/gpu": "1"}
    assert "--resources" in worker["args"] and spec["spec"]["worker"]["replicas"] == 2
    without = kubernetes_spec(parse_cluster(said | {"gpus": 0}))["spec"]["worker"]["spec"]["containers"][0]
    assert (
        without["resources"]["limits"] == {"cpu": "2", "memory": "16000000000"} and "--resources" not in without["args"]
    )


# ---- automations: what they do to runs that nothing executes


@pytest.fixture
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web server, and what it was sent."""
    found: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        Thread(target=listener.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listener.server_port}", found
        listener.shutdown()


@pytest.mark.site
def test_a_crashed_run_is_started_again_as_it_was_three_times_a_day_and_somebody_is_told(
    server, prefect, told, tmp_path
):
    address, messages = told
    prefect("work-pool", "create", "laptop", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--prefect-file", str(DEPLOY / "prefect.yaml"), "--name", "cifar10")
    with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        block = Webhook(url=SecretStr(address)).save("netsim", overwrite=True, _sync=True)
        notify = (DEPLOY / "notify.yaml").read_text()
        (tmp_path / "notify.yaml").write_text(notify.replace("WEBHOOK", str(block)))
        try:
            for path in (DEPLOY / "automations.yaml", tmp_path / "notify.yaml"):
                prefect("automation", "create", "--from-file", str(path))
            deployment = client.read_deployment_by_name("sweep/cifar10")
            of_it = DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}})
            parameters = deployment.parameters | {"store": "runs/other"}

            def runs() -> list[FlowRun]:
                return client.read_flow_runs(deployment_filter=of_it)

            def crash(run: FlowRun) -> FlowRun:
                """Gives the run that is started in its place."""
                known = {run.id for run in runs()}
                client.set_flow_run_state(run.id, Crashed(message="kill -9"), force=True)
                wait_until(lambda: len(runs()) > len(known), seconds=300)
                (new,) = (new for new in runs() if new.id not in known)
                assert new.parameters == parameters and set(new.tags) == set(deployment.tags)
                return new

            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
            for _ in range(4):
                run = crash(run)
            wait_until(lambda: client.read_flow_run(run.id).state_name == "Cancelled", seconds=300)
            wait_until(lambda: len(messages) == 4, seconds=300, what=lambda: messages)
            assert {message["text"].partition(" is ")[2] for message in messages} == {"Crashed. kill -9"}
        finally:
            prefect("automation", "delete", "--all")
            prefect("deployment", "delete", "sweep/cifar10")
