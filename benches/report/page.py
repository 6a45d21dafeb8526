"""The report, as Markdown."""

import time


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def verdicts(lines):
    """All findings, a row each."""
    rows = [[name, *finding.row()] for name, (findings, _) in lines.items() for finding in findings]
    return table(["line", "what", "figure", "bound", "holds"], rows)


def run(programs):
    """Every command once, in the order in which they first came."""
    took = {}
    for kept in programs.commands:
        took.setdefault(kept["command"], []).append(kept["seconds"])
    return [[f"`{command}`", len(seconds), f"{sum(seconds):.1f}"] for command, seconds in took.items()]


def page(machine, lines, failures, programs, seconds):
    """What was found, on what, and how."""
    memory = f"{machine['memory_bytes'] / (1 << 30):.1f} GiB"
    parts = [
        "# What Tidegate does on this machine",
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, in {seconds / 60:.1f} minutes;"
        f" medians of {programs.runs} runs in turns, one before them isn't counted."
        + (" A smoke run: its figures say nothing." if programs.options.smoke else ""),
        table(["machine", ""], [[name, memory if name == "memory_bytes" else value]
                                for name, value in machine.items()]),
        "## What must hold",
        verdicts(lines),
    ]
    if failures:
        parts += ["## What failed", table(["line", "why"], failures.items())]
    if "peers" in vars(programs):
        parts += ["## The peers", programs.peers["table"].strip()]
    parts += ["## What was run", table(["command", "times", "seconds in all"], run(programs))]
    return "\n\n".join(parts) + "\n"
