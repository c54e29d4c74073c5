"""Fault injection: a sweep that is harmed at random ends with the same bits and computes nothing twice.

`python -m support.faults [--faults 50] [--seed 0] [--markdown FILE] [--keep FOLDER]` uses the command line, a real
Prefect server, Dask worker processes and a real S3 server. Every kind of fault comes in turn, in an order and at
moments drawn from the seed. Whenever the command ends, it is run again. A round is one store, harmed until its sweep is
complete and then compared with an undisturbed one. The exit code is 1 if any bit differs, an undamaged record changed,
damage was not named, or Prefect shows a run as running that is not.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from flows.server.offline import OFFLINE
from support.seaweed import BUCKET, SeaweedFS, free_ports
from support.servers import NETSIM, auth_of, healthy, netsim, wait_until
from support.sweeps import TINY
from support.workers import workers_of
from system.test_flow_sweep import alive

SETTINGS = TINY | {"pairs": {"count": 64, "shard_size": 8}, "inversion": {"iterations": 300, "batch_size": 8}}
"""A sweep of about a minute on two cores."""

WORKERS = 2
PATIENCE = 240.0
"""Seconds without a commit after which a sweep counts as stuck."""

OPEN = {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}
NAMED = re.compile(r"^((?:train|draw|invert|embed|aggregate|report) \S+ \d+|document \S+): ", re.MULTILINE)
"""Beginning of a line of `netsim verify` about a shard, or about the document of an array."""

NOT_FOUND = "NOT FOUND"


class PrefectServer:
    """A Prefect server with its database in a folder, so that it can be killed and started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir()
        self._log, (self._port,) = folder / "log", free_ports(1)
        self.api = f"http://127.0.0.1:{self._port}/api"
        self._base = OFFLINE | {"PREFECT_HOME": str(folder), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}
        self._settings = settings
        self.environment = self._base | {"PREFECT_API_URL": self.api}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        environment = os.environ | self._base | self._settings
        self._process = start(command, env=environment, cwd=self._log.parent, log=self._log)
        wait_until(lambda: healthy(self.api), seconds=300, what=lambda: self._log.read_text()[-2000:])

    def kill(self) -> None:
        """Kill the server with its child processes."""
        if self._process:
            kill_group(self._process)

    def open_runs(self, kind: str) -> list[str]:
        """List the runs that have not ended; `kind` is `flow_runs` or `task_runs`."""
        filters, auth = {kind: {"state": OPEN}}, auth_of(self.environment)
        answer = httpx.post(f"{self.api}/{kind}/filter", json=filters, auth=auth, timeout=30, verify=False)
        return [f"{run['name']} is {run['state_name']}" for run in answer.raise_for_status().json()]


def start(command: list[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command in its own process group, as a terminal does."""
    with log.open("ab") as output:
        return subprocess.Popen(command, env=env, cwd=cwd, stdout=output, stderr=output, start_new_session=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all others of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Sweep:
    """One store, and the command that fills it, which can be started again and again."""

    def __init__(self, name: str, storage: SeaweedFS, prefect: PrefectServer, folder: Path) -> None:
        self.name, self.store, self._root = name, f"s3://{BUCKET}/{name}", f"{BUCKET}/{name}/"
        self._storage, self._folder = storage, folder
        self._environment = os.environ | prefect.environment | storage.environment
        self._starts = 0
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start the command."""
        command = [*NETSIM, "run", str(self._folder / "sweep.yaml"), "--store", self.store]
        command += ["--workers", str(WORKERS), "--shards-per-task", "2"]
        self._starts += 1
        self.process = start(command, env=self._environment, cwd=self._folder, log=self._log)

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}-{self._starts:02d}.log"

    @property
    def code(self) -> int | None:
        """Exit code of the command, 130 after SIGINT as in a shell; None while it runs."""
        code = self.process.poll()
        return 130 if code == -signal.SIGINT else code  # if the signal met Python during shutdown

    def output(self) -> str:
        """Return what the command has printed."""
        return self._log.read_text()

    def wait(self, seconds: float) -> None:
        """Wait until the command has ended, but no longer than this."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)

    def workers(self) -> list[psutil.Process]:
        """List the command's worker processes."""
        return workers_of(self.process.pid)

    def verify(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `netsim verify` on the store."""
        return netsim("verify", self.store, *options, env=self._environment, cwd=self._folder)

    # ---- the contents of the store, read without netsim

    def paths(self, folder: str = "") -> set[str]:
        """List the objects of the store, or of one of its folders."""
        paths = self._storage.filesystem(attempts=5).find(f"{self._root}{folder}")
        return {path.removeprefix(self._root) for path in paths}

    def records(self) -> dict[str, bytes]:
        """Read the commit records, by path."""
        return self._read(self.paths("commits"))

    def _read(self, paths: set[str]) -> dict[str, bytes]:
        keys = [self._root + path for path in paths]
        objects = self._storage.filesystem(attempts=5).cat(keys) if keys else {}
        return {key.removeprefix(self._root): data for key, data in objects.items()}

    def values(self) -> dict[str, bytes]:
        """Read the values of every array, and the weights of networks trained in this run."""
        objects = self._read(self.paths())
        records = [json.loads(data) for path, data in objects.items() if path.startswith("commits/")]
        buffer = default_buffer_prototype().buffer
        store = MemoryStore({path: buffer.from_bytes(data) for path, data in objects.items()})
        group: Any = zarr.open_group(store, mode="r", zarr_format=3)
        arrays = {path for record in records for path in record["arrays"]}
        weights = {path: data for path, data in objects.items() if path.startswith("weights/")}
        return {path: np.asarray(group[path][...]).tobytes() for path in arrays} | weights

    def harm(self, path: str, harm: Callable[[bytes], bytes | None]) -> None:
        """Replace an object by the result of `harm`; delete it if that is None."""
        files, key = self._storage.filesystem(attempts=5), self._root + path
        harmed = harm(files.cat_file(key))
        if harmed is None:
            files.rm_file(key)
        else:
            files.pipe_file(key, harmed)


def unit_of(record: str) -> str:
    """Name a record's shard as `netsim verify` does: commits/invert/vgg/00003.json -> invert vgg 3."""
    _, stage, *name, shard = record.removesuffix(".json").split("/")
    return f"{stage} {'/'.join(name)} {int(shard)}"


def record_of(unit: str) -> str:
    """Return the path of a shard's record: invert vgg 3 -> commits/invert/vgg/00003.json."""
    stage, name, shard = unit.split()
    return f"commits/{stage}/{name}/{int(shard):05d}.json"


def targets(paths: set[str], records: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Map the objects that can be damaged, by sort and path, to what `netsim verify` must name then."""
    objects: dict[str, dict[str, str]] = {"values": {}, "records": {}, "files": {}, "documents": {}}
    owners: dict[tuple[str, str], str] = {}  # the array, and the first index of the object's key
    for path, data in records.items():
        record, unit = json.loads(data), unit_of(path)
        objects["records"][path] = unit
        objects["files"] |= dict.fromkeys(record["files"], unit)
        owners |= {(array, str(record["shard"])): unit for array in record["arrays"]}
    arrays = {array for array, _ in owners}
    groups = {array.rpartition("/")[0] for array in arrays}
    for path in paths:
        node = re.sub(r"/(zarr\.json|c/.*)$", "", path)
        if owner := owners.get((node, path.removeprefix(f"{node}/c/").partition("/")[0])):
            objects["values"][path] = owner
        elif node in groups or (node.rpartition("/")[0] in groups and (node not in arrays or path.endswith(".json"))):
            objects["documents"][path] = f"document {path}"  # of an array or its group, or a coordinate
    return {sort: of_sort for sort, of_sort in objects.items() if of_sort}


def wrong_bits(actual: Mapping[str, bytes], expected: Mapping[str, bytes]) -> int:
    """Count the bits that differ; an object that is missing or has another size is wrong as a whole."""
    wrong = 0
    for path in actual.keys() | expected.keys():
        one, other = (np.frombuffer(values.get(path, b""), np.uint8) for values in (actual, expected))
        same_size = one.size == other.size
        wrong += int(np.bitwise_count(one ^ other).sum()) if same_size else 8 * max(one.size, other.size)
    return wrong


@dataclass
class Fault:
    """One fault and its consequences."""

    number: int
    kind: str
    round: int
    at: float  # seconds since the campaign began
    in_flight: int  # shards that were being computed, by Prefect's task runs
    target: str = ""
    recomputed: int = 0  # shards in flight that were lost
    ended: bool = False  # the command, by this fault
    outcome: str = "continued"  # or the last line of the command
    found: str = ""  # how damage was found
    seconds: float = 0.0  # until another shard was committed, or everything was complete again

    def __str__(self) -> str:
        found = f"; {self.found}" if self.found else ""
        when = f"{self.number:3} {self.kind:14} round {self.round} at {self.at:5.0f} s"
        return f"{when}  {self.target}: {self.outcome}{found}; {self.seconds:.0f} s"


class StuckError(Exception):
    """The campaign cannot continue."""


class Campaign:
    """The faults, one after the other; `wrong` lists everything that should not have happened."""

    def __init__(
        self,
        folder: Path,
        storage: SeaweedFS,
        prefect: PrefectServer,
        *,
        seed: int,
        settings: Mapping[str, Any] = SETTINGS,
        pause: float = 4.0,
    ) -> None:
        self.folder, self.storage, self.prefect = folder, storage, prefect
        self.rng, self.pause, self.began = random.Random(seed), pause, time.monotonic()
        self.faults: list[Fault] = []
        self.wrong: list[str] = []
        self.left_open: list[str] = []
        self.bits = self.kept = self.renewed = 0
        self.sweep = Sweep("reference", storage, prefect, folder)
        self._seen: dict[str, bytes] = {}  # every commit record of this round, as last read
        (folder / "sweep.yaml").write_text(yaml.safe_dump(dict(settings)))

    # ---- the campaign

    def make_reference(self) -> Sweep:
        """Run the same command undisturbed."""
        self.sweep.start()
        self._progress(to_the_end=True)
        print(f"the reference took {self._now():.0f} s", flush=True)
        return self.sweep

    def run(self, kinds: list[str], reference: Sweep) -> None:
        """Inject faults of these kinds in this order, in as many rounds as necessary."""
        waiting, rounds = list(kinds), 0
        while waiting:
            rounds += 1
            self.sweep, self._seen = Sweep(f"round-{rounds}", self.storage, self.prefect, self.folder), {}
            self.sweep.start()
            self._round(rounds, waiting)
            self._compare(reference)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self._open_runs(), seconds=60)
        self.left_open = self._open_runs()
        self._expect(not self.left_open, f"left open in Prefect: {', '.join(self.left_open)}")

    def stop(self) -> None:
        """Kill the sweep's processes."""
        if hasattr(self.sweep, "process"):
            kill_group(self.sweep.process)

    def _open_runs(self) -> list[str]:
        return self.prefect.open_runs("flow_runs") + self.prefect.open_runs("task_runs")

    def _round(self, number: int, waiting: list[str]) -> None:
        """Harm a sweep until it is complete or `waiting` is empty; removes the kinds it used from `waiting`."""
        working = self._progress()
        while waiting and (working or (waiting[0] in DAMAGE and self.rng.random() < 0.5)):
            in_flight = min(WORKERS, len(self.prefect.open_runs("task_runs"))) if working else 0
            fault = Fault(len(self.faults) + 1, waiting.pop(0), number, self._now(), in_flight)
            self.faults.append(fault)
            KINDS[fault.kind](self, fault)
            working = self._progress(fault)
            fault.seconds = self._now() - fault.at
            self._check_records()
            time.sleep(self.rng.uniform(0, self.pause) if working else 0)
            if self.sweep.code is not None:
                working = self._progress(fault)
            print(fault, flush=True)
        self._progress(self.faults[-1], to_the_end=True)

    def _progress(self, fault: Fault | None = None, *, to_the_end: bool = False) -> bool:
        """Wait for another commit, restarting the command when it ends; return False once everything is complete."""
        before, deadline = self.sweep.paths("commits"), time.monotonic() + PATIENCE
        while (code := self.sweep.code) != 0:
            if code is not None:
                self._note_the_end(fault, code)
                self.sweep.start()
            elif (now := self.sweep.paths("commits")) - before:
                if not to_the_end:
                    return True
                before, deadline = now, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise StuckError(
                    f"no commit in {PATIENCE:.0f} s after {fault}; the command printed {self.sweep.output()[-2000:]}"
                )
            time.sleep(0.3)
        self._expect("Traceback" not in self.sweep.output(), f"a traceback in the log of {self.sweep.name}")
        return False

    def _note_the_end(self, fault: Fault | None, code: int) -> None:
        """Check that a command that ended early did so as this kind of fault permits, with one clear line."""
        output = self.sweep.output()
        refused = [late for late in self.faults if late.kind in REFUSALS and fault and late.round == fault.round]
        if refused and not refused[-1].ended and REFUSED.search(output):
            fault = refused[-1]  # task runs in progress were finished before the command ended
        if fault is None or fault.ended:
            raise StuckError(f"the command ended with {code} after {fault}, for no reason: {output[-2000:]}")
        fault.ended, fault.recomputed = True, fault.in_flight
        lines = [line for line in output.splitlines() if line.startswith("netsim: ")]
        fault.outcome = {130: "stopped", -9: "killed"}.get(code) or (lines[-1] if lines else output[-300:])
        expected = {"flow killed": -9, "Ctrl-C": 130}.get(fault.kind, 1)
        clear = len(lines) == (expected == 1) and not re.search("Traceback|unexpected", output)
        self._expect(code == expected and clear, f"after {fault}, the command ended with {code}: {output[-1500:]}")

    # ---- faults that interrupt a sweep

    def kill_flow(self, fault: Fault) -> None:
        """Kill the flow's process, and wait until its workers have ended."""
        workers = self.sweep.workers()
        self.sweep.process.kill()
        wait_until(
            lambda: not any(alive(worker) for worker in workers), seconds=60, what=lambda: "its workers are still alive"
        )
        fault.target = "the flow's process"

    def interrupt(self, fault: Fault) -> None:
        """Send Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.sweep.process.pid, signal.SIGINT)
        self.sweep.wait(60)
        if self.sweep.code is None:
            raise StuckError(f"Ctrl-C did not end the command in 60 s; it printed {self.sweep.output()[-2000:]}")
        fault.target = fault.target or "its process group"

    def kill_workers(self, fault: Fault) -> None:
        """Kill some of the workers."""
        wait_until(
            lambda: self.sweep.workers() or self.sweep.code is not None, seconds=60, what=lambda: "there are no workers"
        )
        workers = self.sweep.workers()
        victims = self.rng.sample(workers, min(len(workers), self.rng.randint(1, WORKERS)))
        for victim in victims:
            victim.kill()
        fault.target, fault.recomputed = f"{len(victims)} of {len(workers)}", min(len(victims), fault.in_flight)

    def kill_server(self, fault: Fault, *, which: str) -> None:
        """Kill a server and restart it after a while."""
        server, seconds = getattr(self, which), self.rng.uniform(1, 3 * self.pause)
        server.kill()
        time.sleep(seconds)
        server.start()
        fault.target = f"down for {seconds:.0f} s and the time it takes to start"

    def freeze_storage(self, fault: Fault) -> None:
        """Let the connections to the storage hang."""
        self.storage.freeze()
        time.sleep(2.5 * self.pause)
        self.storage.thaw()
        fault.target = f"for {2.5 * self.pause:.0f} s"

    def refuse(self, fault: Fault, **how: bool) -> None:
        """Let the storage refuse every PUT, until the command ends or for a while."""
        self.storage.kill()
        self.storage.start(**how)
        since = self._now()
        self.sweep.wait(self.rng.choice([5, 90]))
        fault.target = f"for {self._now() - since:.0f} s"
        self.storage.kill()
        self.storage.start()

    # ---- faults that damage its store

    def damage(self, fault: Fault, *, harm: Callable[..., bytes | None]) -> None:
        """Harm an object while the command may or may not read it, repair the store, and resume."""
        sorts = targets(self.sweep.paths(), self.sweep.records())
        sort = self.rng.choice(sorted(sorts))
        path, owner = self.rng.choice(sorted(sorts[sort].items()))
        fault.target = path if sort == "documents" else f"{path} of {owner}"
        self._may_change(path)
        self.sweep.harm(path, partial(harm, rng=self.rng))
        self.sweep.wait(self.rng.uniform(0, 4 * self.pause))
        if self.sweep.code is None:
            self.interrupt(fault)
            fault.outcome = "stopped for the repair"
            quiet = self.sweep.code in (0, 1, 130) and "Traceback" not in self.sweep.output()
            self._expect(quiet, f"Ctrl-C after {fault} ended with {self.sweep.code}: {self.sweep.output()[-1500:]}")
        if self.sweep.code == 1:
            self._note_the_end(fault, 1)
            ways = (path, path.partition("/c/")[0], " shard ".join(owner.rsplit(" ", 1)))
            named = not fault.ended or any(way in fault.outcome for way in ways)
            self._expect(named, f"the command read {path}, but printed {fault.outcome}")
        fault.found = self._repair(fault, path, owner)
        self.sweep.start()

    def _repair(self, fault: Fault, path: str, owner: str) -> str:
        """Verify and repair the store, and compare what it named with what was harmed."""
        named = self._verify("--repair")
        for unit in named:
            if not unit.startswith("document "):
                self._may_change(record_of(unit))
        if named == {owner}:
            return "verify named it"
        gone = fault.kind == "object deleted" and (path.startswith("commits/") or path in self.sweep.paths())
        self._expect(gone and not named, f"{path} was harmed, but verify named {named or 'nothing'}")
        return "the command made it again" if gone else NOT_FOUND

    def _verify(self, *options: str) -> set[str]:
        """List what `netsim verify` names."""
        done = self.sweep.verify(*options)
        named = set(NAMED.findall(done.stderr))
        plain = done.returncode == (1 if named else 0) and not re.search(
            "Traceback|^netsim:", done.stderr, re.MULTILINE
        )
        self._expect(plain, f"verify ended with {done.returncode}: {done.stderr[-1500:]}")
        return named

    # ---- checks

    def _may_change(self, path: str) -> None:
        """Permit the record at `path`, if it is one, to change from now on."""
        self.renewed += self._seen.pop(path, None) is not None

    def _check_records(self) -> None:
        """Check that no record changed unless it was harmed or removed for a repair."""
        records = self.sweep.records()
        for path in sorted(path for path, data in self._seen.items() if records.get(path) != data):
            self._expect(False, f"after {self.faults[-1]}, {path} changed or disappeared")
        self._seen = records

    def _compare(self, reference: Sweep) -> None:
        """Check at the end of a round that nothing is damaged or missing, and every bit is that of the reference."""
        before = self._seen.items()
        self._check_records()
        self.kept += len(before & self._seen.items())
        self._expect(self._seen.keys() == reference.paths("commits"), f"{self.sweep.name} has other records")
        named = self._verify()
        self._expect(not named, f"at the end of {self.sweep.name}, verify named {named}")
        bits = wrong_bits(self.sweep.values(), reference.values())
        self._expect(not bits, f"{bits} bits of {self.sweep.name} are wrong")
        self.bits += bits
        print(f"{self.sweep.name} is complete: {len(self._seen)} records, {bits} wrong bits", flush=True)

    def _expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.wrong.append(problem)
            print(f"WRONG: {problem}", flush=True)

    def _now(self) -> float:
        return time.monotonic() - self.began


def flip(data: bytes, *, rng: random.Random) -> bytes:
    """Flip one bit."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[Campaign, Fault], None]] = {
    "byte flipped": partial(Campaign.damage, harm=flip),
    "object emptied": partial(Campaign.damage, harm=lambda data, *, rng: b""),
    "object deleted": partial(Campaign.damage, harm=lambda data, *, rng: None),
}
REFUSALS: dict[str, Callable[[Campaign, Fault], None]] = {
    "S3 full": partial(Campaign.refuse, full=True),
    "S3 denies": partial(Campaign.refuse, writable=False),
}
REFUSED = re.compile("internal error|Access Denied")
"""Answers of SeaweedFS when it refuses."""

KINDS: dict[str, Callable[[Campaign, Fault], None]] = {
    "flow killed": Campaign.kill_flow,
    "workers killed": Campaign.kill_workers,
    "Ctrl-C": Campaign.interrupt,
    "Prefect killed": partial(Campaign.kill_server, which="prefect"),
    "S3 killed": partial(Campaign.kill_server, which="storage"),
    "S3 frozen": Campaign.freeze_storage,
    **REFUSALS,
    **DAMAGE,
}


def in_turn(count: int, rng: random.Random) -> list[str]:
    """Repeat all kinds, each time in a random order."""
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += rng.sample(sorted(KINDS), len(KINDS))
    return kinds[:count]


def table(campaign: Campaign) -> Iterator[str]:
    """Yield the lines of a Markdown table with one row per kind."""
    columns = ("fault", "times", "command continued", "command ended", "in-flight shards recomputed", "damage found")
    yield f"| {' | '.join(columns)} | recovery, s |"
    yield "|---|---|---|---|---|---|---|"
    for kind in KINDS:
        faults = [fault for fault in campaign.faults if fault.kind == kind]
        if not faults:
            continue
        ended, recomputed = sum(fault.ended for fault in faults), sum(fault.recomputed for fault in faults)
        found = sum(fault.found != NOT_FOUND for fault in faults) if kind in DAMAGE else ""
        seconds = statistics.median(fault.seconds for fault in faults)
        yield f"| {kind} | {len(faults)} | {len(faults) - ended} | {ended} | {recomputed} | {found} | {seconds:.0f} |"


def summary(campaign: Campaign, seed: int) -> str:
    """Summarise a campaign in a few sentences."""
    rounds, minutes = campaign.faults[-1].round if campaign.faults else 0, (time.monotonic() - campaign.began) / 60
    return (
        f"Seed {seed}: {len(campaign.faults)} faults in {rounds} rounds and {minutes:.0f} minutes. "
        f"{campaign.kept} records stayed unchanged; {campaign.renewed} were damaged or removed, and made again. "
        f"Wrong bits: {campaign.bits}. Runs left open in Prefect: {len(campaign.left_open)}."
    )


def main() -> int:
    """Run a campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    parser.add_argument("--keep", type=Path, help="folder to keep logs and data in [default: a temporary one]")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all processes started here end
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netsim-faults-")))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        storage, prefect = SeaweedFS(folder / "s3"), PrefectServer(folder / "prefect")
        for server in (storage, prefect):
            stack.callback(server.kill)
            server.start()
        campaign = Campaign(folder, storage, prefect, seed=options.seed)
        stack.callback(campaign.stop)
        try:
            campaign.run(in_turn(options.faults, campaign.rng), campaign.make_reference())
        except (Exception, KeyboardInterrupt) as error:
            traceback.print_exc()
            campaign.wrong.append(f"{type(error).__name__}: {error}")
    text = "\n".join([*table(campaign), "", summary(campaign, options.seed)])
    print("", text, *(f"WRONG: {problem}" for problem in campaign.wrong), sep="\n")
    if options.markdown:
        options.markdown.write_text(f"{text}\n")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
