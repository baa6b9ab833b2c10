/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which process holds a lease, and whether it is certain that it is gone.
 *
 * "Gone" frees a version at once, so it is only said where nothing can make it wrong: a pid means
 * nothing outside its pid namespace, /proc may be hidden, a host's name may be another machine's.
 */
#include "catalogue/catalogue-internal.h"

#include "base/file.h"
#include "base/hex.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>

/* The inode of the first pid namespace of every kernel (PROC_PID_INIT_INO). */
#define FIRST_PID_NS  UINT64_C(0xEFFFFFFC)
#define PROC_STAT_MAX 4096u

/* One word of a small file. */
static void read_word(const char *path, char *ret, size_t size)
{
    AUTO(buf_release) struct buf b = BUF_INIT(PROC_STAT_MAX);

    ret[0] = '\0';
    if (file_slurp(AT_FDCWD, path, &b) < 0)
        return;
    size_t length = strcspn(buf_text(&b), " \t\n");
    if (length < size) {
        memcpy(ret, buf_text(&b), length);
        ret[length] = '\0';
    }
}

/* Field 22 of /proc/PID/stat; the second field may hold anything. 0: cannot be told. *ret_ended: it
 * is only waited for; holders have no threads that outlive their first. */
static uint64_t start_of(int64_t pid, bool *ret_ended)
{
    AUTO(buf_release) struct buf b = BUF_INIT(PROC_STAT_MAX);
    char path[64];
    uint64_t start;

    (void)snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid); /* fits */
    if (file_slurp(AT_FDCWD, path, &b) < 0)
        return 0;
    const char *p = strrchr(buf_text(&b), ')');
    *ret_ended = p && p[1] == ' ' && (p[2] == 'Z' || p[2] == 'X');
    for (int field = 2; p && field < 22; field++) {
        p = strchr(p, ' ');
        if (p)
            p++;
    }
    return p && sscanf(p, "%" SCNu64, &start) == 1 ? start : 0;
}

void hold_process_self(struct hold_process *ret)
{
    hold_process_of(getpid(), ret);
}

void hold_process_of(int64_t pid, struct hold_process *ret)
{
    char id[64], host[sizeof ret->host] = "";
    struct stat st;
    bool ended;

    memset(ret, 0, sizeof *ret);
    if (gethostname(host, sizeof host - 1) < 0)
        (void)snprintf(host, sizeof host, "unknown"); /* fits */
    text_copy(ret->host, sizeof ret->host, host);
    read_word("/proc/sys/kernel/random/boot_id", ret->boot_id, sizeof ret->boot_id);
    read_word("/etc/machine-id", id, sizeof id);
    if (strlen(id) == 32) { /* not itself: it is meant to stay on the machine */
        char salted[128];
        int n = snprintf(salted, sizeof salted, "grid lease %s", id);
        struct digest d = digest_of(salted, (size_t)n);
        hex_encode(ret->machine, d.byte, (sizeof ret->machine - 1) / 2);
    }
    if (stat("/proc/self/ns/pid", &st) == 0)
        ret->pid_ns = st.st_ino;
    ret->pid = pid;
    ret->pid_start = start_of(ret->pid, &ended);
}

bool hold_process_is_gone(const struct hold_process *p)
{
    struct hold_process self;

    hold_process_self(&self);
    if (!p->boot_id[0] || !self.boot_id[0] || p->pid <= 0 || p->pid > INT32_MAX)
        return false;
    if (strcmp(p->boot_id, self.boot_id) == 0) { /* the same kernel */
        if (p->pid_ns == 0 || p->pid_ns != self.pid_ns)
            return false;
        if (kill((pid_t)p->pid, 0) < 0 && errno == ESRCH)
            return true;
        bool ended = false;
        uint64_t start = start_of(p->pid, &ended);
        return start && p->pid_start && (ended || start != p->pid_start);
    }
    return p->machine[0] && strcmp(p->machine, self.machine) == 0 &&
           strcmp(p->host, self.host) == 0 && p->pid_ns == FIRST_PID_NS &&
           self.pid_ns == FIRST_PID_NS;
}
