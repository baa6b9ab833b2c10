/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program `grid`. Everything is in the library beside it, so that tests can call it.
 */
#include "cli/cli.h"

int main(int argc, char *argv[])
{
    return cli_main(argc, argv);
}
