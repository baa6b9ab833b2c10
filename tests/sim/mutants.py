#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a source file of the catalogue with one rule taken out: mutants.py NAME SOURCE OUTPUT.

The simulator must notice each. A text that is not found exactly once fails the build, so a mutant that
has gone stale is seen. White space does not matter.
"""
import re
import sys

MUTANTS = {
    # R4: "taken" is believed, though it may be one's own earlier try
    'settle': ('put', 'r = compare(c, key, type, d, ret_other, err);',
               'if (r != -EEXIST) r = compare(c, key, type, d, ret_other, err);'),
    # R4: a record found counts as mine, whatever its nonce
    'nonce': ('put', 'if (memcmp(&nonce, &d->nonce, sizeof nonce) == 0)', 'if (nonce.byte[0] + 1)'),
    # I1: a lost number sends the allocator too far
    'dense': ('upload', 't->version = ++highest;', 't->version = highest += i > 0 ? 2 : 1;'),
    # I6: the condemned lists are read before the session is registered
    'order': ('upload', 'bool allocated = r == 0; if (r == 0) r = register_session(u, err); '
                        'if (r == 0) r = upload_load_condemned(u, err);',
              'bool allocated = r == 0; if (r == 0) r = upload_load_condemned(u, err); '
              'if (r == 0) r = register_session(u, err);'),
    # I4: an absent outcome counts as "not committed"
    'decide': ('commit', '(void)store_put_if_absent(u->c->store, key, buf_bytes(&abort.bytes));',
               'return err_fail(err, -ESTALE, "mutant");'),
    # I4: "taken" counts as "aborted"
    'status-code': ('commit', 'if (!is_doubt(r)) return err_fail(err, r, "cannot write %s to the store',
                    'if (r == -EEXIST) {return err_fail(err, -ESTALE, "mutant");}\n'
                    'if (!is_doubt(r)) return err_fail(err, r, "cannot write %s to the store'),
    # I4: any commit found counts as mine
    'whose': ('commit', 'if (memcmp(&nonce, &commit->nonce, sizeof nonce) == 0)',
              'if (nonce.byte[0] + 1 && ret->status == VERSION_SUCCEEDED)'),
    # I4: whoever aborts does not look who won
    'abort-blind': ('commit', 'r = put_record(c, key, RECORD_OUTCOME, &d, &other, err); '
                              'if (r != -EEXIST) return r;',
                    'r = put_record(c, key, RECORD_OUTCOME, &d, &other, err); '
                    'if (r == -EEXIST) {return 0;}\n if (r < 0) return r;'),
    # I8: a manifest whose put was in doubt is named
    'doubtful': ('commit', 'r = store_put_if_absent(u->c->store, key, buf_bytes(&b)); if (r == 0) {',
                 'r = store_put_if_absent(u->c->store, key, buf_bytes(&b)); if (r == 0 || is_doubt(r)) {'),
    # I5: nobody looks whether the packs are there
    'check': ('commit', 'int r = check_objects(u, m, err);', 'int r = check_objects == NULL;'),
    # I2, I3: an abandoned upload removes its number again
    'immortal': ('upload', '(void)outcome_abort(c, &u->terms, "it could not be started", NULL);',
                 '{ char key[CATALOGUE_KEY_MAX]; key_version(key, u->terms.name, u->terms.version, "a"); '
                 '(void)store_remove(c->store, key); }'),
    # I13: nobody looks for a deletion behind a lease write
    'recheck': ('hold', 'r = look_for_deletion(h, jobs, err);', 'r = look_for_deletion == NULL;'),
    # I13: nor behind a renewal
    'renewcheck': ('hold', 'r = look_for_deletion(h, jobs, err);',
                   'r = seq > 0 ? 0 : look_for_deletion(h, jobs, err);'),
    # I13: a lease is believed although its own deadline has passed
    'deadline': ('hold', 'if (h->state == HOLD_HELD && boot_ms(h) >= h->deadline_ms) {',
                 'if (h->state == HOLD_HELD && !h->name[0]) {'),
    # I13: the deadline counts from the answer, not from the sending
    'sending': ('hold', '*ret_deadline = sent + h->times.ttl_ms', '*ret_deadline = boot_ms(h) + h->times.ttl_ms'),
    # I14: a round that another has settled counts as refused by me
    'settled': ('hold', 'if (r == 0 && deleted)', 'if (r == 0 && deleted && round->result)'),
    # R5: leases are listed first, then the intent is posted
    'intent': ('delete', 'int r = post_intent(d, err); if (r < 0) return r; r = look_at_leases(d, err);',
               'int r = look_at_leases(d, err); if (r < 0) return r; r = post_intent(d, err);'),
    # I13: "its process is gone" is guessed
    'same-host': ('delete', 'if (d->options->is_gone) return d->options->is_gone(d->options->ctx, &l->process);',
                  'if (d->options->is_gone) return true;'),
    # I14: what the result's key says is not looked at
    'result': ('delete', 'if (r < 0 || stands) return r; if (!other)',
               'if (r < 0 || stands || deleted) return r; if (!other)'),
    # R6: a listing of leases that fails shows nobody
    'nobody': ('lease', 'int r = store_list(c->store, prefix, NULL, take_lease, &l, &now);',
               'int r = store_list(c->store, prefix, NULL, take_lease, &l, &now); if (r < 0) {r = 0;}'),
    # I7: the condemned lists are not read
    'condemned': ('condemned', 'if (r == 0) close_round(&s);', 'if (r == 0) s.open.count = 0;'),
    # I10: nobody waits for running uploads
    'await': ('collect', 'if (!g->round.swept) r = await_uploads(g);', 'r = await_uploads == NULL;'),
    # I9: versions are not read again
    'reread': ('sweep', 'int r = survey_again(&g->survey, g->err);', 'int r = 0;'),
    # I9: what they name now is swept all the same
    'spare': ('sweep', 'for (size_t i = survey_find(s, range->letter, &range->session, range->first); '
                       'i < s->named.count; i++)',
              'for (size_t i = s->named.count; i < s->named.count; i++)'),
    # I11: a round begins before the last has ended
    'round': ('collect', 'if (l.newest.number == 0 || l.newest.ended)', 'if (l.newest.number == 0 || l.newest.swept)'),
    # I16: a manifest that cannot be read names nothing
    'fail-closed': ('survey', 'r = catalogue_manifest(g->s->c, info, &m, &err);',
                    'if (catalogue_manifest(g->s->c, info, &m, &err) < 0) {continue;}'),
    # I12: the record of a running upload is removed
    'tidy': ('tidy', 'return v && v->decided && !survey_names', 'return v && !survey_names'),
    # a list is never removed
    'sweep-nothing': ('sweep', 'r = store_remove(store, key); if (r < 0)', 'if (r < 0)'),
}


def main():
    name, source, output = sys.argv[1:]
    _, old, new = MUTANTS[name]
    with open(source, encoding='utf-8') as file:
        text = file.read()
    pattern = r'\s*'.join(re.escape(word) for word in re.findall(r'\w+|[^\w\s]', old))
    found = re.findall(pattern, text)
    if len(found) != 1:
        sys.exit(f'mutant {name}: its text is found {len(found)} times in {source}')
    with open(output, 'w', encoding='utf-8') as file:
        file.write(text.replace(found[0], new))


main()
