/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packs that are in the store already may be named by the new version.
 *
 * Those of the base (the newest succeeded version of the name) and of the version that local state
 * knows, unless they are worn, so that nobody hydrates dead bytes for ever; unless there are too
 * many small ones, which are then gathered into few; and unless a collection condemned them. And
 * those that the interrupted upload has left, each byte verified.
 *
 * The order matters (docs/formats/catalogue.md, I6): what is found before the upload has begun is
 * provisional, so that a walk can be refused without a trace; publish_recheck_reuse() repeats the
 * decision afterwards, and files whose pack is lost are read again.
 */
#include "publish/publish-internal.h"
#include "publish/publish-shelf.h"

/* A pack is worn when this many versions passed since it was first used, and less than one part in
 * so many of its data is used. docs/publish.md has the figures. */
#define WORN_AGE   8u
#define WORN_SHARE 3u
/* Little used packs are gathered when there would be twice as many packs as the live bytes need,
 * but not for fewer than this; then some more than need be, so that not each version does it anew;
 * and none of which three quarters of a pack's size are used. */
#define GATHER_LEAST       32u
#define GATHER_SLACK_LEAST 2u
#define GATHER_SLACK_SHARE 8u /* of the packs that the live bytes need */
#define GATHER_SHARE       4u

/* ---- table ------------------------------------------------------------------------------------
 */

static int ref_compare(const struct object_ref *a, const struct object_ref *b)
{
    int d = memcmp(a->session.byte, b->session.byte, 16);

    return d ? d : a->seq < b->seq ? -1 : a->seq > b->seq;
}

static int number_compare(const void *a, const void *b, void *ctx)
{
    const struct publish_pack *packs = ctx;

    return ref_compare(&packs[*(const uint16_t *)a].ref, &packs[*(const uint16_t *)b].ref);
}

/* Numbers of all packs, sorted by session and sequence. */
static uint16_t *sorted_packs(const struct publish *p)
{
    uint16_t *numbers = malloc((p->packs.count + 1) * sizeof *numbers);

    if (!numbers)
        return NULL;
    for (size_t i = 0; i < p->packs.count; i++)
        numbers[i] = (uint16_t)i;
    if (p->packs.count > 1)
        qsort_r(numbers, p->packs.count, sizeof *numbers, number_compare, p->packs.at);
    return numbers;
}

static bool find_pack(const struct publish *p, const uint16_t *sorted, size_t count,
                      const struct object_ref *ref, uint16_t *ret)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int d = ref_compare(&p->packs.at[sorted[middle]].ref, ref);
        if (d == 0) {
            *ret = sorted[middle];
            return true;
        }
        if (d < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static bool is_worn(const struct object_ref *ref, uint32_t next_version)
{
    return next_version > ref->born && next_version - ref->born >= WORN_AGE &&
           ref->used_blocks < ref->data_size / PACK_BLOCK / WORN_SHARE;
}

/* Numbers are 16 bits wide in the tree, so what a manifest says is bounded here, too. */
static int add_manifest(struct publish *p, const struct manifest *m, bool is_base, struct err *err)
{
    size_t before = p->packs.count;
    AUTO(free_ptr) uint16_t *sorted = sorted_packs(p);

    if (!sorted)
        return -ENOMEM;
    for (uint32_t i = 0; i < m->pack_count; i++) {
        struct publish_pack pack = {.ref = m->packs[i]};
        uint16_t number;
        if (pack.ref.linked || pack.ref.data_size > PACK_DATA_MAX ||
            find_pack(p, sorted, before, &pack.ref, &number))
            continue;
        pack.of_base = is_base;
        pack.of_known = !is_base;
        pack.state = is_worn(&pack.ref, p->base_version + 1) ? PACK_UNUSABLE : PACK_USABLE;
        int r = publish_add_pack(p, &pack, &number, err);
        if (r < 0)
            return r;
    }
    for (uint32_t i = 0; i < m->pack_count && !is_base; i++) {
        uint16_t number;
        if (find_pack(p, sorted, before, &m->packs[i], &number))
            p->packs.at[number].of_known = true;
    }
    return 0;
}

/* ---- the base ---------------------------------------------------------------------------------
 */

/* A version that cannot be read is no base: a new one does not depend on it. */
static bool is_unreadable(int r)
{
    return r == -ENOENT || r == -EBADMSG || r == -EPROTO || r == -ESTALE;
}

static int load_version(struct publish *p, uint32_t version, struct version_info *ret,
                        struct manifest *ret_manifest, struct err *err)
{
    struct version_info info;
    struct err mine = ERR_INIT;

    int r = catalogue_resolve(p->catalogue, p->o->name, version, &info, &mine);
    if (r == 0 && info.status != VERSION_SUCCEEDED)
        r = -ENOENT;
    if (r == 0 && ret_manifest)
        r = catalogue_manifest(p->catalogue, &info, ret_manifest, &mine);
    if (r == 0)
        *ret = info;
    else if (!is_unreadable(r))
        return err_fail(err, r, "%s", err_text(&mine, r));
    return is_unreadable(r) ? -ENOENT : r;
}

static void count_base(struct publish *p, const struct manifest *m)
{
    if (m->linked)
        return; /* nothing of it is stored */
    p->base_bytes = m->size_bytes;
    for (uint32_t i = 0; i < m->pack_count; i++)
        p->base_used += m->packs[i].used_blocks * PACK_BLOCK;
}

/* What `known` says must be what the store says: the version is there, and is that one. */
static int load_known(struct publish *p, struct err *err)
{
    AUTO(manifest_release) struct manifest m = {0};
    struct log_session session;
    struct version_info info;
    struct digest manifest;

    if (!p->known || p->resumed)
        return 0;
    int r = -ENOENT;
    if (log_reader_session(p->known, &session))
        r = load_version(p, session.version, &info, &m, err);
    bool committed = r == 0 && log_reader_committed(p->known, &manifest);
    if (r == 0 && (memcmp(session.session.byte, info.session.byte, 16) != 0 ||
                   (committed && !digest_equal(&manifest, &info.manifest.digest))))
        r = -ENOENT;
    if (r == -ENOENT) {
        log_reader_free(p->known);
        p->known = NULL;
        return 0;
    }
    if (r < 0)
        return r;
    p->known_version = session.version;
    p->known_manifest = info.manifest.digest;
    return add_manifest(p, &m, session.version == p->base_version, err);
}

int publish_load_base(struct publish *p, struct err *err)
{
    AUTO(manifest_release) struct manifest m = {0};
    struct version_info info;

    int r = load_version(p, 0, &info, &m, err);
    if (r == 0) {
        p->base_version = info.version;
        p->base_manifest = info.manifest.digest;
        count_base(p, &m);
        r = add_manifest(p, &m, true, err);
    }
    return r < 0 && r != -ENOENT ? r : load_known(p, err);
}

/* ---- what an interrupted upload has left ------------------------------------------------------
 */

struct left_pack {
    uint32_t seq;
    uint64_t length;
};

struct left {
    VEC(struct left_pack) packs; /* ascending seq */
};

static int collect_left(void *ctx, uint32_t seq, uint64_t length)
{
    struct left *left = ctx;
    struct left_pack pack = {seq, length};

    return vec_push(&left->packs, pack);
}

static bool is_left(const struct left *left, const struct object_ref *ref)
{
    for (size_t i = 0; i < left->packs.count; i++) {
        if (left->packs.at[i].seq == ref->seq)
            return left->packs.at[i].length == ref->length;
    }
    return false;
}

static bool stop_asked(void *ctx)
{
    return publish_interrupted(ctx);
}

static int adopt_pack(struct publish *p, struct shelf *shelf, const struct object_ref *ref,
                      struct err *err)
{
    struct publish_pack pack = {.ref = *ref, .state = PACK_USABLE, .of_session = true};
    uint16_t number;

    int r = shelf_verify(shelf, ref, stop_asked, p);
    if (r == -ECANCELED)
        return err_fail(err, r, "interrupted");
    if (r == -EBADMSG || r == -EPROTO || r == -ENOENT)
        return 0; /* its files are stored anew */
    if (r < 0)
        return err_fail(err, r, "cannot verify what the interrupted upload has left in %s: %s",
                        p->store->location, store_error(p->store, r));
    pack.ref.born = upload_version(p->upload);
    return publish_add_pack(p, &pack, &number, err);
}

int publish_adopt_left(struct publish *p, struct err *err)
{
    AUTO(shelf_free) struct shelf *shelf = NULL;
    struct left left = {0};

    int r = upload_each_pack(p->upload, collect_left, &left, err);
    if (r == 0 && left.packs.count > 0)
        r = shelf_new(p->store, &shelf);
    for (uint32_t i = 0; r == 0 && i < LOG_NO_PACK && left.packs.count > 0; i++) {
        struct object_ref ref;
        if (log_reader_pack(p->known, (uint16_t)i, &ref) &&
            memcmp(ref.session.byte, upload_session(p->upload)->byte, 16) == 0 &&
            is_left(&left, &ref))
            r = adopt_pack(p, shelf, &ref, err);
    }
    vec_release(&left.packs);
    return r;
}

int publish_map_known(struct publish *p)
{
    AUTO(free_ptr) uint16_t *sorted = NULL;

    if (!p->known)
        return 0;
    sorted = sorted_packs(p);
    p->known_packs = malloc(LOG_PACKS * sizeof *p->known_packs);
    if (!sorted || !p->known_packs)
        return -ENOMEM;
    for (uint32_t i = 0; i < LOG_PACKS; i++) {
        struct object_ref ref;
        uint16_t number;
        p->known_packs[i] = LOG_NO_PACK;
        if (log_reader_pack(p->known, (uint16_t)i, &ref) &&
            find_pack(p, sorted, p->packs.count, &ref, &number) &&
            p->packs.at[number].state == PACK_USABLE &&
            digest_equal(&p->packs.at[number].ref.digest, &ref.digest))
            p->known_packs[i] = number;
    }
    return 0;
}

/* ---- second thoughts --------------------------------------------------------------------------
 */

static bool is_usable(const struct publish *p, uint16_t pack)
{
    return pack >= p->packs.count || p->packs.at[pack].state != PACK_UNUSABLE;
}

static bool must_be_read(const struct publish *p, const struct tree_node *n)
{
    if (n->type != TREE_FILE || n->pack == PUBLISH_PENDING)
        return false;
    if (n->pack != TREE_PACK_MANY)
        return !is_usable(p, n->pack);
    for (uint64_t i = 0; i < tree_chunk_count(n->size); i++) {
        if (!is_usable(p, tree_chunk(p->tree, n->ref + (uint32_t)i)->pack))
            return true;
    }
    return false;
}

/* Files whose pack has become unusable are pending again. */
static void read_again(struct publish *p)
{
    p->xattrs_outdated = p->xattrs.count > 0;
    for (uint32_t i = 0; i < tree_node_count(p->tree); i++) {
        struct tree_node *n = tree_node(p->tree, i);
        if (!must_be_read(p, n))
            continue;
        n->pack = PUBLISH_PENDING;
        p->pending_files++;
        p->pending_bytes += n->size;
        p->pending_room += n->size;
        p->progress.files_done--;
        p->progress.bytes_done -= n->size;
    }
}

/* ---- gathering --------------------------------------------------------------------------------
 */

static uint64_t used_bytes(const struct publish *p, uint16_t pack)
{
    return p->packs.at[pack].ref.used_blocks * PACK_BLOCK;
}

static int used_compare(const void *a, const void *b, void *ctx)
{
    const struct publish *p = ctx;
    uint64_t x = used_bytes(p, *(const uint16_t *)a), y = used_bytes(p, *(const uint16_t *)b);

    return x < y ? -1 : x > y;
}

static uint64_t packs_of(const struct publish *p, uint64_t bytes)
{
    return bytes / p->pack_target + (bytes % p->pack_target != 0);
}

/* How many of the least used packs to store anew, together with what is new, so that there are
 * `too_many` fewer. Merging packs that are mostly used costs more than it gives. */
static size_t choose_gathered(const struct publish *p, const uint16_t *by_use, size_t count,
                              uint64_t too_many)
{
    uint64_t bytes = p->pending_bytes;

    for (size_t i = 0; i < count; i++) {
        if (used_bytes(p, by_use[i]) > p->pack_target / GATHER_SHARE * (GATHER_SHARE - 1))
            return i > 1 ? i : 0;
        bytes += used_bytes(p, by_use[i]);
        if (i + 1 + packs_of(p, p->pending_bytes) >= packs_of(p, bytes) + too_many)
            return i + 1;
    }
    return count > 1 ? count : 0;
}

int publish_settle_reuse(struct publish *p)
{
    uint64_t ideal = packs_of(p, p->base_used), limit = 2 * ideal, count = 0;
    AUTO(free_ptr) uint16_t *by_use = malloc((p->packs.count + 1) * sizeof *by_use);

    if (!by_use)
        return -ENOMEM;
    for (size_t i = 0; i < p->packs.count; i++) {
        if (p->packs.at[i].state == PACK_USABLE && !p->packs.at[i].of_session)
            by_use[count++] = (uint16_t)i;
    }
    limit = limit > GATHER_LEAST ? limit : GATHER_LEAST;
    uint64_t after = count + packs_of(p, p->pending_bytes);
    if (p->pending_files == 0 || after <= limit || count < 2)
        return 0;
    qsort_r(by_use, count, sizeof *by_use, used_compare, p);
    uint64_t slack = ideal / GATHER_SLACK_SHARE;
    if (slack < GATHER_SLACK_LEAST)
        slack = GATHER_SLACK_LEAST;
    size_t gathered = choose_gathered(p, by_use, count, after - limit + slack);
    for (size_t i = 0; i < gathered; i++)
        p->packs.at[by_use[i]].state = PACK_UNUSABLE;
    if (gathered > 0)
        read_again(p);
    return 0;
}

/* Is `version` still there, and the one that was read? */
static int still_there(struct publish *p, uint32_t version, const struct digest *manifest,
                       bool *ret, struct err *err)
{
    struct version_info info;

    *ret = false;
    if (version == 0)
        return 0;
    int r = load_version(p, version, &info, NULL, err);
    if (r == 0)
        *ret = digest_equal(&info.manifest.digest, manifest);
    return r == -ENOENT ? 0 : r;
}

int publish_recheck_reuse(struct publish *p, struct err *err)
{
    bool base, known, lost = false;

    int r = still_there(p, p->base_version, &p->base_manifest, &base, err);
    if (r == 0)
        r = still_there(p, p->known_version, &p->known_manifest, &known, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p->packs.count; i++) {
        struct publish_pack *pack = &p->packs.at[i];
        bool available = (pack->of_base && base) || (pack->of_known && known);
        if (pack->state != PACK_USABLE || pack->of_session ||
            (available && upload_may_reuse(p->upload, &pack->ref)))
            continue;
        pack->state = PACK_UNUSABLE;
        lost = true;
    }
    if (lost)
        read_again(p);
    return 0;
}
