/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C during long work: the first one is noted and the work stops where it can go on later; the
 * second one ends the program at once, as it would have without us.
 */
#include "cli/cli-internal.h"

#include <signal.h>

volatile sig_atomic_t interrupt_signal;

static void note(int number)
{
    __atomic_store_n(&interrupt_signal, number, __ATOMIC_RELAXED); /* other threads look, too */
}

void interrupt_catch(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old;
        /* nohup(1) and background jobs ignore some: that stays so. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &action, NULL); /* cannot fail for these */
    }
}
