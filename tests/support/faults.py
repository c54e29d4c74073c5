"""A sweep on object storage, harmed again and again at random, ends with the same bits and computes nothing twice.

python -m support.faults [--faults 50] [--seed 0] [--markdown FILE] [--keep FOLDER]

The command line, a real Prefect server, Dask worker processes and a real S3 server. Every kind of fault comes in turn,
in an order and at moments that the seed decides; whatever ends the command is answered by the same command. A round is
a store, harmed until it is finished; then it is compared with one that nothing happened to. Exit code 1 if any bit
differs, a record changed that nobody harmed, damage was not named, or Prefect still takes a run for running.
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
from support.servers import NETSIM, auth_of, healthy, wait_until
from support.sweeps import TINY
from system.test_flow_sweep import alive

SETTINGS = TINY | {"pairs": {"count": 64, "shard_size": 8}, "inversion": {"iterations": 300, "batch_size": 8}}
"""A minute of work on two cores."""

WORKERS = 2
PATIENCE = 240.0
"""Seconds without a commit after which a sweep hangs."""

OPEN = {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "CANCELLING"]}}
NAMED = re.compile(r"^((?:train|draw|invert|embed|aggregate|report) \S+ \d+|document \S+): ", re.MULTILINE)
"""How `netsim verify` begins a line about a shard, or about the document of an array."""

NOT_FOUND = "NOT FOUND"


class PrefectServer:
    """A server that remembers, in a folder, what it was told before it was killed."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir()
        self._log, (self._port,) = folder / "log", free_ports(1)
        self.api = f"http://127.0.0.1:{self._port}/api"
        self._own = OFFLINE | {"PREFECT_HOME": str(folder), "PREFECT_PROFILES_PATH": str(folder / "profiles.toml")}
        self._settings = settings
        self.environment = self._own | {"PREFECT_API_URL": self.api}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port)]
        environment = os.environ | self._own | self._settings
        self._process = start(command, env=environment, cwd=self._log.parent, log=self._log)
        wait_until(lambda: healthy(self.api), seconds=300, what=lambda: self._log.read_text()[-2000:])

    def kill(self) -> None:
        if self._process:
            kill_group(self._process)

    def open_runs(self, what: str) -> list[str]:
        """What is not over of `flow_runs` or `task_runs`."""
        wanted, auth = {what: {"state": OPEN}}, auth_of(self.environment)
        answer = httpx.post(f"{self.api}/{what}/filter", json=wanted, auth=auth, timeout=30, verify=False)
        return [f"{run['name']} is {run['state_name']}" for run in answer.raise_for_status().json()]


def start(command: list[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """In a process group of its own, as a terminal does."""
    with log.open("ab") as output:
        return subprocess.Popen(command, env=env, cwd=cwd, stdout=output, stderr=output, start_new_session=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Sweep:
    """One store, and the command that fills it: the same one, started as often as it takes."""

    def __init__(self, name: str, storage: SeaweedFS, prefect: PrefectServer, folder: Path) -> None:
        self.name, self.store, self._root = name, f"s3://{BUCKET}/{name}", f"{BUCKET}/{name}/"
        self._storage, self._folder = storage, folder
        self._environment = os.environ | prefect.environment | storage.environment
        self._starts = 0
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        command = [*NETSIM, "run", str(self._folder / "sweep.yaml"), "--store", self.store]
        command += ["--workers", str(WORKERS), "--shards-per-task", "2"]
        self._starts += 1
        self.process = start(command, env=self._environment, cwd=self._folder, log=self._log)

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}-{self._starts:02d}.log"

    @property
    def code(self) -> int | None:
        """The command's exit code as a shell says it after Ctrl-C; None while it works."""
        code = self.process.poll()
        return 130 if code == -signal.SIGINT else code  # where it met Python on its way out, after the last word

    def said(self) -> str:
        return self._log.read_text()

    def wait(self, seconds: float) -> None:
        """Until the command has ended, or the time is over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)

    def workers(self) -> list[psutil.Process]:
        """The command's worker processes; its other child tracks resources."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return []

    def verify(self, *options: str) -> subprocess.CompletedProcess[str]:
        command = [*NETSIM, "verify", self.store, *options]
        ran: dict[str, Any] = {"env": self._environment, "cwd": self._folder, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, **ran)

    # ---- what is in the store, read without netsim

    def paths(self, below: str = "") -> set[str]:
        found = self._storage.filesystem(attempts=5).find(f"{self._root}{below}")
        return {path.removeprefix(self._root) for path in found}

    def records(self) -> dict[str, bytes]:
        """The commit records by their path."""
        return self._read(self.paths("commits"))

    def _read(self, paths: set[str]) -> dict[str, bytes]:
        places = [self._root + path for path in paths]
        found = self._storage.filesystem(attempts=5).cat(places) if places else {}
        return {place.removeprefix(self._root): data for place, data in found.items()}

    def values(self) -> dict[str, bytes]:
        """The values of every array, and the weights of networks trained here."""
        objects = self._read(self.paths())
        records = [json.loads(data) for path, data in objects.items() if path.startswith("commits/")]
        buffer = default_buffer_prototype().buffer
        store = MemoryStore({path: buffer.from_bytes(data) for path, data in objects.items()})
        group: Any = zarr.open_group(store, mode="r", zarr_format=3)
        arrays = {path for record in records for path in record["arrays"]}
        weights = {path: data for path, data in objects.items() if path.startswith("weights/")}
        return {path: np.asarray(group[path][...]).tobytes() for path in arrays} | weights

    def harm(self, path: str, harm: Callable[[bytes], bytes | None]) -> None:
        """Replace an object by what `harm` makes of it; None for nothing."""
        files, place = self._storage.filesystem(attempts=5), self._root + path
        harmed = harm(files.cat_file(place))
        if harmed is None:
            files.rm_file(place)
        else:
            files.pipe_file(place, harmed)


def unit_of(record: str) -> str:
    """commits/invert/vgg/00003.json -> invert vgg 3, as `netsim verify` names a shard"""
    _, stage, *name, shard = record.removesuffix(".json").split("/")
    return f"{stage} {'/'.join(name)} {int(shard)}"


def record_of(unit: str) -> str:
    stage, name, shard = unit.split()
    return f"commits/{stage}/{name}/{int(shard):05d}.json"


def targets(paths: set[str], records: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """What can be damaged, by sort of object: path -> whom `netsim verify` must name then."""
    found: dict[str, dict[str, str]] = {"values": {}, "records": {}, "files": {}, "documents": {}}
    owners: dict[tuple[str, str], str] = {}  # the array, and the first index of the object's key
    for path, data in records.items():
        record, unit = json.loads(data), unit_of(path)
        found["records"][path] = unit
        found["files"] |= dict.fromkeys(record["files"], unit)
        owners |= {(array, str(record["shard"])): unit for array in record["arrays"]}
    arrays = {array for array, _ in owners}
    groups = {array.rpartition("/")[0] for array in arrays}
    for path in paths:
        node = re.sub(r"/(zarr\.json|c/.*)$", "", path)
        if owner := owners.get((node, path.removeprefix(f"{node}/c/").partition("/")[0])):
            found["values"][path] = owner
        elif node in groups or (node.rpartition("/")[0] in groups and (node not in arrays or path.endswith(".json"))):
            found["documents"][path] = f"document {path}"  # of an array or its group, or a coordinate
    return {sort: of_sort for sort, of_sort in found.items() if of_sort}


def wrong_bits(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> int:
    """How many bits differ; what is not there, or is longer or shorter, is wrong as a whole."""
    wrong = 0
    for path in found.keys() | expected.keys():
        one, other = (np.frombuffer(values.get(path, b""), np.uint8) for values in (found, expected))
        same_size = one.size == other.size
        wrong += int(np.bitwise_count(one ^ other).sum()) if same_size else 8 * max(one.size, other.size)
    return wrong


@dataclass
class Fault:
    """One fault, and what came of it."""

    number: int
    kind: str
    round: int
    at: float  # seconds since the campaign began
    in_flight: int  # shards that were being computed, as Prefect's task runs tell
    hit: str = ""
    again: int = 0  # shards in flight that were lost
    ended: bool = False  # the command, by this fault
    said: str = "it went on"  # or the last line of the command
    found: str = ""  # how damage was found
    seconds: float = 0.0  # until another shard was committed, or all was done again

    def __str__(self) -> str:
        found = f"; {self.found}" if self.found else ""
        when = f"{self.number:3} {self.kind:14} round {self.round} at {self.at:5.0f} s"
        return f"{when}  {self.hit}: {self.said}{found}; {self.seconds:.0f} s"


class StuckError(Exception):
    """The campaign can't go on."""


class Campaign:
    """The faults, one after the other. `wrong` says what should not have been."""

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
        self._seen: dict[str, bytes] = {}  # every commit record of this round, as it was last seen
        (folder / "sweep.yaml").write_text(yaml.safe_dump(dict(settings)))

    # ---- the campaign

    def make_reference(self) -> Sweep:
        """A sweep that nothing happens to, by the same command."""
        self.sweep.start()
        self._progress(to_the_end=True)
        print(f"the reference took {self._now():.0f} s", flush=True)
        return self.sweep

    def run(self, kinds: list[str], reference: Sweep) -> None:
        """Have faults of these kinds in this order, in as many rounds as it takes."""
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
        self._expect(not self.left_open, f"in Prefect, {', '.join(self.left_open)}")

    def stop(self) -> None:
        """End what was started."""
        if hasattr(self.sweep, "process"):
            kill_group(self.sweep.process)

    def _open_runs(self) -> list[str]:
        return self.prefect.open_runs("flow_runs") + self.prefect.open_runs("task_runs")

    def _round(self, number: int, waiting: list[str]) -> None:
        """Harm a sweep until it is finished, or nothing is left to happen to it. Takes from `waiting`."""
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
        """Wait for a further commit, answering the command's end by the same command. False once all is done."""
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
                raise StuckError(f"no commit in {PATIENCE:.0f} s after {fault}; it said {self.sweep.said()[-2000:]}")
            time.sleep(0.3)
        self._expect("Traceback" not in self.sweep.said(), f"a traceback in the log of {self.sweep.name}")
        return False

    def _note_the_end(self, fault: Fault | None, code: int) -> None:
        """The command ended before its work did: as a fault of this kind lets it, and with one clear line?"""
        said = self.sweep.said()
        refused = [late for late in self.faults if late.kind in REFUSALS and fault and late.round == fault.round]
        if refused and not refused[-1].ended and REFUSED.search(said):
            fault = refused[-1]  # the task runs that waited were seen through before the command ended
        if fault is None or fault.ended:
            raise StuckError(f"the command ended with {code} after {fault}, for no reason: {said[-2000:]}")
        fault.ended, fault.again = True, fault.in_flight
        lines = [line for line in said.splitlines() if line.startswith("netsim: ")]
        fault.said = {130: "stopped", -9: "killed"}.get(code) or (lines[-1] if lines else said[-300:])
        expected = {"flow killed": -9, "Ctrl-C": 130}.get(fault.kind, 1)
        clear = len(lines) == (expected == 1) and not re.search("Traceback|unexpected", said)
        self._expect(code == expected and clear, f"after {fault}, the command ended with {code}: {said[-1500:]}")

    # ---- what interrupts a sweep

    def kill_flow(self, fault: Fault) -> None:
        workers = self.sweep.workers()
        self.sweep.process.kill()
        wait_until(lambda: not any(alive(worker) for worker in workers), seconds=60, what=lambda: "its workers live on")
        fault.hit = "the flow's process"

    def interrupt(self, fault: Fault) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.sweep.process.pid, signal.SIGINT)
        self.sweep.wait(60)
        if self.sweep.code is None:
            raise StuckError(f"Ctrl-C did not end the command in 60 s; it said {self.sweep.said()[-2000:]}")
        fault.hit = fault.hit or "its process group"

    def kill_workers(self, fault: Fault) -> None:
        workers = self.sweep.workers()
        victims = self.rng.sample(workers, min(len(workers), self.rng.randint(1, WORKERS)))
        for victim in victims:
            victim.kill()
        fault.hit, fault.again = f"{len(victims)} of {len(workers)}", min(len(victims), fault.in_flight)

    def kill_server(self, fault: Fault, *, which: str) -> None:
        server, seconds = getattr(self, which), self.rng.uniform(1, 3 * self.pause)
        server.kill()
        time.sleep(seconds)
        server.start()
        fault.hit = f"away for {seconds:.0f} s, and as long as it takes to start"

    def freeze_storage(self, fault: Fault) -> None:
        self.storage.freeze()
        time.sleep(2.5 * self.pause)
        self.storage.thaw()
        fault.hit = f"for {2.5 * self.pause:.0f} s"

    def refuse(self, fault: Fault, **how: bool) -> None:
        """Storage that answers, but takes nothing: until the command ends, or for a while."""
        self.storage.kill()
        self.storage.start(**how)
        since = self._now()
        self.sweep.wait(self.rng.choice([5, 90]))
        fault.hit = f"for {self._now() - since:.0f} s"
        self.storage.kill()
        self.storage.start()

    # ---- what damages it

    def damage(self, fault: Fault, *, harm: Callable[..., bytes | None]) -> None:
        """Harm an object, let the command meet it or not, have the damage found and mended, and go on."""
        sorts = targets(self.sweep.paths(), self.sweep.records())
        sort = self.rng.choice(sorted(sorts))
        path, owner = self.rng.choice(sorted(sorts[sort].items()))
        fault.hit = path if sort == "documents" else f"{path} of {owner}"
        self._may_change(path)
        self.sweep.harm(path, partial(harm, rng=self.rng))
        self.sweep.wait(self.rng.uniform(0, 4 * self.pause))
        if self.sweep.code is None:
            self.interrupt(fault)
            fault.said = "stopped for the repair"
            quiet = self.sweep.code in (0, 1, 130) and "Traceback" not in self.sweep.said()
            self._expect(quiet, f"Ctrl-C after {fault} ended with {self.sweep.code}: {self.sweep.said()[-1500:]}")
        if self.sweep.code == 1:
            self._note_the_end(fault, 1)
            ways = (path, path.partition("/c/")[0], " shard ".join(owner.rsplit(" ", 1)))
            named = not fault.ended or any(way in fault.said for way in ways)
            self._expect(named, f"the command met {path}, but says {fault.said}")
        fault.found = self._repair(fault, path, owner)
        self.sweep.start()

    def _repair(self, fault: Fault, path: str, owner: str) -> str:
        """Have the store verified and repaired, and compare what is found with what was harmed."""
        found = self._verify("--repair")
        for unit in found:
            if not unit.startswith("document "):
                self._may_change(record_of(unit))
        if found == {owner}:
            return "verify named it"
        gone = fault.kind == "object deleted" and (path.startswith("commits/") or path in self.sweep.paths())
        self._expect(gone and not found, f"{path} was harmed, and verify named {found or 'nothing'}")
        return "the command made it again" if gone else NOT_FOUND

    def _verify(self, *options: str) -> set[str]:
        """Whom `netsim verify` names."""
        done = self.sweep.verify(*options)
        found = set(NAMED.findall(done.stderr))
        plain = done.returncode == (1 if found else 0) and not re.search(
            "Traceback|^netsim:", done.stderr, re.MULTILINE
        )
        self._expect(plain, f"verify ended with {done.returncode}: {done.stderr[-1500:]}")
        return found

    # ---- what must hold

    def _may_change(self, path: str) -> None:
        """From now on, if it is a record."""
        self.renewed += self._seen.pop(path, None) is not None

    def _check_records(self) -> None:
        """A record that was seen once is there as it was, unless it was harmed or removed by a repair."""
        records = self.sweep.records()
        for path in sorted(path for path, data in self._seen.items() if records.get(path) != data):
            self._expect(False, f"after {self.faults[-1]}, {path} changed or went away")
        self._seen = records

    def _compare(self, reference: Sweep) -> None:
        """The end of a round: nothing is wrong, nothing is missing, and every bit is as in the reference."""
        before = self._seen.items()
        self._check_records()
        self.kept += len(before & self._seen.items())
        self._expect(self._seen.keys() == reference.paths("commits"), f"{self.sweep.name} has other records")
        found = self._verify()
        self._expect(not found, f"at the end of {self.sweep.name}, verify named {found}")
        bits = wrong_bits(self.sweep.values(), reference.values())
        self._expect(not bits, f"{bits} bits of {self.sweep.name} are wrong")
        self.bits += bits
        print(f"{self.sweep.name} is finished: {len(self._seen)} records, {bits} wrong bits", flush=True)

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            self.wrong.append(otherwise)
            print(f"WRONG: {otherwise}", flush=True)

    def _now(self) -> float:
        return time.monotonic() - self.began


def flip(data: bytes, *, rng: random.Random) -> bytes:
    """One bit of one byte."""
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
"""What SeaweedFS says then."""

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
    """Every kind once, in a random order, and again."""
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += rng.sample(sorted(KINDS), len(KINDS))
    return kinds[:count]


def table(campaign: Campaign) -> Iterator[str]:
    """A line of Markdown for each kind."""
    yield "| fault | times | the command went on | it ended | shards in flight, computed again | found | s to recover |"
    yield "|---|---|---|---|---|---|---|"
    for kind in KINDS:
        faults = [fault for fault in campaign.faults if fault.kind == kind]
        if not faults:
            continue
        ended, again = sum(fault.ended for fault in faults), sum(fault.again for fault in faults)
        found = sum(fault.found != NOT_FOUND for fault in faults) if kind in DAMAGE else ""
        seconds = statistics.median(fault.seconds for fault in faults)
        yield f"| {kind} | {len(faults)} | {len(faults) - ended} | {ended} | {again} | {found} | {seconds:.0f} |"


def summary(campaign: Campaign, seed: int) -> str:
    rounds, minutes = campaign.faults[-1].round if campaign.faults else 0, (time.monotonic() - campaign.began) / 60
    return (
        f"Seed {seed}: {len(campaign.faults)} faults in {rounds} rounds and {minutes:.0f} minutes. "
        f"{campaign.kept} records stayed as they were, {campaign.renewed} were harmed or removed and made again. "
        f"Wrong bits: {campaign.bits}. Runs left open in Prefect: {len(campaign.left_open)}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("--keep", type=Path, help="new folder for logs and data; default: a temporary one")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends
    with contextlib.ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netsim-faults-")))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        storage, prefect = SeaweedFS(folder / "s3"), PrefectServer(folder / "prefect")
        for server in (storage, prefect):
            stack.callback(server.kill)
            server.start()
        campaign = Campaign(folder, storage, prefect, seed=asked.seed)
        stack.callback(campaign.stop)
        try:
            campaign.run(in_turn(asked.faults, campaign.rng), campaign.make_reference())
        except (Exception, KeyboardInterrupt) as error:
            traceback.print_exc()
            campaign.wrong.append(f"{type(error).__name__}: {error}")
    text = "\n".join([*table(campaign), "", summary(campaign, asked.seed)])
    print("", text, *(f"WRONG: {what}" for what in campaign.wrong), sep="\n")
    if asked.markdown:
        asked.markdown.write_text(f"{text}\n")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
