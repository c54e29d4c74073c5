"""Cost of Prefect, Dask and commits besides the work: `make bench BENCH=orchestration ARGS="PART..."`.

overhead  CPU of every process of a sweep of real inversions in tasks of about 30 s, and that of the inversions alone
many      10,000 task runs of shards that do nothing: memory of the flow over time, records, states, CPU per task
latency   seconds from the command, and from the first submission, to the first commit, with workers up or started
scaling   shards per second with one worker process and with two, by turns: real inversions, the same in bare processes
          (the limit of the machine), and shards that only wait
drain     task runs per second that a Prefect server records, in SQLite and (with --postgres) in PostgreSQL

Everything is real, and started here: a Prefect server, a Dask scheduler and workers by their own commands, stores on
the local disk. CPU seconds are those of processes and their children, so other work on the machine blurs them only
slightly; wall-clock times need a quiet machine. docs/project/scaling.md draws the conclusions
(python -m benchmarks.scaling).
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import certifi
import httpx
import psutil
import torch
from distributed import Client
from rich.console import Console

from benchmarks.simulated import NOTHING, WAIT, waiting
from benchmarks.stores import finish, new_run, random_weights
from flows.cli.console import table_of
from flows.clusters.environment import ENVIRONMENT
from flows.server.offline import OFFLINE
from netsim.settings import parse_settings
from netsim.stages import invert
from netsim.store.run import Run
from netsim.store.stages import DRAW, TRAIN
from tests.support.seaweed import free_ports

console = Console(highlight=False)
SMALL = ["small:resnet18@none", "small:shufflenet@none", "small:vgg@none"]
MB = 1e6


# ---- processes


class Program:
    """A command that runs in the background, with all processes that it starts."""

    def __init__(self, *command: str, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._log = log

    def processes(self) -> list[psutil.Process]:
        """List its processes that are alive."""
        try:
            process = psutil.Process(self.popen.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        """Return the CPU seconds of its living processes so far."""
        return sum(_of(process, lambda p: sum(p.cpu_times()[:2])) for process in self.processes())

    def memory(self) -> float:
        """Return the resident bytes of its processes."""
        return sum(_of(process, lambda p: p.memory_info().rss) for process in self.processes())

    def output(self) -> str:
        """Return what it has printed."""
        return self._log.read_text()

    def wait_for(self, true: Callable[[], bool], *, seconds: float) -> None:
        """Wait until `true` is true. Raises RuntimeError if the command ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not true():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.popen.args} did not become ready:\n{self.output()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Kill all its processes."""
        for process in self.processes():
            _of(process, lambda p: p.kill() or 0)
        self.popen.wait()


def _of(process: psutil.Process, what: Callable[[psutil.Process], float]) -> float:
    try:
        return what(process)
    except psutil.NoSuchProcess:
        return 0.0


@dataclass
class Server:
    """A Prefect server, and the environment in which programs use it."""

    program: Program
    environment: dict[str, str]

    def count(self, name: str, state: str | None = None) -> int:
        """Count the recorded task runs whose name contains `name`, of all states or of the one named `state`."""
        filters: dict[str, Any] = {"name": {"like_": name}} | ({"state": {"name": {"any_": [state]}}} if state else {})
        url = f"{self.environment['PREFECT_API_URL']}/task_runs/count"
        return httpx.post(url, json={"task_runs": filters}, timeout=60).raise_for_status().json()

    def first_start(self, flow: str, store: Path) -> float:
        """Return when the first run of a flow with this store began, in seconds since 1970."""
        filters = {"flows": {"name": {"any_": [flow]}}, "limit": 200}
        answer = httpx.post(f"{self.environment['PREFECT_API_URL']}/flow_runs/filter", json=filters, timeout=60)
        runs = [run for run in answer.raise_for_status().json() if run["parameters"].get("store") == str(store)]
        return min(datetime.fromisoformat(run["start_time"]).timestamp() for run in runs)


@contextmanager
def prefect_server(folder: Path, database: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a Prefect server for the block."""
    folder.mkdir()
    (port,) = free_ports(1)
    settings = {
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "OMP_NUM_THREADS": "1",
    }
    environment = os.environ | OFFLINE | settings | dict(database or {})
    environment.pop("PREFECT_API_URL", None)
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    program, api = Program(*command, environment=environment, log=folder / "log"), f"http://127.0.0.1:{port}/api"
    try:
        program.wait_for(lambda: _healthy(api), seconds=600)
        quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "DASK_LOGGING__DISTRIBUTED": "warning"}
        yield Server(program, environment | quiet | {"PREFECT_API_URL": api})
    finally:
        program.stop()


def _healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).json() is True
    except (httpx.HTTPError, ValueError):
        return False


def one_certificate(folder: Path) -> dict[str, str]:
    """Have Prefect's clients read one certificate instead of 140, twice per task run; plain HTTP needs none."""
    path = folder / "one.pem"
    bundle, end = Path(certifi.where()).read_text(encoding="utf-8"), "-----END CERTIFICATE-----"
    path.write_text(bundle[bundle.index("-----BEGIN") : bundle.index(end)] + end + "\n")
    return {"PREFECT_API_SSL_CERT_FILE": str(path)}


@dataclass
class Dask:
    """A scheduler and workers with one thread each, started by their own commands."""

    address: str
    scheduler: Program
    workers: list[Program]


@contextmanager
def dask_cluster(folder: Path, workers: int, environment: Mapping[str, str]) -> Iterator[Dask]:
    """Start a Dask cluster for the block."""
    folder.mkdir(exist_ok=True)
    (port,) = free_ports(1)
    address, environment = f"tcp://127.0.0.1:{port}", {**environment, **ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
    options = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    with ExitStack() as started:

        def start(*command: str) -> Program:
            log = folder / f"dask-{port}-{command[0]}.log"
            program = Program("dask", *command, *options, environment=environment, log=log)
            started.callback(program.stop)
            return program

        scheduler = start("scheduler", "--port", str(port))
        started_workers = [
            start("worker", address, "--nthreads", "1", "--local-directory", str(folder)) for _ in range(workers)
        ]
        with Client(address, timeout=300) as client:
            client.wait_for_workers(workers, timeout=300)
        yield Dask(address, scheduler, started_workers)


# ---- a measured sweep


@dataclass
class Spent:
    """CPU seconds of a sweep by kind of process, and wall-clock seconds of its stage and of the whole command."""

    cpu: dict[str, float]
    seconds: float
    command: float
    began: float  # start of the stage, in seconds since 1970
    memory: list[tuple[float, int, float]] = field(default_factory=list)  # seconds, shards done, bytes of the flow


def run_sweep(
    server: Server, dask: Dask, run: Run, name: str, *, shards_per_task: int = 1, every: float = 0, log: Path
) -> Spent:
    """Compute what is missing of `name` (benchmarks.simulated); sample the memory of the flow each `every` seconds."""
    watched = {"scheduler": [dask.scheduler], "workers": dask.workers, "server": [server.program]}
    before, start = cpu_of(watched), time.monotonic()
    more = ("--scheduler", dask.address, "--shards-per-task", str(shards_per_task))
    command = ("benchmarks.simulated", run.url, name, *more)
    flow = Program(*command, environment=server.environment, log=log)
    memory, settled, cpu = [], before, 0.0
    try:
        while flow.popen.poll() is None:
            time.sleep(every or 0.2)
            cpu = flow.cpu() or cpu
            if every:
                show_memory(now := (time.monotonic() - start, done(run), flow.memory()))
                memory += [now] if now[-1] else []  # it may have ended meanwhile
    finally:
        flow.stop()
    if flow.popen.returncode:
        output = "\n".join(program.output() for program in (flow, dask.scheduler, *dask.workers))
        raise RuntimeError(f"the sweep failed:\n{output}")
    took, settled = time.monotonic() - start, cpu_of(watched)
    report = json.loads(
        next(line for line in reversed(log.read_text(encoding="utf-8").splitlines()) if line.startswith("{"))
    )
    spent = {kind: settled[kind] - before[kind] for kind in watched}
    spent |= {"flow": report["cpu"], "start": cpu - report["cpu"]}
    return Spent(spent, report["seconds"], took, report["began"], memory)


def cpu_of(programs: Mapping[str, list[Program]]) -> dict[str, float]:
    """Sum the CPU seconds of each kind of program."""
    return {kind: sum(program.cpu() for program in group) for kind, group in programs.items()}


def done(run: Run) -> int:
    """Count the committed shards of a simulated sweep."""
    return len(run.done("simulated"))


def empty_run(folder: Path, name: str, shards: int) -> Run:
    """Create a run with this many shards of pairs."""
    settings = parse_settings({"networks": SMALL, "pairs": {"count": 4 * shards, "shard_size": 4}})
    return new_run(str(folder / name), settings)


def warm(server: Server, dask: Dask, folder: Path) -> None:
    """Run a sweep with some tasks for each worker, so that all have imported what they need."""
    run = empty_run(folder, f"warm-{dask.address.rpartition(':')[2]}", 4 * len(dask.workers))
    run_sweep(server, dask, run, waiting(1), log=folder / "warm.log")


# ---- many


def many(server: Server, dask: Dask, folder: Path, tasks: int, every: float) -> None:
    """Measure memory, records and CPU of many task runs that do nothing."""
    run = empty_run(folder, "many", tasks)
    spent = run_sweep(server, dask, run, NOTHING, every=every, log=folder / "many.log")
    peak, later = max(rss for _, _, rss in spent.memory), [rss for _, at, rss in spent.memory if at >= tasks / 10]
    console.print(f"{tasks:,} task runs in {spent.seconds:.0f} s: {tasks / spent.seconds:.1f} per second")
    console.print(
        f"flow process: at most {peak / MB:.0f} MB; {later[0] / MB:.0f} MB after a tenth of the tasks, "
        f"{later[-1] / MB:.0f} MB at the end"
        if later
        else f"flow process: at most {peak / MB:.0f} MB"
    )
    shards = Run.open(run.url).done("simulated")
    console.print(f"records in the store: {len(shards):,} of {tasks:,}")
    recorded, completed = server.count(f"{NOTHING}-"), server.count(f"{NOTHING}-", "Completed")
    console.print(f"task runs recorded by the server: {recorded:,}, of which Completed: {completed:,}")
    show_cpu_per_task(spent, tasks)


def show_memory(sample: tuple[float, int, float]) -> None:
    """Print a sample of the flow's memory."""
    seconds, shards, rss = sample
    console.print(f"  {seconds:6.0f} s  {shards:6,} records  {rss / MB:6.0f} MB", soft_wrap=True)


def show_cpu_per_task(spent: Spent, tasks: int) -> None:
    """Print the CPU time per task by kind of process."""
    kinds = ("flow", "scheduler", "workers", "server")
    table = table_of("", *kinds, "total", "without the server")
    each = [spent.cpu[kind] / tasks * 1000 for kind in kinds]
    table.add_row("CPU ms per task", *(f"{ms:.1f}" for ms in [*each, sum(each), sum(each[:-1])]))
    console.print(table)
    console.print(f"plus {spent.cpu['start']:.1f} CPU s of the flow process, once, before and after the stage")


# ---- overhead


def overhead(server: Server, dask: Dask, folder: Path, tasks: int, seconds: float) -> None:
    """Measure real inversions of a small network in tasks of four shards that take `seconds` of CPU time each."""
    iterations = iterations_that_take(seconds / 4, folder)
    run = run_to_invert(folder, "overhead", shards=4 * tasks, iterations=iterations)
    spent = run_sweep(server, dask, run, "invert", shards_per_task=4, log=folder / "overhead.log")
    facts = [run.record("invert", name, shard).facts for name, shard in run.done("invert")]
    work = sum(fact["cpu"] for fact in facts)
    extra = spent.cpu["flow"] + spent.cpu["scheduler"] + spent.cpu["workers"] - work
    with_server = extra + spent.cpu["server"]
    console.print(
        f"{tasks} tasks of {work / tasks:.1f} CPU s each in {spent.seconds:.0f} s; overhead {extra:.2f} CPU s "
        f"({1000 * extra / tasks:.0f} ms per task), with the server {with_server:.2f}"
    )
    console.print(
        f"share of all CPU: {extra / (work + extra):.2%}, with the server {with_server / (work + with_server):.2%}"
    )
    spent.cpu["workers"] -= work
    show_cpu_per_task(spent, tasks)


def run_to_invert(folder: Path, name: str, *, shards: int, iterations: int) -> Run:
    """Create a run of which only the inversions are missing, `shards` in all."""
    settings = {
        "networks": ["one=small:resnet18@none", f"two={random_weights(folder, 1)}"],
        "pairs": {"count": 16 * shards, "shard_size": 32},
        "inversion": {"batch_size": 32, "iterations": iterations},
    }
    run = new_run(str(folder / name), parse_settings(settings))
    for stage in (TRAIN, DRAW):
        finish(run, stage)
    return run


def iterations_that_take(seconds: float, folder: Path) -> int:
    """Return the number of iterations for which a shard of `run_to_invert` takes about this many CPU seconds."""
    trial = run_to_invert(folder, f"trial-{seconds:g}", shards=6, iterations=TRIAL)
    invert.compute(trial, "one", 0)  # loads the network
    start = time.thread_time()
    for shard in (1, 2):
        invert.compute(trial, "one", shard)
    return max(1, round(2 * TRIAL * seconds / (time.thread_time() - start)))


TRIAL = 20
"""Iterations of the shards whose time is measured to choose the number of iterations."""


# ---- latency


def latency(server: Server, dask: Dask, folder: Path, times: int) -> None:
    """Measure the real command on workers that have computed before, and on workers that it starts itself."""
    sweep = json.dumps({"networks": SMALL, "pairs": {"count": 32, "shard_size": 8}, "inversion": {"iterations": 5}})
    (folder / "tiny.yaml").write_text(sweep)
    table = table_of("seconds to the first commit", "from the command", "from the first submission")
    for kind, where in {
        "running workers": ("--scheduler", dask.address),
        "--workers 2": ("--workers", "2"),
    }.items():
        found = [
            first_commit(server, folder / f"latency-{kind[-1]}-{k}", folder / "tiny.yaml", where) for k in range(times)
        ]
        table.add_row(kind, *(median_and_range(values) for values in zip(*found, strict=True)))
    console.print(table)


def first_commit(server: Server, store: Path, settings: Path, where: tuple[str, str]) -> tuple[float, float]:
    """Return the seconds to the first commit record from the command, and from the start of its first stage."""
    start, log = time.time(), store.with_suffix(".log")
    command = ("flows.cli", "run", str(settings), "--store", str(store), *where)
    program = Program(*command, environment=server.environment, log=log)
    try:
        program.wait_for(lambda: any((store / "commits").rglob("*.json")), seconds=300)
        committed = min(path.stat().st_mtime for path in (store / "commits").rglob("*.json"))
        began = server.first_start("train", store)
        assert program.popen.wait(timeout=600) == 0, log.read_text()
    finally:
        program.stop()
    return committed - start, committed - began


def median_and_range(values: Iterable[float], digits: int = 1) -> str:
    """Format the median of values, and their range in brackets."""
    values = list(values)
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


# ---- scaling


def scaling(server: Server, folder: Path, pairs: int) -> None:
    """Measure shards per second by turns on one and two workers.

    Shards are 16 real inversions of 2.5 CPU s, four per task run; the same in processes without Prefect, Dask or
    commits, which is the limit of the machine; and 16 that wait for 2.5 s.
    """
    table = table_of("", "one worker", "two workers", "ratio", "ratio of workers' CPU", "ratio for equal CPU")
    with dask_cluster(folder, 1, server.environment) as one, dask_cluster(folder, 2, server.environment) as two:
        warm(server, one, folder)
        warm(server, two, folder)
        iterations = iterations_that_take(2.5, folder)
        for name in ("invert", BARE, waiting(2.5)):
            rates: dict[str, list[float]] = {"one": [], "two": [], "cpu one": [], "cpu two": []}
            for k in range(pairs):
                for kind, dask in {"one": one, "two": two}.items():
                    run = run_for(folder, f"scaling-{name.replace('/', '-')}-{kind}-{k}", name, iterations)
                    log = folder / f"{kind}-{k}-{name[:4]}.log"
                    if name == BARE:
                        spent = run_bare(run, len(dask.workers), log)
                    else:
                        spent = run_sweep(server, dask, run, name, shards_per_task=4, log=log)
                    rates[kind].append(SCALED / spent.seconds)
                    rates[f"cpu {kind}"].append(spent.cpu["workers"] / spent.seconds)
                    console.print(f"  {name}, {kind}: {rates[kind][-1]:.3f}/s, load {os.getloadavg()[0]:.1f}")
            ratios, cpus = divided(rates["two"], rates["one"]), divided(rates["cpu two"], rates["cpu one"])
            each = [median_and_range(rates[kind], 3) for kind in ("one", "two")]
            equal = median_and_range([2 * a / b for a, b in zip(ratios, cpus, strict=True)], 2)
            shown = "" if name.startswith(WAIT) else equal
            table.add_row(name, *each, median_and_range(ratios, 2), median_and_range(cpus, 2), shown)
    console.print(table)


BARE = "bare"
"""Name of inversions in bare processes."""

SCALED = 16
"""Shards of a sweep in `scaling`."""


def run_for(folder: Path, place: str, name: str, iterations: int) -> Run:
    """Create the run of one measurement of `scaling`."""
    if name.startswith(WAIT):
        return empty_run(folder, place, SCALED)
    return run_to_invert(folder, place, shards=SCALED, iterations=iterations)


def run_bare(run: Run, processes: int, log: Path) -> Spent:
    """Compute what is missing in processes of `benchmarks.simulated` that begin together."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    logs = [log.with_suffix(f".{k}") for k in range(processes)]
    with ExitStack() as started:
        programs = [
            Program("benchmarks.simulated", run.url, f"bare/{k}/{processes}", environment=environment, log=path)
            for k, path in enumerate(logs)
        ]
        for k, program in enumerate(programs):
            started.callback(program.stop)
            program.wait_for(Path(f"{run.url}.ready-{k}").exists, seconds=300)
        Path(f"{run.url}.go").touch()
        for program in programs:
            if program.popen.wait(timeout=600):
                raise RuntimeError(program.output())
    reports = [json.loads(path.read_text().splitlines()[-1]) for path in logs]
    seconds = max(report["seconds"] for report in reports)
    cpu, began = sum(report["cpu"] for report in reports), min(report["began"] for report in reports)
    return Spent({"workers": cpu}, seconds, seconds, began)


def divided(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Divide element by element."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


# ---- drain


def drain(server: Server, folder: Path, count: int, postgres: bool) -> None:
    """Measure how many task runs the server records per second in a burst that is faster than the server."""
    table = table_of("", "task runs recorded per second", "CPU ms per task run")
    table.add_row("SQLite", *drained(server, folder / "sqlite.log", count))
    if postgres:
        with postgresql(folder) as database, prefect_server(folder / "postgres", database) as other:
            table.add_row("PostgreSQL, without its own CPU", *drained(other, folder / "postgres.log", count))
    console.print(table)


def drained(server: Server, log: Path, count: int) -> tuple[str, str]:
    """Return the cells of one server's row."""
    cpu, began = server.program.cpu(), time.monotonic()
    program, found = Program("benchmarks.simulated", f"burst:{count}", environment=server.environment, log=log), []
    try:
        while not found or found[-1][1] < count:
            time.sleep(0.5)
            with suppress(httpx.TimeoutException):  # it may be too busy to answer
                found.append((time.monotonic(), server.count("burst", "Completed")))
            if time.monotonic() > began + 1200:
                raise RuntimeError(
                    f"only {found[-1:]} of {count} task runs were recorded: {log.read_text(encoding='utf-8')[-2000:]}"
                )
        used = server.program.cpu() - cpu
        program.popen.wait(timeout=600)
    finally:
        program.stop()
    steady = [(at, n) for at, n in found if n >= 0.1 * count]
    (start, first), (end, last) = steady[0] if len(steady) > 1 else (began, 0), steady[-1]
    return f"{(last - first) / (end - start):.0f}", f"{1000 * used / count:.1f}"


POSTGRESQL = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def postgresql(folder: Path) -> Iterator[dict[str, str]]:
    """Start a database for the block, by the programs of Debian's postgresql-15, which refuse to run as root."""
    if not POSTGRESQL.is_dir():
        raise SystemExit(f"{POSTGRESQL} is missing; apt-get install postgresql-15, or omit --postgres")
    (port,) = free_ports(1)
    place = Path(tempfile.mkdtemp(prefix="netsim-postgres-"))  # that another user may enter
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(place, "postgres", "postgres")
        options = {"user": "postgres", "group": "postgres", "extra_groups": []}
    local = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={place}"]
    made = subprocess.run(
        [POSTGRESQL / "initdb", "-D", place / "data", "-A", "trust", "-U", "prefect"],
        cwd=place, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"initdb: {made.stderr}")
    with (folder / "postgres-log").open("wb") as log:
        program = subprocess.Popen(
            [POSTGRESQL / "postgres", "-D", place / "data", *local], cwd=place, stdout=log, stderr=log, **options
        )
    try:
        url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        deadline = time.monotonic() + 60
        while subprocess.run([POSTGRESQL / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
            assert time.monotonic() < deadline, (folder / "postgres-log").read_text()
            time.sleep(0.2)
        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
    finally:
        program.send_signal(signal.SIGINT)  # a fast shutdown
        program.wait(timeout=60)
        shutil.rmtree(place)


# ---- the command line

PARTS = ("overhead", "many", "latency", "scaling", "drain")


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)} [default: all]")
    parser.add_argument(
        "--tasks", type=int, default=10_000, help="task runs of `many`; 10,000 take half an hour on idle cores"
    )
    parser.add_argument("--every", type=float, default=20, help="seconds between two samples of the memory of `many`")
    parser.add_argument(
        "--one-certificate", action="store_true", help="let Prefect's clients read one certificate only"
    )
    parser.add_argument("--long-tasks", type=int, default=8, help="task runs of `overhead`")
    parser.add_argument("--seconds", type=float, default=30, help="CPU seconds of each of them")
    parser.add_argument("--workers", type=int, default=2, help="workers of `overhead`, `many` and `latency`")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs in `scaling`, and runs in `latency`")
    parser.add_argument("--burst", type=int, default=1000, help="task runs in `drain`")
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL too in `drain`")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all programs are stopped
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    Path("runs").mkdir(exist_ok=True)
    parts = options.parts or PARTS
    with tempfile.TemporaryDirectory(dir=Path("runs").absolute()) as place, ExitStack() as started:
        folder = Path(place)
        server = started.enter_context(prefect_server(folder / "prefect"))
        server.environment |= one_certificate(folder) if options.one_certificate else {}
        if set(parts) - {"drain", "scaling"}:
            dask = started.enter_context(dask_cluster(folder, options.workers, server.environment))
            warm(server, dask, folder)
        for part in parts:
            console.print(f"\n[bold]{part}[/bold], load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            if part == "overhead":
                overhead(server, dask, folder, options.long_tasks, options.seconds)
            elif part == "many":
                many(server, dask, folder, options.tasks, options.every)
            elif part == "latency":
                latency(server, dask, folder, options.pairs)
            elif part == "scaling":
                scaling(server, folder, options.pairs)
            else:
                drain(server, folder, options.burst, options.postgres)


if __name__ == "__main__":
    main()
