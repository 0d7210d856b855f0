#include "fids.h"

#include <stdlib.h>
#include <unistd.h>

#include "locks.h"

/* Each is a descriptor or two of this process. */
enum { BUCKETS = 4096, MAX_FIDS = 256 * 1024 };

static struct fid *buckets[BUCKETS];
static size_t count;

static struct fid **bucket(uint32_t id) {
  return &buckets[(id * 2654435761u) >> 20];
}

struct fid *find_fid(uint32_t id) {
  struct fid *fid = *bucket(id);
  while (fid && fid->id != id) fid = fid->next;
  return fid;
}

struct fid *add_fid(uint32_t id, int path, uint32_t uid) {
  struct fid *fid, **head = bucket(id);
  if (count >= MAX_FIDS || find_fid(id)) return NULL;
  fid = calloc(1, sizeof *fid);
  if (!fid) return NULL;
  *fid = (struct fid){
      .id = id, .path = path, .open = -1, .uid = uid, .next = *head};
  *head = fid;
  count++;
  return fid;
}

void drop_fid(struct fid *fid) {
  struct fid **link = bucket(fid->id);
  while (*link != fid) link = &(*link)->next;
  *link = fid->next;
  count--;
  forget_locks(fid);
  if (fid->open >= 0) close(fid->open);
  close(fid->path);
  free(fid->attribute.value);
  free(fid);
}

void drop_all_fids(void) {
  for (size_t i = 0; i < BUCKETS; i++)
    while (buckets[i]) drop_fid(buckets[i]);
}
