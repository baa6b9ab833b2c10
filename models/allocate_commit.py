#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Allocation, commit, resume and expiry with lost answers (I1 to I4).

Each put may take effect at once with its answer lost, or later, or never (A3). A creator lists, takes
the number behind the highest, and settles doubt by reading back (R4). Its upload may be resumed by a
second process of the same session, while the first one still runs. Anybody may expire any undecided
number at any time: a clock may be arbitrarily wrong (R8).

Rules that can be taken out:
  settle      "taken" means lost: nobody reads back whose record it is
  decide      an absent outcome means "not committed": the abort is not written to the same key
  samekey     the abort is a key of its own, so commit and abort can both stand
  nonce       any commit found counts as mine, though another process wrote it
  next        a lost number sends the creator two numbers on, not one
  immortal    records of deleted versions are removed
"""
from explore import explore, once, options, put

RULES, SIZE = options({'settle', 'decide', 'samekey', 'nonce', 'next', 'immortal'},
                      creators=2, numbers=2, processes=2)
NC, NN, NP = SIZE['creators'], SIZE['numbers'], SIZE['processes']

# allocations[n] owner; outcomes[n] None, 'A' or ('C', creator, process); aborts[n]: only without
# `samekey`; pending puts; processes[(creator, process)]: (pc, number, tries); purged numbers


def start():
    return ((None,) * NN, (None,) * NN, (False,) * NN, frozenset(),
            tuple(('list' if p == 0 else 'idle', 0, 0) for _ in range(NC) for p in range(NP)),
            frozenset())


def successors(state):
    al, oc, ab, pending, procs, purged = state

    def make(al=al, oc=oc, ab=ab, pending=pending, procs=procs):
        return al, oc, ab, pending, procs, purged

    for message in pending:
        kind, n, value = message
        left = pending - {message}
        if kind == 'al':
            yield f'late allocation of {n + 1} lands', make(al=once(al, n, value), pending=left)
        else:
            yield f'late outcome of {n + 1} lands', make(oc=once(oc, n, value), pending=left)

    def abort(n):
        if 'samekey' in RULES:
            return {'ab': put(ab, n, True)}
        return {'oc': once(oc, n, 'A')}

    for n in range(NN):
        if al[n] is not None and oc[n] is None and not ab[n]:
            yield f'{n + 1} is expired', make(**abort(n))
        if 'immortal' in RULES and isinstance(oc[n], tuple) and \
                not any(p[0] in ('put', 'read', 'own', 'doubt') and p[1] == n for p in procs):
            yield f'{n + 1} is purged', (put(al, n, None), put(oc, n, None), ab, pending, procs,
                                         purged | {n})

    for i, (pc, n, tries) in enumerate(procs):
        creator, process = divmod(i, NP)
        who = f'creator {creator}.{process}'

        def to(*pc_n_tries):
            return put(procs, i, pc_n_tries)

        if pc == 'idle':     # a second process resumes what the first has allocated
            first, number, _ = procs[creator * NP]
            if first in ('own', 'doubt', 'ok', 'aborted', 'other'):
                found = oc[number]
                then = 'own' if found is None and not ab[number] else \
                    'other' if isinstance(found, tuple) else 'aborted'
                yield f'{who} resumes {number + 1}: {then}', make(procs=to(then, number, 0))
        if pc == 'list':
            highest = max((m + 1 for m in range(NN) if al[m] is not None), default=0)
            if highest < NN:
                yield f'{who} lists up to {highest}', make(procs=to('put', highest, 0))
        if pc == 'put' and n < NN:
            then = 'own' if al[n] is None else 'read'
            yield f'{who} puts {n + 1}', make(al=once(al, n, creator), procs=to(then, n, tries))
            yield f'{who} puts {n + 1}, answer lost', make(al=once(al, n, creator),
                                                           procs=to('read', n, tries))
            if tries < 1:
                yield f'{who} puts {n + 1}, in flight', make(pending=pending | {('al', n, creator)},
                                                             procs=to('read', n, tries + 1))
        if pc == 'read':
            behind = n + (2 if 'next' in RULES else 1)
            if 'settle' in RULES:
                yield f'{who} takes it as lost', make(procs=to('put', behind, 0))
            elif al[n] == creator:
                yield f'{who} finds its nonce', make(procs=to('own', n, 0))
            elif al[n] is None:
                yield f'{who} finds nothing, puts again', make(procs=to('put', n, 1))
            else:
                yield f'{who} finds another', make(procs=to('put', behind, 0))
        if pc == 'own':
            mine = ('C', creator, process)
            then = 'ok' if oc[n] is None else 'doubt'
            yield f'{who} commits', make(oc=once(oc, n, mine), procs=to(then, n, 0))
            yield f'{who} commits, answer lost', make(oc=once(oc, n, mine), procs=to('doubt', n, 0))
            yield f'{who} commits, in flight', make(pending=pending | {('oc', n, mine)},
                                                    procs=to('doubt', n, 0))
        if pc == 'doubt':
            found = oc[n]
            changes = {}
            if found is None and 'decide' not in RULES:
                changes = abort(n)
                found = changes.get('oc', oc)[n]
            if isinstance(found, tuple):
                mine = found == ('C', creator, process) or 'nonce' in RULES
                then = 'ok' if mine else 'other'
            else:
                then = 'aborted'
            yield f'{who} reads back: {then}', make(procs=to(then, n, 0), **changes)


def broken(state):
    al, oc, _, _, procs, purged = state
    owners = {}
    for i, (pc, n, _) in enumerate(procs):
        creator, process = divmod(i, NP)
        if pc in ('own', 'doubt', 'ok', 'aborted', 'other'):
            if owners.setdefault(n, creator) != creator:
                return 'two creators own one number (I1)'
        if pc in ('put', 'read', 'own') and process == 0 and any(al[m] == creator for m in range(min(n, NN))):
            return 'a creator walked past a number that it owns (R4)'
        if pc == 'aborted' and isinstance(oc[n], tuple):
            return 'told "aborted", yet committed (I4)'
        if pc == 'ok' and n not in purged and oc[n] != ('C', creator, process):
            return 'told "committed", and it is not his commit that stands (I4)'
        if pc == 'other' and n not in purged and not isinstance(oc[n], tuple):
            return 'told that another has committed, and none has (I4)'
    for n in range(1, NN):
        if al[n] is not None and al[n - 1] is None and n - 1 not in purged:
            return 'numbers are not dense (I1)'
    for n in purged:
        if al[n] is not None:
            return 'a number is given out again (I2)'
    return None


def with_pc(pc):
    return lambda state: any(p[0] == pc for p in state[4])


explore(start, successors, broken, {'committed': with_pc('ok'), 'aborted': with_pc('aborted'),
                                    'committed by another process': with_pc('other')}
        if NP > 1 else {'committed': with_pc('ok'), 'aborted': with_pc('aborted')})
