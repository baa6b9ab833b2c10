#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Collection rounds against uploads that name old packs (I6, I7, I9 to I12).

Pack P is named by the committed version 0, which may be deleted at any time. An uploader allocates its
number, registers its session, reads the condemned lists, reads the versions, writes a pack of its own,
and commits; it names P again if some available version does and no unfinished round condemns it. It
may die anywhere. Anybody may expire any undecided number at any time. A round: condemn; see the
sessions without outcome and, if there are any, write down which; wait for the outcome of these and no
others, whoever goes on; read versions again; sweep list; remove until none is left; end. Two
collectors may share a round. Removals and puts may land late. A session record goes when its outcome
stands and it has no object left.

Rules that can be taken out:
  order       part of I6: registered before the number is allocated
  register    part of I6: objects are chosen and written before the session is registered
  condemned   the uploader does not read the condemned lists
  manifests   it reads versions first, then the condemned lists
  wait        the collector does not wait for the sessions it saw
  reread      it does not read the versions again
  unregister  it removes the session record of an undecided upload
  onekey      a commit overwrites the abort
  confirm     a round ends when its removals were sent, not when none of its list is left
Not a rule, another protocol:
  adopt       an uploader may name P although no version does (packs of an aborted upload)
"""
from explore import explore, once, options, put

RULES, SIZE = options({'order', 'register', 'condemned', 'manifests', 'wait', 'reread', 'unregister',
                       'onekey', 'confirm', 'adopt'},
                      uploaders=1, collectors=1, rounds=2)
NU, NG, NK = SIZE['uploaders'], SIZE['collectors'], SIZE['rounds']

# allocated[u]; sessions[u] 0 none, 1 registered, 2 removed; outcome[u] None, 'A', 'C0' own pack only,
# 'C1' with P, 'X' deleted version; own[u] pack: 0 not written, 1 there, 2 removed; version 0 available;
# P present; condemned[k], awaited[k], sweep[k]; ended[k]; pending; uploaders (pc, named, condemned); collectors
# (pc, round, seen)


def start():
    return ((0,) * NU, (0,) * NU, (None,) * NU, (0,) * NU, True, True, (None,) * NK, (None,) * NK,
            (None,) * NK, (False,) * NK, frozenset(), (('idle', None, None),) * NU, (('idle', 0, None),) * NG)


def uploader_steps():
    if 'order' in RULES:
        head = ['register', 'allocate']
    else:
        head = ['allocate', 'register']
    reads = ['versions', 'lists'] if 'manifests' in RULES else ['lists', 'versions']
    if 'register' in RULES:
        return ['allocate'] + reads + ['write', 'register', 'commit', 'end']
    return head + reads + ['write', 'commit', 'end']


STEPS = uploader_steps()
NEXT = dict(zip(['idle'] + STEPS, STEPS))


def successors(state):
    al, sess, out, own, v0, pack, cond, await_, sweep, ended, pending, ups, cols = state

    def make(al=al, sess=sess, out=out, own=own, v0=v0, pack=pack, cond=cond, await_=await_,
             sweep=sweep, ended=ended, pending=pending, ups=ups, cols=cols):
        return al, sess, out, own, v0, pack, cond, await_, sweep, ended, pending, ups, cols

    def removed(obj):
        return {'pack': False} if obj == 'P' else {'own': put(own, obj, 2)} if own[obj] == 1 else {}

    for message in pending:
        left = pending - {message}
        if message[0] == 'remove':
            yield f'late removal of {message[1]}', make(pending=left, **removed(message[1]))
        elif message[0] == 'outcome':
            yield f'late outcome of {message[1]}', make(pending=left,
                                                        out=once(out, message[1], message[2]))
        else:
            yield f'late pack of {message[1]}', make(
                pending=left, own=put(own, message[1], 1) if own[message[1]] == 0 else own)
    if v0:
        yield 'version 0 is deleted', make(v0=False)
    for u in range(NU):
        if out[u] in ('C0', 'C1'):
            yield f'version of {u} is deleted', make(out=put(out, u, 'X'))
        if al[u] and out[u] is None:
            yield f'{u} is expired', make(out=put(out, u, 'A'))

    named = v0 or 'C1' in out
    for u, (pc, reuse, hit) in enumerate(ups):
        def to(pc=pc, reuse=reuse, hit=hit):
            return put(ups, u, (pc, reuse, hit))
        if pc == 'end':
            continue
        step = NEXT[pc]
        if pc != 'idle' and pc != 'dead':
            yield f'{u} dies', make(ups=put(ups, u, ('end', 'dead', None)))
        if step == 'allocate':
            yield f'{u} allocates', make(al=put(al, u, 1), ups=to(step))
        if step == 'register':
            yield f'{u} registers', make(sess=put(sess, u, 1) if sess[u] == 0 else sess, ups=to(step))
        if step == 'lists':
            found = 'condemned' not in RULES and any(
                cond[k] is not None and 'P' in cond[k] and not ended[k] for k in range(NK))
            yield f'{u} reads lists: {found}', make(ups=to(step, hit=found))
        if step == 'versions':
            found = pack if 'adopt' in RULES else named
            yield f'{u} reads versions: {found}', make(ups=to(step, reuse=found))
        if step == 'write':
            yield f'{u} writes its pack', make(own=put(own, u, 1) if own[u] == 0 else own, ups=to(step))
            yield f'{u} writes its pack, in flight, and dies', make(
                pending=pending | {('pack', u)}, ups=put(ups, u, ('end', 'dead', None)))
        if step == 'commit':
            # own[u] == 2: the check before the commit finds its pack gone
            if own[u] == 1:
                value = 'C1' if reuse and not hit else 'C0'
                after = put(out, u, value) if 'onekey' in RULES else once(out, u, value)
                yield f'{u} commits {value}', make(out=after, ups=to('end', None, None))
                yield f'{u} commits {value}, in flight', make(
                    pending=pending | {('outcome', u, value)}, ups=to('end', None, None))

    def present(obj):
        return pack if obj == 'P' else own[obj] == 1

    def live(obj):
        return named if obj == 'P' else out[obj] in ('C0', 'C1')

    for g, (pc, k, seen) in enumerate(cols):
        def gto(*new):
            return put(cols, g, new)
        if pc == 'idle':
            k2 = next((k for k in range(NK) if not ended[k]), NK)
            if k2 < NK and cond[k2] is None:
                found = frozenset(
                    obj for obj in ['P', *range(NU)] if present(obj) and not live(obj) and
                    (obj == 'P' or out[obj] is not None or sess[obj] != 1))
                yield f'round {k2}: {g} marks {set(found)}', make(cols=gto('condemn', k2, found))
            elif k2 < NK:
                yield f'round {k2}: {g} takes over', make(cols=gto('sessions', k2, None))
        if pc == 'condemn':
            yield f'round {k}: {g} condemns', make(cond=once(cond, k, seen),
                                                   cols=gto('sessions', k, None))
        if pc == 'sessions':
            waits = frozenset(u for u in range(NU) if sess[u] == 1 and out[u] is None)
            if 'wait' in RULES:
                waits = frozenset()
            if await_[k] is not None:
                yield f'round {k}: {g} finds awaited {set(await_[k])}', make(
                    cols=gto('waiting', k, await_[k]))
            else:
                yield f'round {k}: {g} sees sessions {set(waits)}', make(
                    cols=gto('post' if waits else 'waiting', k, waits))
        if pc == 'post':
            after = once(await_, k, seen)
            yield f'round {k}: {g} posts awaited', make(await_=after, cols=gto('waiting', k, after[k]))
        if pc == 'waiting' and all(out[u] is not None for u in seen):
            yield f'round {k}: {g} has waited', make(cols=gto('reread', k, None))
        if pc == 'reread':
            list_ = cond[k] if 'reread' in RULES else \
                frozenset(obj for obj in cond[k] if not live(obj))
            yield f'round {k}: {g} reads again', make(cols=gto('sweep', k, list_))
        if pc == 'sweep':
            yield f'round {k}: {g} sweeps', make(sweep=once(sweep, k, seen), cols=gto('remove', k, None))
        if pc == 'remove':
            left = [obj for obj in sorted(sweep[k], key=str) if present(obj)]
            if left and seen is None:
                obj = left[0]
                yield f'round {k}: {g} removes {obj}', make(cols=gto('remove', k, None), **removed(obj))
                # an unanswered removal may land late; it is sent again unless that rule is gone
                after = gto('remove', k, 'sent') if 'confirm' in RULES else cols
                if ('remove', obj) not in pending:
                    yield f'round {k}: {g} removes {obj}, in flight', make(
                        pending=pending | {('remove', obj)}, cols=after)
            else:
                yield f'round {k}: {g} ends', make(ended=put(ended, k, True),
                                                   cols=gto('tidy', k, None))
        if pc == 'tidy':
            gone = next((u for u in range(NU) if sess[u] == 1 and own[u] != 1 and
                         (out[u] is not None or 'unregister' in RULES)), None)
            if gone is not None:
                yield f'{g} removes the session record of {gone}', make(sess=put(sess, gone, 2))
            yield f'{g} is done', make(cols=gto('idle', 0, None))


def broken(state):
    al, sess, out, own, v0, pack, _, _, _, _, _, ups, _ = state
    if not pack and v0:
        return 'version 0 is available and its pack is gone (I9)'
    if not pack and 'C1' in out:
        return 'a committed version names a pack that is gone (I9)'
    for u in range(NU):
        if out[u] in ('C0', 'C1') and own[u] != 1:
            return 'a committed version lost a pack of its own (I9)'
        if sess[u] == 1 and not al[u] and ups[u][1] == 'dead':
            return 'a session without a number: every round waits for it for ever (I6)'
        if sess[u] == 2 and out[u] is None:
            return 'an undecided upload has lost its session record (I12)'
    return None


explore(start, successors, broken, {
    'with P named again': lambda s: 'C1' in s[2],
    'with P collected': lambda s: not s[5],
    'with a stray pack collected': lambda s: 2 in s[3],
    'with a session record removed': lambda s: 2 in s[1]})
