#include "fetch/fetch-internal.h"
void ahead_touch(struct fetch_object *o, uint64_t offset, uint64_t size,
                 const struct fetch_hint *hint, bool missed)
{
}
bool ahead_step(struct fetch *f)
{
    f->ahead_work = false;
    return false;
}
void ahead_wake(struct fetch *f)
{
}
void ahead_forget(struct fetch *f, const struct fetch_object *o)
{
}
