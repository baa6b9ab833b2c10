/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grid datastore index: a version's index as a file, which fsck.erofs, dump.erofs and the kernel
 * read; or its text with --dump.
 *
 * The file appears whole or not at all: a temporary one beside it, then a rename.
 */
#include "cli/cli-internal.h"

#include "base/file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct option cmd_index_options[] = {
    {"--dump", 0, NULL, "write it as text, one line per path", NULL}, OPTION_CLUSTER, OPTION_END};

#define COPY_BUFFER (1u << 20)

struct target {
    const char *path; /* "-": stdout */
    char temp[PATH_MAX];
    FILE *file;
};

static int open_file(struct target *t)
{
    if (strcmp(t->path, "-") == 0) {
        t->file = stdout;
        return CLI_DONE;
    }
    if ((size_t)snprintf(t->temp, sizeof t->temp, "%s.XXXXXX", t->path) >= sizeof t->temp)
        return say_failed("cannot write %s: the path is too long", t->path);
    int fd = mkostemp(t->temp, O_CLOEXEC);
    if (fd >= 0)
        t->file = fdopen(fd, "w");
    if (t->file)
        return CLI_DONE;
    int code = say_failed("cannot write %s: %s", t->path, strerror(errno));
    if (fd >= 0) {
        (void)close(fd);
        (void)unlink(t->temp); /* the error was told */
    }
    return code;
}

/* As open(2) with 0666 would have made it. */
static mode_t default_mode(void)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    return 0666 & ~mask;
}

/* Put it in place if `code` is good, else take it away. */
static int close_file(struct target *t, int code)
{
    if (t->file == stdout)
        return finish_stdout(code);
    if (code == CLI_DONE && (fflush(t->file) != 0 || fchmod(fileno(t->file), default_mode()) < 0 ||
                             rename(t->temp, t->path) < 0))
        code = say_failed("cannot write %s: %s", t->path, strerror(errno));
    if (code != CLI_DONE)
        (void)unlink(t->temp); /* the error was told */
    (void)fclose(t->file);     /* flushed above */
    return code;
}

static struct pack_summary summary_of(const struct object_ref *ref)
{
    return (struct pack_summary){.digest = ref->digest,
                                 .length = ref->length,
                                 .data_size = ref->data_size,
                                 .leaf_count = ref->leaf_count,
                                 .trailer_offset = object_ref_trailer_offset(ref),
                                 .trailer_length = ref->trailer_length};
}

static int write_image(struct opened *o, const struct target *t)
{
    AUTO(fetch_object_free) struct fetch_object *object = NULL;
    AUTO(free_ptr) char *buffer = malloc(COPY_BUFFER);
    const struct manifest *m = view_manifest(o->view);
    struct pack_summary summary = summary_of(&m->index);
    char key[OBJECT_KEY_MAX];

    object_ref_key('x', &m->index, key);
    int r = buffer ? fetch_object_new(o->fetch, key, PACK_KIND_INDEX, &summary, &object) : -ENOMEM;
    for (uint64_t offset = 0; r == 0 && offset < m->index_size;) {
        uint64_t rest = m->index_size - offset;
        size_t n = rest < COPY_BUFFER ? (size_t)rest : COPY_BUFFER;
        r = fetch_read(object, offset, buffer, n, FETCH_NO_HINT);
        if (r == 0 && fwrite(buffer, 1, n, t->file) != n)
            return say_failed("cannot write %s: %s", t->path, strerror(errno));
        offset += n;
    }
    return r < 0 ? say_failed("cannot read the index of %s:%u (%s): %s", o->info.name,
                              o->info.version, key, strerror(-r))
                 : CLI_DONE;
}

static int write_dump(struct opened *o, const struct target *t)
{
    struct err err = ERR_INIT;
    int r = index_dump(view_index(o->view), t->file, &err);

    return r < 0 ? say_err(&err, r) : CLI_DONE;
}

int cmd_index(struct cli *cli, const struct args *args)
{
    AUTO(opened_release) struct opened o = {0};
    bool dump = args_flag(args, "--dump");
    struct target t = {.path = args->words.count > 1 ? args->words.at[1] : "-"};

    if (!dump && args->words.count < 2)
        return say_usage(args->command, "a file for the image is missing ('-' is standard output)");
    if (!dump && strcmp(t.path, "-") == 0 && stdout_is_terminal())
        return say_usage(args->command, "an image is nothing for a terminal: name a file");
    int code = open_view(cli, args->words.at[0], false, &o);
    if (code == CLI_DONE)
        code = open_file(&t);
    if (code != CLI_DONE)
        return code;
    return close_file(&t, dump ? write_dump(&o, &t) : write_image(&o, &t));
}
