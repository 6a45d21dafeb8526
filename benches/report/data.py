"""Bytes of several kinds, to send or to make an image of."""

import itertools
import os
import random

WORDS = 4096
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
# Pieces of a mixture: longer than any frame, so that each frame has one kind.
PIECE_BYTES = 8 << 20


def frequencies(count):
    """Some far more frequent than others: one over their rank."""
    return list(itertools.accumulate(1 / (rank + 1) for rank in range(count)))


def text(size):
    """Lines of words."""
    chance = random.Random(7)
    letters, ranks = frequencies(len(LETTERS)), frequencies(WORDS)
    words = ["".join(chance.choices(LETTERS, cum_weights=letters, k=chance.randint(2, 10))) for _ in ranks]
    lines, made = [], 0
    while made < size:
        lines.append(" ".join(chance.choices(words, cum_weights=ranks, k=14)) + "\n")
        made += len(lines[-1])
    return "".join(lines).encode()[:size]


def mixed(size):
    """Text and random bytes, in turns; no piece comes twice."""
    kinds = itertools.cycle((text(size), os.urandom(size)))
    return b"".join(next(kinds)[at:at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES))


KINDS = {"text": text, "random": os.urandom, "mixed": mixed}
