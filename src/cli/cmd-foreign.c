/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words of Grid that this program does not have: what rents cloud machines. Known, so that nobody
 * has to guess: one sentence on what to use instead.
 */
#include "cli/cli-internal.h"

#include <string.h>

struct foreign {
    const char *words;
    int exit;
    const char *sentence;
};

static const struct foreign foreign[] = {
    /* What rents machines. */
    {"login", CLI_USAGE,
     "'grid login' is not needed here: there is no account; stores are "
     "directories or buckets that you can read, see 'grid clusters'"},
    {"logout", CLI_USAGE, "'grid logout' is not needed here: there is no account"},
    {"status", CLI_USAGE,
     "'grid status' showed rented machines; here 'grid run' lists the runs on "
     "this machine and 'grid datastore mounts' what is mounted"},
    {"stop", CLI_USAGE,
     "'grid stop' stopped rented machines; here a run ends with its command: "
     "press Ctrl-C or use kill(1)"},
    {"delete", CLI_USAGE, "'grid delete' deleted rented machines; here there are none"},
    {"history", CLI_USAGE,
     "'grid history' showed past runs on rented machines; here runs are "
     "ordinary processes: use your scheduler's accounting"},
    {"artifacts", CLI_USAGE,
     "'grid artifacts' fetched files from rented machines; here a run "
     "writes them where you tell it"},
    {"train", CLI_USAGE,
     "'grid train' is the old name of 'grid run': use "
     "'grid run --datastore_name NAME -- COMMAND'"},
    {"interactive", CLI_USAGE,
     "'grid interactive' rented a machine; here use "
     "'grid run --datastore_name NAME -- bash'"},
    {"session ssh", CLI_USAGE,
     "'grid session ssh' reached a rented machine; here 'grid session enter S' goes into a session "
     "of this machine"},
    {"session stop", CLI_USAGE,
     "'grid session stop' stopped a rented machine; here 'grid session delete S' ends a session"},
    {"ssh-keys", CLI_USAGE, "'grid ssh-keys' was for rented machines; here runs are on this one"},
    {"sync-env", CLI_USAGE,
     "'grid sync-env' was for rented machines; here a run has this "
     "machine's environment"},
    {"instance-types", CLI_USAGE,
     "'grid instance-types' listed machines to rent; here runs are on "
     "this one, or where your scheduler puts them"},
    {"tensorboard", CLI_USAGE,
     "'grid tensorboard' was for rented machines; here run tensorboard "
     "as any other program"},
    {"team", CLI_USAGE,
     "'grid team' belonged to Grid's accounts; here a store is shared by the "
     "permissions of its directory"},
    {"view", CLI_USAGE,
     "'grid view' opened Grid's web page; there is none here: see "
     "'grid datastore show NAME'"},
};

bool foreign_command(char *const *argv, int *ret_exit)
{
    char words[64];

    for (size_t n = 1; n <= 2 && argv[n - 1]; n++) {
        int length = n == 1 ? snprintf(words, sizeof words, "%s", argv[0])
                            : snprintf(words, sizeof words, "%s %s", argv[0], argv[1]);
        if (length < 0 || (size_t)length >= sizeof words)
            return false;
        for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
            if (strcmp(foreign[i].words, words) != 0)
                continue;
            say("%s", foreign[i].sentence);
            *ret_exit = foreign[i].exit;
            return true;
        }
    }
    return false;
}
