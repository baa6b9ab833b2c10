# SPDX-License-Identifier: Apache-2.0
"""Breadth-first search over all interleavings of a model, shortest counter-example first.

A model is: start(), the first state (a tuple of tuples and frozensets); successors(state), which
yields (what happened, next state); broken(state), a sentence if an invariant does not hold; and
labels, predicates whose states are counted, so that an "ok" that never came to the point is noticed.
"""
import sys
from collections import deque


def explore(start, successors, broken, labels):
    """Prints one line, "ok: ..." or "VIOLATION: ..." with its steps. True if all is well."""
    first = start()
    parent = {first: None}
    queue = deque([first])
    counts = dict.fromkeys(labels, 0)
    while queue:
        state = queue.popleft()
        for name, holds in labels.items():
            counts[name] += bool(holds(state))
        sentence = broken(state)
        if sentence:
            steps = []
            at = state
            while parent[at]:
                at, step = parent[at]
                steps.append(step)
            print(f'VIOLATION: {sentence} | {len(parent)} states')
            print('   ' + ' ; '.join(reversed(steps)))
            return False
        for step, after in successors(state):
            if after not in parent:
                parent[after] = (state, step)
                queue.append(after)
    empty = [name for name, n in counts.items() if n == 0]
    counted = ', '.join(f'{n} {name}' for name, n in counts.items())
    if empty:
        print(f'VIOLATION: no state {empty[0]}: the search is empty | {len(parent)} states')
        return False
    print(f'ok: {len(parent)} states, {counted}')
    return True


def put(items, index, value):
    """The tuple with one item replaced."""
    return items[:index] + (value,) + items[index + 1:]


def once(items, index, value):
    """The same if nothing stands there: put-if-absent (A1)."""
    return items if items[index] is not None else put(items, index, value)


def options(known, **sizes):
    """Rules to take out and sizes, from the command line: `rule` or `name=number`."""
    rules = set()
    for word in sys.argv[1:]:
        name, _, number = word.partition('=')
        if number and name in sizes:
            sizes[name] = int(number)
        elif name in known and not number:
            rules.add(name)
        else:
            sys.exit(f'{sys.argv[0]}: unknown word {word}; rules: {" ".join(sorted(known))}; '
                     f'sizes: {" ".join(sorted(sizes))}')
    return rules, sizes
