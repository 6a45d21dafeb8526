"""Very many bytes through the pipeline: memory stays where it was after the first of them.

Buffers and the table of known blocks get their pages from the system when they are first used, which
takes some gigabytes: the first tenth of the time, in which memory may grow. What is resident is read from /proc while they pass; the load's own bytes, made before, are in it and
stay the same.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from findings import at_least, at_most
from programs import Failed

# Sent in a round, all due at once: one round after another, with nothing under way between.
ROUND_BYTES = 1_000_000_000
DUE_S = 0.01
# Zeros, duplicates and what compresses, as on disks: every stage has work.
LOAD = ("--streams", 64, "--zeros", 20, "--duplicates", 20)
# Of the time, that in which memory may grow.
SETTLES = 0.1
# How often memory is read, and how long a round may take at most, both in seconds.
EVERY_S = 0.1
ROUND_LIMIT_S = 60


def resident_bytes(pid):
    """What a process holds now; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    held = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(held[0]) << 10 if held else 0


def watched(command, limit_s):
    """What it prints, and what it held, as pairs of seconds since it began and bytes."""
    begun, held = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)
        while process.poll() is None:
            since = time.monotonic() - begun
            if since > limit_s:
                process.kill()
            held.append((since, resident_bytes(process.pid)))
            time.sleep(EVERY_S)
        if process.returncode != 0:
            raise Failed(f"it failed with {process.returncode}, or took more than {limit_s} s")
        output.seek(0)
        return output.read(), held


def soak(programs):
    size = programs.options.soak_gb * 1_000_000_000 if programs.options.soak_gb else programs.scale.soak_bytes
    rounds = -(-size // ROUND_BYTES)
    rate = int(min(size, ROUND_BYTES) / DUE_S)
    command = programs.bench_command(*LOAD, "--rate", rate, "--seconds", DUE_S, "--rounds", rounds)
    printed, held = programs.measured(command, watched, rounds * ROUND_LIMIT_S)
    result = json.loads(printed)
    passed = sum(turn["bytes"] for turn in result["rounds"])
    settled = SETTLES * held[-1][0]
    first = max(resident for since, resident in held if since <= settled)
    later = max(resident for since, resident in held if since >= settled)
    memory = result["memory"]
    return [
        at_least("GB through the pipeline", passed / 1e9, size / 1e9),
        at_most(f"most memory after the first {settled:.0f} s, over the most in them", later / first, 1.02),
        at_most("most memory but for the load's bytes, over the bound",
                (memory["peak_bytes"] - memory["before_bytes"]) / memory["bound_bytes"], 1),
    ], {"resident": held, "result": result}
