"""A figure, its bound, and whether it holds."""

import dataclasses
import statistics


@dataclasses.dataclass
class Finding:
    what: str
    # None: it couldn't be measured, and `what` says why.
    figure: float | None
    bound: float
    at_least: bool = True

    @property
    def holds(self):
        if self.figure is None:
            return None
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def row(self):
        """The figure, the bound and the verdict, for people."""
        verdict = {True: "yes", False: "**no**", None: "not measured"}[self.holds]
        figure = "-" if self.figure is None else number(self.figure)
        return [self.what, figure, f"{'≥' if self.at_least else '≤'} {number(self.bound)}", verdict]

    def kept(self):
        return dataclasses.asdict(self) | {"holds": self.holds}


def at_least(what, figure, bound):
    return Finding(what, figure, bound)


def at_most(what, figure, bound):
    return Finding(what, figure, bound, at_least=False)


def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def median(results, name):
    """Of one figure of several results."""
    return statistics.median(result[name] for result in results)


def ratio(over, under, name):
    """Of one figure, within each turn; then the median."""
    turns = zip(over, under, strict=True)
    return statistics.median(a[name] / b[name] for a, b in turns)
