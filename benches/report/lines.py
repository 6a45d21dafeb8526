"""Each line of what must hold (issue "Speed"): what is measured for it, and what that comes to.

A function a line; it gives its findings, and what was measured, to be kept.
"""

import statistics

import governor
import soak
from findings import at_least, at_most, median, ratio

# Small writes, in no order: a path of their own.
SMALL = ("--write-bytes", "4KiB", "--random")
STORE = ("--store-latency-ms", "20")
# A server takes a session for every 2 MiB of its memory: with this, all of the many.
ROOM = ("--memory", "2GiB")
# Of the full load, where latencies are asked for.
PART_OF_FULL = 0.7


def peers(programs):
    """The table of the peers: Tidegate's rows by setting, and the others'."""
    rows = {row["setting"]: row for row in programs.peers["rows"]}
    ours = {key: row for key, row in rows.items() if key.startswith("tidegate")}
    return ours, {key: row for key, row in rows.items() if key not in ours}


def line1(programs):
    ours, others = peers(programs)
    findings = []
    for key, bound in (("tidegate", 1.8), ("tidegate-tls-1", 1.35)):
        row = ours.get(key)
        if row is None or not others:
            findings.append(at_least(f"`{key}`: it or all peers left out", None, bound))
            continue
        fastest = others[row["backup_fastest_peer"]]
        findings += [
            at_least(f"`{key}`: times as fast as {fastest['name']}", row["backup_speed"], bound),
            at_most(f"`{key}`: stored, over that one's bytes",
                    row["stored_bytes"] / fastest["stored_bytes"], 1.02),
        ]
    return findings, {}


def line2(programs):
    ours, others = peers(programs)
    rounds = programs.peers["rounds"]

    def speed(key, peer):
        return statistics.median(
            turn[peer]["backup"]["wall_s"] / turn[key]["backup"]["wall_s"] for turn in rounds)

    findings = []
    for peer, row in others.items():
        speeds = {key: speed(key, peer) for key in ours if ours[key]["stored_bytes"] <= row["stored_bytes"]}
        best = max(speeds, key=speeds.get, default=None)
        what = f"`{best}`, which stores no more" if best else "no setting stores as little"
        # Where all store more, none is any faster at its bytes.
        findings.append(at_least(f"{row['name']}: {what}", speeds.get(best, 0.0), 1.15))
    return findings or [at_least("all peers left out", None, 1.15)], {}


def line3(programs):
    results = programs.in_turns({"1": ("--streams", 1), "64": ("--streams", 64)})
    return [at_least(f"efficiency, {streams} stream{'s' * (streams != '1')}", median(of, "efficiency"), 0.85)
            for streams, of in results.items()], results


def line4(programs):
    programs_input = programs.stages()
    gain = programs_input["gain"]
    what = f"gain of two cores {gain['workers']:.2f}, of the kernels' {gain['kernels']:.2f}"
    return [at_least(what, gain["ratio"], 0.93)], programs_input


def line5(programs):
    many = ("--streams", 64)
    results = programs.in_turns({"4 KiB": (*many, *SMALL), "64 KiB": many})
    small, large = results.values()
    return [
        at_most("CPU a byte, 4 KiB random over 64 KiB", ratio(small, large, "server_ns_per_byte"), 1.25),
        at_least("4 KiB writes in a CPU second of the server", median(small, "writes_per_cpu_second"), 60_000),
    ], results


def line6(programs):
    few, many = 8, programs.scale.streams_many
    at_rate = ("--rate", programs.scale.rate, *ROOM)
    results = programs.in_turns({str(count): ("--streams", count, *at_rate) for count in (few, many)},
                                seconds=programs.scale.seconds_at_rate)
    memory = [result["memory"] for of in results.values() for result in of]
    # The load's connections are among the peak: the server itself holds less.
    most = max((held["peak_bytes"] - held["before_bytes"]) / held["bound_bytes"] for held in memory)
    return [
        at_most(f"CPU a byte, {many} streams over {few}, at {programs.scale.rate / 1e6:.0f} MB/s",
                ratio(results[str(many)], results[str(few)], "server_ns_per_byte"), 1.10),
        at_most("most memory, the load's connections in it, over the bound", most, 1),
    ], results


def line7(programs):
    """Open loop: latencies count from when a write was meant to be sent."""
    args = (*SMALL, *STORE)
    full = programs.bench(*args, rounds=programs.runs)
    rate = PART_OF_FULL * full["writes_per_s"]
    seconds = programs.scale.acknowledged / rate / programs.runs
    # A little longer, or the last write of a round may be missing.
    loaded = programs.bench(*args, "--rate", int(rate * full["about"]["write_bytes"]),
                            seconds=f"{seconds * 1.02:.3f}", rounds=programs.runs)
    took = loaded["acknowledged"]
    of = f"of {took['count']:,} at {rate:,.0f} writes/s, in ms"
    return [
        at_least("writes acknowledged", took["count"], programs.scale.acknowledged),
        at_most(f"99 % {of}", took["p99_us"] / 1e3, 320),
        at_most(f"99.99 % {of}", took["p9999_us"] / 1e3, 1000),
    ], {"full": full, "loaded": loaded}


def live(programs):
    """Through tap, journal, TLS and server to a store of 20 ms; and with the server gone."""
    findings, results = [], {}
    for rate, clients, bound in programs.scale.live:
        result = programs.live("--rate", rate, "--clients", clients, *STORE)
        results[f"{rate:,}"] = result
        what = f"99 % of {rate:,} writes/s committed, in ms"
        findings.append(at_most(what, result["committed_p99_us"] / 1e3, bound))
    cut = programs.live("--journal-size", "16MiB", "--cut", *STORE)
    what = "99 % of writes: the server gone and the journal full, over both there"
    return [*findings, at_most(what, cut["cut_over_linked"], 1.5)], results | {"cut": cut}


def line9(programs):
    ours, others = peers(programs)
    row = ours.get("tidegate", {})
    speed, fastest = row.get("restore_speed"), others.get(row.get("restore_fastest_peer"))
    than = f"times as fast as {fastest['name']}" if fastest else "it or all peers left out"
    bare = programs.yardstick()
    return [
        at_least(f"restore: {than}", speed, 3.5),
        at_least("restore: of two threads that decompress and write", bare["ratio"], 0.65),
    ], bare


LINES = {"line1": line1, "line2": line2, "line3": line3, "line4": line4, "line5": line5, "line6": line6,
         "line7": line7, "line8": governor.line8, "line9": line9, "live": live, "soak": soak.soak}
# Its 100 GB take longer than all others together: only when it is asked for.
USUAL = [name for name in LINES if name != "soak"]
