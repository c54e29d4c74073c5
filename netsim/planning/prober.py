"""A process that measures networks for a plan: it imports what a worker imports, once, and forks for each measurement.

`python -m netsim.planning.prober [MODULE ...]` reads a line for each measurement from its standard input, and writes a
line with its result. It starts no thread before it forks, as the process that forks the workers of one machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import fmean
from types import TracebackType
from typing import Any, Self

from netsim import errors
from netsim.errors import NetsimError, NetworkError
from netsim.networks.load import network_source
from netsim.planning.probe import Probe, ProbeRequest, host_bytes, probe
from netsim.settings import parse_settings


class Prober:
    """Measures networks, each in new processes, from which nothing of other measurements remains.

    Use it as a context manager. It starts at once, so that its imports go on beside what the caller does.

    Parameters
    ----------
    imports
        Modules that a worker imports, which take memory.
    environment
        Environment variables of a worker.
    """

    def __init__(self, imports: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "netsim.planning.prober", *imports],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def measure(self, request: ProbeRequest, processes: int = 1) -> Probe:
        """Measure one network in `processes` processes at once; return mean seconds and peak bytes.

        Raises
        ------
        NetsimError
            The error that the measurement raised, or NetworkError if it was killed or failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps({"processes": processes} | asdict(request)), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            raise NetworkError(f"{request.name}: measuring failed: {self._log.read().strip().splitlines()[-1:]}")
        return _combined([_probe_of(request.name, answer) for answer in json.loads(line)])


def _probe_of(name: str, answer: Mapping[str, Any]) -> Probe:
    """Return what a process answered. Raises the error that it met."""
    if "error" in answer:
        kind, text = answer["error"]
        raise getattr(errors, kind, NetsimError)(text)
    if "signal" in answer:
        raise NetworkError(
            f"{name}: measuring was killed (signal {answer['signal']}), probably for lack of memory; "
            "use a smaller inversion.batch_size or a machine with more memory"
        )
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in answer.items()}
    return Probe(**values)


def _combined(probes: Sequence[Probe]) -> Probe:
    """Return the mean of all seconds, and the largest peak."""
    combined: dict[str, Any] = {
        field.name: fmean(getattr(probe, field.name) for probe in probes)
        for field in fields(Probe)
        if field.type is float
    }
    combined["iteration"] = tuple(fmean(times) for times in zip(*(probe.iteration for probe in probes), strict=True))
    combined["host_bytes"] = max(probe.host_bytes for probe in probes)
    return replace(probes[0], **combined)


# ---- in the process that forks


def serve(lines: Iterable[str], modules: Sequence[str]) -> None:
    """Answer requests, a line each, until there are no more. What networks print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for module in modules:
        import_module(module)
    for line in lines:
        values = json.loads(line)
        processes = values.pop("processes")
        request = ProbeRequest(**values)
        _import_sources(request)
        print(json.dumps(_measure(request, processes)), file=answers, flush=True)


def _import_sources(request: ProbeRequest) -> None:
    """Import what builds the networks of a sweep, for all measurements at once: torchvision takes seconds."""
    settings = parse_settings(request.settings)
    for member in (*settings.members, *settings.observing):
        network_source(member.reference.partition(":")[0])


def _measure(request: ProbeRequest, processes: int) -> list[dict[str, Any]]:
    """Measure in forked processes at once."""
    imported = host_bytes()
    context = get_context("fork")
    started = []
    for _ in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(request, sender, imported), daemon=True)
        process.start()
        sender.close()
        started.append((process, receiver))
    answers = []
    for process, receiver in started:
        try:
            answers.append(receiver.recv())
        except EOFError:
            process.join()
            answers.append({"signal": -(process.exitcode or 0)})
        process.join()
    return answers


def _answer(request: ProbeRequest, sender: Connection, imported: int) -> None:
    """Send what is measured in this process, given the peak memory in bytes of the one that it was forked from."""
    shared = imported - host_bytes()  # pages of libraries that count in a worker, and not in a forked process
    try:
        measured = probe(request)
        sender.send(asdict(replace(measured, host_bytes=measured.host_bytes + shared)))
    except NetsimError as error:
        sender.send({"error": [type(error).__name__, str(error)]})
    except Exception as error:
        sender.send({"error": [NetworkError.__name__, f"{request.name}: measuring failed: {error!r}"]})


if __name__ == "__main__":
    serve(sys.stdin, sys.argv[1:])
