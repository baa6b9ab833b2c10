#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Leases against deletion of one committed version (I13 to I15), with lost and late puts.

A server attaches without listing first: it writes its lease, then lists the delete rounds, then
refuses those without result. It renews in the same way. Jobs join a server that holds the version, or
wait for the next lease write, which takes in all who wait; the last one to leave releases the lease.
A deleter posts its intent, then lists leases, then writes the result; in doubt it settles it; Ctrl-C
withdraws by writing "refused". Lease expiry is arbitrary but for the clock rule: the store calls a lease
expired only after its holder's own deadline has passed (A4). A reader without a lease may be there.

Rules that can be taken out:
  recheck     no look at the delete rounds behind a lease write
  renewcheck  none behind a renewal
  deadline    the holder believes a lease although its own deadline has passed
  intent      the deleter lists leases first, then posts its intent
  clock       the store may call a lease expired that its holder still believes (A4)
  release     a job may join while the last lease is being released
  samehost    "its process is gone" is guessed: leases of live servers may be called void
  withdraw    Ctrl-C reports "withdrawn" without writing the result
  counted     a reader without lease makes the deleter refuse
"""
from explore import explore, options, put

RULES, SIZE = options({'recheck', 'renewcheck', 'deadline', 'intent', 'clock', 'release', 'samehost',
                       'withdraw', 'counted'}, servers=2, deleters=1, rounds=1, renewals=1, jobs=1)
NA, ND, NK = SIZE['servers'], SIZE['deleters'], SIZE['rounds']
LAST = SIZE['renewals']
NJ = SIZE['jobs']      # jobs per server that may join, one after the other or together

# intents; results[round]; leases present (server, seq); expired ones; pending puts;
# servers: (pc, seq, valid, inside, waiting, came): valid is the seq that it relies on, -1 for none
# deleters: (pc, round, saw); reader: 0 none, 1 reading unprotected


def start():
    return (frozenset(), (None,) * NK, frozenset(), frozenset(), frozenset(),
            (('idle', 0, -1, 0, 0, 0),) * NA, (('idle', 0, None),) * ND, 0)


def decide(results, k, value):
    return results if results[k] is not None else put(results, k, value)


def successors(state):
    intents, results, leases, expired, pending, servers, deleters, reader = state

    def make(intents=intents, results=results, leases=leases, expired=expired, pending=pending,
             servers=servers, deleters=deleters, reader=reader):
        return intents, results, leases, expired, pending, servers, deleters, reader

    for message in pending:
        left = pending - {message}
        if message[0] == 'lease':
            yield f'late lease {message[1]} lands', make(leases=leases | {message[1]}, pending=left)
        elif message[0] == 'result':
            yield f'late result {message[2]} lands', make(
                results=decide(results, message[1], message[2]), pending=left)
        else:
            yield f'late intent {message[1]} lands', make(intents=intents | {message[1]}, pending=left)

    if reader == 0:
        yield 'a reader attaches without a lease', make(reader=1)

    for i, (pc, seq, valid, inside, waiting, came) in enumerate(servers):
        def to(pc=pc, seq=seq, valid=valid, inside=inside, waiting=waiting, came=came):
            return put(servers, i, (pc, seq, valid, inside, waiting, came))

        def attached(text, results):
            # the own deadline is looked at last, behind all checks
            if (i, seq) in expired and 'deadline' not in RULES:
                after = to('dead', valid=-1, inside=0, waiting=0) if valid < 0 else to('held')
                return text + ', but its deadline has passed', make(results=results, servers=after)
            return text, make(results=results,
                              servers=to('held', valid=seq, inside=inside + waiting, waiting=0))

        if came < NJ and pc in ('idle', 'put', 'check', 'held', 'release', 'gone'):
            if pc == 'held' and valid >= 0 or pc == 'release' and 'release' in RULES:
                yield f'a job joins {i}', make(servers=to(inside=inside + 1, came=came + 1))
            else:
                yield f'a job waits for {i}', make(servers=to(waiting=waiting + 1, came=came + 1))
        if inside and pc in ('held',):
            yield f'a job leaves {i}', make(servers=to(inside=inside - 1))
        if pc in ('idle', 'gone') and waiting:
            # no list first: a lease on a dead version is a stray
            if pc == 'idle':
                yield f'{i} starts', make(servers=to('put'))
            elif seq < LAST:
                yield f'{i} starts again', make(servers=to('put', seq=seq + 1))
        if pc == 'put':
            lease = (i, seq)
            yield f'{i} puts lease {seq}', make(leases=leases | {lease}, servers=to('check'))
            yield f'{i} puts lease {seq}, in flight', make(
                pending=pending | {('lease', lease)},
                servers=to('dead', valid=-1, inside=0, waiting=0))
        if pc == 'check':
            open_rounds = tuple(k for k in range(NK) if k in intents and results[k] is None)
            skip = 'recheck' in RULES or ('renewcheck' in RULES and seq > 0)
            if skip:
                yield attached(f'{i} does not look at rounds', results)
            elif 'D' in results:
                yield f'{i} sees it deleted', make(
                    leases=leases - {(i, seq)},
                    servers=to('dead', valid=-1, inside=0, waiting=0))
            elif open_rounds:
                yield f'{i} must refuse {open_rounds}', make(servers=to(('refuse', open_rounds)))
            else:
                yield attached(f'{i} sees no round', results)
        if isinstance(pc, tuple):
            k, rest = pc[1][0], pc[1][1:]
            after = decide(results, k, 'R')
            if after[k] == 'D':
                yield f'{i} loses round {k}', make(
                    leases=leases - {(i, seq)},
                    servers=to('dead', valid=-1, inside=0, waiting=0))
            elif rest:
                yield f'{i} refuses {k}', make(results=after, servers=to(('refuse', rest)))
            else:
                yield attached(f'{i} refuses {k}', after)
        if pc == 'held':
            yield f'{i} dies', make(servers=to('dead', valid=-1, inside=0, waiting=0))
            if seq < LAST:
                yield f'{i} renews', make(servers=to('put', seq=seq + 1))
            if inside == 0 and waiting == 0:
                # from here on nobody relies on the lease, whatever the removal meets
                keep = valid if 'release' in RULES else -1
                yield f'{i} releases', make(servers=to('release', valid=keep))
        if pc == 'release':
            after = 'held' if inside and 'release' in RULES else 'gone'
            yield f'{i} has removed its leases', make(
                leases=frozenset(x for x in leases if x[0] != i),
                servers=to(after, valid=valid if after == 'held' else -1))
        if valid >= 0 and pc != 'release':
            yield f'the deadline of {i} passes', make(servers=to(valid=-1, inside=0))
    for lease in leases - expired:
        if 'clock' in RULES or servers[lease[0]][2] != lease[1]:
            yield f'lease {lease} expires', make(expired=expired | {lease})

    live = frozenset(x for x in leases - expired
                     if 'samehost' not in RULES and servers[x[0]][0] != 'dead')
    maybe = leases - expired      # what a deleter on another host must take for live
    for j, (pc, k, saw) in enumerate(deleters):
        def dto(*new):
            return put(deleters, j, new)
        if pc == 'idle' and 'D' not in results:
            k2 = next((k for k in range(NK) if k not in intents), NK)
            if k2 < NK and 'intent' in RULES:
                yield f'deleter {j} lists first', make(deleters=dto('late intent', k2, bool(maybe)))
            elif k2 < NK:
                yield f'deleter {j} posts {k2}', make(intents=intents | {k2},
                                                      deleters=dto('list', k2, None))
                yield f'deleter {j} posts {k2}, in flight', make(
                    pending=pending | {('intent', k2)}, deleters=dto('end', k2, None))
        if pc == 'late intent' and k not in intents:
            yield f'deleter {j} posts {k}', make(intents=intents | {k}, deleters=dto('decide', k, saw))
        if pc == 'list':
            for where, found in (('elsewhere', maybe), ('on the same host', live)):
                holds = bool(found) or ('counted' in RULES and reader == 1)
                yield f'deleter {j} {where} lists {sorted(found)}', make(
                    deleters=dto('decide', k, holds))
            yield f'deleter {j} dies', make(deleters=dto('end', k, None))
        if pc in ('list', 'decide'):
            yield f'deleter {j} is interrupted', make(deleters=dto('withdraw', k, None))
        if pc == 'decide':
            value = 'R' if saw else 'D'
            after = decide(results, k, value)
            yield f'deleter {j} writes {value}', make(results=after,
                                                      deleters=dto(('told', after[k]), k, None))
            yield f'deleter {j} writes {value}, in flight', make(
                pending=pending | {('result', k, value)}, deleters=dto('doubt', k, None))
        if pc == 'doubt':
            if results[k] is not None:
                yield f'deleter {j} reads {results[k]}', make(
                    deleters=dto(('told', results[k]), k, None))
            else:
                yield f'deleter {j} is interrupted in doubt', make(deleters=dto('withdraw', k, None))
        if pc == 'withdraw':
            if 'withdraw' in RULES:
                yield f'deleter {j} says it withdrew', make(deleters=dto(('told', 'R'), k, None))
            else:
                after = decide(results, k, 'R')
                yield f'deleter {j} withdraws: {after[k]}', make(
                    results=after, deleters=dto(('told', after[k]), k, None))


def broken(state):
    _, results, leases, _, pending, servers, deleters, _ = state
    if 'D' in results:
        for i, (pc, _, valid, inside, _, _) in enumerate(servers):
            if valid >= 0 and pc not in ('dead', 'release'):
                return f'deleted while server {i} believes its lease (I13)'
            if valid >= 0 and inside:
                return f'deleted while a job of server {i} relies on its lease (I13)'
    for _, (pc, k, _) in enumerate(deleters):
        if isinstance(pc, tuple) and (results[k] == 'D') != (pc[1] == 'D'):
            return f'a deleter was told {pc[1]}, and the round says {results[k]} (I14)'
        if pc == 'decide' and deleters[0][2] and not leases and not pending and \
                all(s[0] == 'idle' for s in servers):
            return 'a reader without lease was counted as a holder (I15)'
    return None


explore(start, successors, broken, {
    'with a job inside': lambda s: any(x[3] and x[2] >= 0 for x in s[5]),
    'deleted': lambda s: 'D' in s[1],
    'refused': lambda s: 'R' in s[1],
    'deleted before a reader without lease': lambda s: 'D' in s[1] and s[7]})
