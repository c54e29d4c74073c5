"""What workers are started with, here and as jobs, and when they leave."""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster, Scheduler, SpecCluster, get_worker
from distributed.client import FutureCancelledError
from distributed.security import Security
from distributed.versions import get_versions

from flows.clusters import scheduler, waiting
from flows.clusters.forkserver import start_fork_server
from flows.clusters.local import worker_specs
from flows.clusters.runner import task_runner
from flows.clusters.scheduler import SchedulerAddress
from flows.clusters.settings import Local, parse_cluster
from flows.clusters.slurm import slurm_cluster, slurm_options
from netsim.errors import RunError, SettingsError
from netsim.store.stages import INVERT, TRAIN, Stage
from support.seaweed import free_ports
from support.servers import wait_until
from tasks.cancellation import CancellationCheck
from tasks.devices import visible_gpus
from tasks.dispatch import CONNECTION_LOST, require_connected


def test_every_gpu_has_a_worker_of_its_own_and_other_workers_see_none():
    specs = worker_specs(1, ["0", "3"], security := Security.temporary())
    scheduler = {"cls": Scheduler, "options": {"protocol": "tls://", "security": security, "dashboard": False}}
    options = {"workers": specs, "scheduler": scheduler, "security": security, "silence_logs": 50}
    with SpecCluster(**options) as cluster, Client(cluster) as client:
        client.wait_for_workers(3)
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        known = client.scheduler_info(n_workers=-1)["workers"]
        found = sorted((known[worker]["name"], gpu, known[worker]["resources"]) for worker, gpu in seen.items())
        assert found == [("cpu-0", "", {}), ("gpu-0", "0", {"GPU": 1}), ("gpu-3", "3", {"GPU": 1})]
        assert {(worker["nthreads"], worker["memory_limit"]) for worker in known.values()} == {(1, 0)}


def test_gpus_that_are_not_there_are_not_taken_for_a_cpu():
    with pytest.raises(SettingsError, match=r"cluster.gpus must be at most \d+, .* got 64"):
        visible_gpus(64)


def test_a_scheduler_that_does_not_answer_is_one_clear_error():
    nobody = parse_cluster({"kind": "scheduler", "address": "tcp://127.0.0.1:1"})
    with (
        pytest.raises(SettingsError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 \("),
        task_runner(nobody),
    ):
        pass


def test_a_frozen_scheduler_or_the_port_of_its_dashboard_is_one_clear_error(monkeypatch):
    """Dask waits for ever for the first answer of either."""
    monkeypatch.setattr(scheduler, "CONNECT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(SettingsError, match=rf"{address} \(no answer in 1 s\)\. Check that"),
            task_runner(parse_cluster({"kind": "scheduler", "address": address})),
        ):
            pass


@pytest.mark.parametrize(
    ("where", "package", "there", "named"),
    [
        ("scheduler", "distributed", "2020.1.0", "the Dask scheduler at tcp://x:1 must have distributed"),
        ("workers", "python", "3.7.1.final.0", "the Dask worker at tcp://y:2 must have python"),
        ("workers", "python", f"{sys.version_info.major}.{sys.version_info.minor}.99.final.0", None),
        ("workers", "numpy", "1.0", None),
    ],
)
def test_a_scheduler_or_worker_of_another_version_is_one_clear_error(where, package, there, named):
    def versions() -> dict[str, Any]:
        return {"packages": dict(get_versions()["packages"])}

    answer = {"client": versions(), "scheduler": versions(), "workers": {"tcp://y:2": versions()}}
    changed = answer["workers"]["tcp://y:2"] if where == "workers" else answer["scheduler"]
    changed["packages"][package] = there
    with pytest.raises(SettingsError, match=named) if named else nullcontext():
        scheduler._require_same_versions(answer, "tcp://x:1")


def test_a_scheduler_that_is_killed_is_one_clear_error_whatever_dask_makes_of_it(tmp_path):
    with fresh_scheduler(tmp_path) as address:
        asked = parse_cluster({"kind": "scheduler", "address": address})
        with Client(address, timeout=2) as client:
            pending = client.submit(time.sleep, 60)
            with pytest.raises(KeyError, match="mine"), task_runner(asked):
                raise KeyError("mine")
            with (
                pytest.raises(RunError, match=f"^the Dask scheduler at {address} is gone. Restart it"),
                task_runner(asked),
            ):
                kill_scheduler(client)
            with pytest.raises(FutureCancelledError) as lost:
                pending.result()
            assert lost.value.reason == CONNECTION_LOST  # the dispatch blames no shard for it
            with pytest.raises(RunError, match=f"^the Dask scheduler at {address} is gone. Restart it"):
                require_connected(client, address)


def kill_scheduler(client: Client) -> None:
    """Kill the scheduler, and raise what Dask once made of it."""
    require_connected(client, "")
    os.kill(client.run_on_scheduler(os.getpid), signal.SIGKILL)
    raise KeyError("total_threads")


def test_a_sweep_that_waits_for_workers_says_so_and_rarely(monkeypatch):
    monkeypatch.setattr(waiting, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(waiting, "PATIENCE", 0.1)
    announced: list[str] = []
    monkeypatch.setattr(waiting, "announce", announced.append)
    options = {"threads_per_worker": 1, "processes": False, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(n_workers=0, **options) as cluster, Client(cluster) as client:
        address = cluster.scheduler_address

        def replace_workers(**worker: Any) -> int:
            cluster.scale(0)
            wait_until(lambda: not client.scheduler_info()["workers"], seconds=30)
            cluster.new_spec["options"] |= worker
            cluster.scale(1)
            client.wait_for_workers(1)
            time.sleep(0.3)
            return len(announced)

        with waiting.announced_waits(SchedulerAddress(address), "Start some"):
            time.sleep(1.2)  # announcements after 0.1, 0.4 and not yet 1.6 s
            alone = len(announced)
            replace_workers(resources={"GPU": 1})
            before = replace_workers(resources={})
            stuck = client.submit(may_begin, resources={"GPU": 1})
            wait_until(lambda: len(announced) > before, seconds=30)
            stuck.cancel()
    assert announced[:alone] == [f"waiting: no worker is connected to the Dask scheduler at {address}. Start some"] * 2
    assert announced[before] == (
        f"waiting: none of the 1 workers of the Dask scheduler at {address} has the GPU that the work needs. Start some"
    )


def test_workers_that_are_all_paused_are_said_to_be():
    paused = waiting.explain_wait(["paused"] * 3, stuck=False, address="x")
    assert paused == "all 3 workers of the Dask scheduler at x are paused; a --memory-limit has them pause"
    assert waiting.explain_wait(["paused", "running"], stuck=False, address="x") is None


def test_local_workers_end_with_the_sweep():
    with task_runner(Local(workers=1)) as runner, Client(runner.address, **runner.client_kwargs) as client:
        (pid,) = client.run(os.getpid).values()
        asked = [f"distributed.{key}" for key in ("worker.profile.enabled", "admin.tick.interval")]
        (found,) = client.run(lambda: [dask.config.get(key) for key in asked]).values()
        assert found == [False, "1s"]  # what Dask does all the time would take 6 % of the processor
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")


def test_local_workers_share_their_imports_and_a_process_without_threads_to_fork_from():
    """Each alone would take 5 seconds of processor time to import; forking a process with threads may deadlock.

    What they share stays shared, though each collects the garbage of its own; and the environment of this process, from
    which that one has its environment, is as it was.
    """

    def state() -> tuple[int, bool, bool, bool, int]:
        imported = "torch" in sys.modules and "netsim.stages.invert" in sys.modules
        return (
            os.getppid(),
            imported,
            gc.get_freeze_count() > 100_000,
            gc.isenabled(),
            int(os.environ["OMP_NUM_THREADS"]),
        )

    before = dict(os.environ)
    start_fork_server()
    assert dict(os.environ) == before
    with task_runner(Local(workers=2)) as runner, Client(runner.address, **runner.client_kwargs) as client:
        ((parent, *rest),) = set(client.run(state).values())
        assert rest == [True, True, True, 1] and parent != os.getpid()
        assert len(os.listdir(f"/proc/{parent}/task")) == 1


def test_a_module_that_cannot_be_imported_is_left_to_the_workers():
    """As Prefect with wrong settings: the flow says what is wrong, once."""
    command = [
        sys.executable,
        "-c",
        "import flows.clusters.preloaded, gc, sys; print(gc.isenabled(), len(sys.modules))",
    ]
    environment = os.environ | {"PREFECT_CLIENT_MAX_RETRIES": "many"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    enabled, modules = done.stdout.split()
    assert enabled == "True" and int(modules) > 500
    assert done.stderr == ""


def test_a_job_is_one_worker_that_leaves_before_its_walltime():
    said = {"kind": "slurm", "partition": "a100", "walltime": "02:00:00", "directives": ["--qos=long"]}
    said |= {"memory": "32GB", "cores": 4, "prologue": ["module load cuda"], "logs": "logs"}
    before = signal.getsignal(signal.SIGINT)
    with slurm_cluster()(**slurm_options(parse_cluster(said))) as cluster:  # type: ignore[arg-type]
        script = cluster.job_script()
    assert signal.getsignal(signal.SIGINT) is before  # Ctrl-C stays Ctrl-C
    for line in ("#SBATCH -p a100", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=30G", "#SBATCH -t 02:00:00"):
        assert line in script
    assert "#SBATCH --gres=gpu:1\n#SBATCH --qos=long" in script
    assert "export OMP_NUM_THREADS=1" in script and "\nmodule load cuda\n" in script
    (command,) = (line for line in script.splitlines() if "dask" in line and "worker" in line and "tcp://" in line)
    assert "--nthreads 1" in command and "--resources GPU=1" in command
    assert command.rindex("--memory-limit 0") > command.index("--memory-limit ")  # the last one counts
    assert "--lifetime 5940s --lifetime-stagger 660s" in command  # at the latest at 6600 of 7200 s


def told(seconds: float) -> None:
    """In a task of one shard."""
    CancellationCheck(INVERT).record_duration(seconds)


def may_begin() -> bool:
    """In the next task."""
    return CancellationCheck(INVERT).may_begin(0)


def test_a_worker_without_time_for_another_shard_leaves_at_once():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(**options, lifetime="60s") as cluster, Client(cluster) as client:

        def workers() -> list[str]:
            return list(client.scheduler_info(n_workers=-1)["workers"])

        first, other = workers()

        def on_the_first(work: Callable[..., Any], *arguments: float) -> Any:
            return client.submit(work, *arguments, pure=False, workers=[first]).result()

        assert on_the_first(may_begin)  # nothing is known yet
        on_the_first(told, 1.0)
        assert on_the_first(may_begin)
        on_the_first(told, 60.0)
        refused = client.submit(may_begin, pure=False, workers=[first])
        loosely = {"pure": False, "workers": [first], "allow_other_workers": True}
        waiting = [client.submit(lambda: get_worker().address, **loosely) for _ in range(4)]
        assert not refused.result()
        assert {where.result() for where in waiting} == {other}  # it empties no queue in which it computes nothing
        deadline = time.monotonic() + 20
        while first in workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert workers() == [other]


def test_a_shard_that_takes_longer_than_a_worker_lives_is_an_error_but_where_the_next_goes_on():
    def endless(stage: Stage) -> None:
        """In here it goes to the worker by itself: this module would take a good part of a life to import."""
        pulse = CancellationCheck(stage)
        pulse.may_begin(3)
        while True:
            time.sleep(0.1)
            pulse()

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(**options, lifetime="30s") as cluster, Client(cluster) as client:
        first, other = client.scheduler_info(n_workers=-1)["workers"]
        resumed = client.submit(endless, TRAIN, workers=[other])
        message = r"invert shard 3 was not finished after 0.\d minutes, but a worker lives for 0.5 .* fewer pairs"
        with pytest.raises(RunError, match=message):
            client.submit(endless, INVERT, workers=[first]).result(timeout=60)
        while other in client.scheduler_info(n_workers=-1)["workers"]:
            time.sleep(0.1)
        assert resumed.status == "pending"  # for the worker that comes next


def test_outside_of_a_worker_there_is_always_time_and_somebody_waits():
    pulse = CancellationCheck(INVERT)
    pulse()
    assert pulse.may_begin(0) and pulse.worker is None


@contextmanager
def fresh_scheduler(folder, **environment: str) -> Iterator[str]:
    """As its own command starts it."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--dashboard-address", "127.0.0.1:0"], cwd=folder, env=os.environ | environment, stderr=-3
    ) as scheduler:
        try:
            Client(f"tcp://127.0.0.1:{port}", timeout=60).close()
            yield f"tcp://127.0.0.1:{port}"
        finally:
            scheduler.kill()


def test_a_scheduler_has_imported_what_task_runs_need_before_the_first_is_submitted(tmp_path):
    """Otherwise its event loop stops while it imports them, and on a slow disk the flow takes it for dead."""
    with fresh_scheduler(tmp_path) as address, Client(address) as client:
        assert not client.run_on_scheduler(lambda: "tasks.verbs" in sys.modules)
        with task_runner(parse_cluster({"kind": "scheduler", "address": address})):
            assert client.run_on_scheduler(lambda: "tasks.verbs" in sys.modules)


def test_a_scheduler_without_netsim_is_one_clear_error(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/__init__.py").touch()  # stands before ours
    with fresh_scheduler(tmp_path, PYTHONPATH=str(tmp_path)) as address:
        asked = parse_cluster({"kind": "scheduler", "address": address})
        with pytest.raises(SettingsError, match="the Dask scheduler cannot import netsim"), task_runner(asked):
            pass
