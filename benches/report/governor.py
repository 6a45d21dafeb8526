"""The governor, in cells: (fast link, slow link) × (text, random, mixed).

In each, so many bytes are sent as fast as they are taken, and what counts is the time until all of
it is committed: at each fixed level, and at `--level auto`. A round of the same goes before, which
gives all of them touched memory, and the governor the level that it ended with.
"""

import itertools
import statistics

import data
from findings import at_most

# In bytes a second: 800 Mbit/s, and whatever the cores can make.
LINKS = {"fast link": (), "slow link": ("--store-rate", 100_000_000)}
AUTO = "auto"
# All bytes of a run are due at once: this is how long a round lets them become due, in seconds.
DUE_S = 0.01


def line8(programs):
    scale = programs.scale
    sent, size = dict(zip(LINKS, scale.sent_bytes, strict=True)), scale.corpus_bytes
    results, seconds = {}, {}
    levels = [AUTO, *scale.levels]
    for kind, (link, slow) in itertools.product(scale.kinds, LINKS.items()):
        file = programs.work / kind
        file.write_bytes(data.KINDS[kind](size))
        args = ("--image", file, "--rate", int(sent[link] / DUE_S), *slow)
        settings = {level: (*args, f"--level={level}") for level in levels}
        cell = programs.in_turns(settings, runs=min(programs.runs, scale.governor_runs),
                                 seconds=DUE_S)
        results[f"{link}, {kind}"] = cell
        seconds[f"{link}, {kind}"] = {
            level: [result["rounds"][0]["seconds"] for result in cell[level]] for level in levels}
    return judged(seconds), {"sent_bytes": sent, "seconds": seconds, "results": results}


def judged(seconds):
    """Of seconds by cell and level."""
    findings = []
    middle = {cell: {level: statistics.median(of) for level, of in by_level.items()}
              for cell, by_level in seconds.items()}
    for cell, by_level in middle.items():
        best = min((level for level in by_level if level != AUTO), key=by_level.get)
        turns = zip(seconds[cell][AUTO], seconds[cell][best], strict=True)
        over = statistics.median(auto / fixed for auto, fixed in turns)
        what = f"{cell}: {by_level[AUTO]:.2f} s, over level {best}'s {by_level[best]:.2f} s"
        findings.append(at_most(what, over, 1.05))
    total = {level: sum(by_level[level] for by_level in middle.values())
             for level in next(iter(middle.values()))}
    best = min((level for level in total if level != AUTO), key=total.get)
    what = f"all cells: {total[AUTO]:.2f} s, over level {best}'s {total[best]:.2f} s"
    return [*findings, at_most(what, total[AUTO] / total[best], 1)]
