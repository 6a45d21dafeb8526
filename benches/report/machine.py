"""What it was measured on, and with which programs."""

import os
import platform
import subprocess
from pathlib import Path


def field(path, name):
    """The first line of a file in /proc that begins so, without its name."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "?"


def said(*command):
    """The first line that a program prints, "?" where it can't be run."""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return "?"
    return (printed.splitlines() or ["?"])[0]


def described(options):
    memory_kib = int(field("/proc/meminfo", "MemTotal").split()[0])
    return {
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_kib << 10,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        # Others who keep the cores make figures by the wall clock rough.
        "load_before": os.getloadavg()[0],
        "tidegate": said(options.tidegate, "--version"),
        "commit": said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "rustc": said("rustc", "--version"),
    }
