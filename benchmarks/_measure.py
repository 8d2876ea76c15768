"""What benchmarks share: measuring a command with its children, and the JSON object of a result."""

import json
import os
import platform
import resource
import subprocess
import tempfile
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_S = 0.05
MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """``cpu_s``: of the process and all its children so far; ``memory_mib``: resident now, children included."""

    at: float
    cpu_s: float
    memory_mib: float


@dataclass(frozen=True)
class Measured:
    """What a command, or a part of it, took."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    output: str = ""
    samples: Sequence[Sample] = ()

    def part(self, spans: Sequence[tuple[float, float]]) -> "Measured":
        """Return what the command took within spans of time (seconds since the epoch)."""
        cpu = sum(self._cpu_until(end) - self._cpu_until(start) for start, end in spans)
        inside = [s.memory_mib for s in self.samples if any(start <= s.at <= end + EVERY_S for start, end in spans)]
        return Measured(sum(end - start for start, end in spans), cpu, max(inside, default=0.0))

    def _cpu_until(self, at: float) -> float:
        place = bisect_left(self.samples, at, key=lambda sample: sample.at)
        return self.samples[min(place, len(self.samples) - 1)].cpu_s


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a command to its end, watching it. Raises RuntimeError with what it said if it fails."""
    before, started = _cpu_of_children(), time.time()
    with tempfile.TemporaryFile("w+") as said:
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, env=variables, stdout=said, stderr=subprocess.STDOUT)
        samples = _watch(process)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed ({process.returncode}):\n{output}")
    peak = max((sample.memory_mib for sample in samples), default=0.0)
    return Measured(time.time() - started, _cpu_of_children() - before, peak, output, samples)


def _watch(process: subprocess.Popen) -> list[Sample]:
    watched = psutil.Process(process.pid)
    samples = []
    while process.poll() is None:
        sample = _sample(watched)
        samples += [sample] if sample else []
        time.sleep(EVERY_S)
    return samples


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sample(process: psutil.Process) -> Sample | None:
    """Return what a process uses now; None where it has just ended."""
    try:
        own = process.cpu_times()
        cpu, memory = sum(own[:4]), process.memory_info().rss
    except psutil.Error:
        return None
    for child in process.children(recursive=True):
        try:
            cpu += sum(child.cpu_times()[:2])
            memory += child.memory_info().rss
        except psutil.Error:
            continue
    return Sample(time.time(), cpu, memory / MIB)


def machine() -> str:
    """Return processor, cores, memory, system and Python, in words."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def commit() -> str:
    """Return the commit that is checked out, in short; "" outside of a repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    folder = Path(__file__).parent
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout.strip()


def print_result(name: str, value: float, unit: str, peer: str, ratio: float, **more: object) -> None:
    """Print a result: one JSON object on a line."""
    result = {"name": name, "value": round(value, 2), "unit": unit, "peer": peer, "ratio": round(ratio, 2)}
    print(json.dumps({**result, "machine": machine(), "commit": commit(), **more}), flush=True)
