"""Runs the programs that measure, each with a limit, and keeps what they print and what was run."""

import dataclasses
import functools
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import data

ROOT = Path(__file__).resolve().parents[2]
CARGO = os.environ.get("CARGO", "cargo")
# Longer than any of them takes, and short enough to be told of today, in seconds. Cargo may have to
# build first.
BENCH_LIMIT_S = 180
CARGO_LIMIT_S = 1200
PEERS_LIMIT_S = 1800
SMOKE_IMAGE_BYTES = 2 << 20


class Failed(Exception):
    """A program didn't measure what it should have."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured: enough to tell, or so little that a gate can run it."""

    # Of a round of `tidegate bench`, in seconds; where a rate is set, rounds are longer.
    seconds: float
    seconds_at_rate: float
    # Bytes that are made or read before, and sent again and again.
    corpus_bytes: int
    streams_many: int
    rate: int
    acknowledged: int
    levels: tuple
    # What the governor is shown, and how much in each run: over the fast link and the slow one, so that
    # each run takes half a second at least.
    kinds: tuple
    sent_bytes: tuple
    # Writes a second to a live agent's disk, by how many clients, and the bound of their lag in ms.
    live: tuple
    live_disk: str
    # Runs that count, of each setting of the governor.
    governor_runs: int
    # How the benches of Cargo are run.
    cargo: tuple
    stages: tuple
    # The settings of the peers.
    settings: str
    # What the soak sends unless told otherwise.
    soak_bytes: int


FULL = Scale(
    seconds=2, seconds_at_rate=3, corpus_bytes=64 << 20, streams_many=1000, rate=100_000_000,
    acknowledged=1_000_000, levels=(-7, -5, -3, -1, 1, 2, 3, 5), kinds=tuple(data.KINDS),
    sent_bytes=(400_000_000, 150_000_000), live=((2000, 4, 450), (20_000, 8, 1000)),
    live_disk="128MiB", governor_runs=3,
    cargo=("bench", "--locked", "--quiet"), stages=("--mib", "256"),
    settings="all", soak_bytes=100_000_000_000,
)
SMOKE = Scale(
    seconds=0.05, seconds_at_rate=0.05, corpus_bytes=1 << 20, streams_many=16, rate=4_000_000,
    acknowledged=2000, levels=(1,), kinds=("mixed",), sent_bytes=(500_000, 500_000),
    live=((200, 2, 450),), live_disk="4MiB", governor_runs=1,
    cargo=("test", "--locked", "--quiet"), stages=("--smoke",),
    settings="tidegate,tidegate-tls-1,borg-1m", soak_bytes=4_000_000,
)


def printed(command, limit_s):
    """What a command prints; how it fails, or that it takes longer than this, is told."""
    try:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                               cwd=ROOT, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if ended.returncode != 0:
        raise Failed(f"{shlex.join(command)} failed with {ended.returncode}")
    return ended.stdout


class Programs:
    """What a report is made with. `work` is a directory in memory."""

    def __init__(self, options, work):
        self.options, self.work = options, work
        self.scale = SMOKE if options.smoke else FULL
        self.runs = 1 if options.smoke else options.runs
        self.image = options.image
        if options.smoke:
            self.image = work / "image"
            self.image.write_bytes(data.mixed(SMOKE_IMAGE_BYTES) + bytes(SMOKE_IMAGE_BYTES))
        # Every command that was run, with the seconds it took.
        self.commands = []

    def measured(self, command, by, limit_s):
        """What `by` makes of a command with this limit; told, and kept with the time that it took."""
        told = shlex.join(command)
        print(f"report: {told}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        result = by(command, limit_s)
        self.commands.append({"command": told, "seconds": time.monotonic() - begun})
        return result

    def run(self, command, limit_s):
        """What a command prints."""
        return self.measured([str(part) for part in command], printed, limit_s)

    def bench_command(self, *args):
        """`tidegate bench`, as it is run for every line."""
        # A failure is told in one line; what the server then says of each session isn't wanted.
        command = [self.options.tidegate, "--json", "--log", "error", "bench"]
        return [str(part) for part in (*command, "--corpus", self.scale.corpus_bytes, *args)]

    def bench(self, *args, seconds=None, rounds=1):
        """A round that isn't counted, and then so many."""
        args = (*args, "--seconds", seconds or self.scale.seconds, "--rounds", rounds)
        return json.loads(self.run(self.bench_command(*args), BENCH_LIMIT_S))

    def live(self, *args):
        """Rounds of `tidegate bench live`, on a disk beside the report."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        command = [self.options.tidegate, "--json", "--log", "error", "bench", "live", "--folder",
                   self.options.out.resolve(), "--rounds", self.runs, "--seconds",
                   self.scale.seconds_at_rate, "--disk-size", self.scale.live_disk, *args]
        return json.loads(self.run(command, BENCH_LIMIT_S))

    def in_turns(self, settings, runs=None, **more):
        """Results of `tidegate bench` by setting, a list each: all settings once, then all again."""
        results = {setting: [] for setting in settings}
        for _ in range(runs or self.runs):
            for setting, args in settings.items():
                results[setting].append(self.bench(*args, **more))
        return results

    def stages(self):
        """One stream's bytes, fed from memory; the input that is most like a disk."""
        args = ["--json", "--only", "programs", *self.scale.stages, "--rounds", self.runs]
        [programs] = self.cargo_bench("stages", args)["inputs"]
        return programs

    def yardstick(self):
        """`recover` beside threads that only decompress and write."""
        args = ["--json", "--image", self.image, "--rounds", self.runs, "--memory", self.work]
        return self.cargo_bench("restore", args)

    def cargo_bench(self, name, args):
        return json.loads(self.run([CARGO, *self.scale.cargo, "--bench", name, "--", *args], CARGO_LIMIT_S))

    @functools.cached_property
    def peers(self):
        """What `benches/peers/run` measured, and under "table" what it printed."""
        kept = self.work / "peers.json"
        table = self.run(
            [ROOT / "benches" / "peers" / "run", "--image", self.image, "--rounds", self.runs,
             "--settings", self.options.settings or self.scale.settings, "--tidegate", self.options.tidegate,
             "--memory", self.work, "--restore", "contenders", "--json", kept],
            PEERS_LIMIT_S)
        return json.loads(kept.read_text()) | {"table": table}
