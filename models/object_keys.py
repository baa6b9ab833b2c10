#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Objects under session and counter, written by two processes that both resumed one session (I5, I8).

Each process lists, counts on behind the highest number, puts two packs of its own content, checks by a
listing that what it names is there, and commits. Puts may land late or never, so both may come to the
same key.

Rules that can be taken out:
  taken       a key that is taken counts as written by me
  doubt       a put whose answer was lost counts as written
  check       doubt, and no listing before the commit
"""
from explore import explore, once, options, put

RULES, SIZE = options({'taken', 'doubt', 'check'}, seqs=4, packs=1)
NSEQ, NPACK = SIZE['seqs'], SIZE['packs']
if 'check' in RULES:
    RULES.add('doubt')

# objects[seq]: None or the process whose content it is; outcome: None or (process, named seqs);
# pending puts; processes: (pc, next seq, named)


def start():
    return ((None,) * NSEQ, None, frozenset(), (('list', 0, ()), ('list', 0, ())))


def successors(state):
    objects, outcome, pending, procs = state
    for seq, content in pending:
        yield f'late pack {seq} of {content} lands', (once(objects, seq, content), outcome,
                                                      pending - {(seq, content)}, procs)
    for i, (pc, seq, named) in enumerate(procs):
        def to(*new):
            return put(procs, i, new)
        if pc == 'list':
            highest = max((s + 1 for s in range(NSEQ) if objects[s] is not None), default=0)
            yield f'{i} lists, goes on at {highest}', (objects, outcome, pending,
                                                       to('put', highest, named))
        if pc == 'put' and len(named) == NPACK:
            yield f'{i} has all packs', (objects, outcome, pending, to('check', seq, named))
        elif pc == 'put' and seq < NSEQ:
            after = once(objects, seq, i)
            mine = objects[seq] is None or 'taken' in RULES
            yield f'{i} puts {seq}: {"written" if mine else "taken"}', (
                after, outcome, pending, to('put', seq + 1, named + (seq,) if mine else named))
            doubtful = named + (seq,) if 'doubt' in RULES else named
            yield f'{i} puts {seq}, answer lost', (after, outcome, pending,
                                                   to('put', seq + 1, doubtful))
            yield f'{i} puts {seq}, in flight', (objects, outcome, pending | {(seq, i)},
                                                 to('put', seq + 1, doubtful))
        if pc == 'check' and ('check' in RULES or all(objects[s] is not None for s in named)):
            yield f'{i} sees {named}', (objects, outcome, pending, to('commit', seq, named))
        if pc == 'commit':
            yield f'{i} commits {named}', (objects, outcome or (i, named), pending,
                                           to('end', seq, named))


def broken(state):
    objects, outcome, _, _ = state
    if outcome:
        process, named = outcome
        for seq in named:
            if objects[seq] is None:
                return 'a commit names a pack that is not there (I5)'
            if objects[seq] != process:
                return 'a commit names a pack with other content than its manifest says (I8)'
    return None


explore(start, successors, broken, {
    'committed': lambda s: s[1] is not None,
    'with a key taken by the other': lambda s: any(o == 0 for o in s[0]) and any(o == 1 for o in s[0])})
