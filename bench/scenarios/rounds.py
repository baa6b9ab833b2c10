# SPDX-License-Identifier: Apache-2.0
"""Round trips that depend on one another, told from the log of bench/bucket.

A request can depend on another only if it came after that one's answer had gone. The longest chain of such pairs is
therefore no less than the number of round trips that a program waits for one after the other."""


def read_log(path):
    """[(came, gone, 'METHOD target')], microseconds, in the order they came."""
    with open(path) as f:
        rows = [line.split(' ', 2) for line in f.read().splitlines()]
    return sorted((int(came), int(gone), what) for came, gone, what in rows)


def longest_chain(log):
    """The requests of the longest chain, first to last."""
    best = []
    for i, (came, _, _) in enumerate(log):
        length, before = 1, None
        for j in range(i):
            if log[j][1] <= came and best[j][0] + 1 > length:
                length, before = best[j][0] + 1, j
        best.append((length, before))
    at, chain = max(range(len(log)), key=lambda i: best[i][0], default=None), []
    while at is not None:
        chain.append(log[at])
        at = best[at][1]
    return chain[::-1]
