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
