#ifndef HULL_LOCKS_H
#define HULL_LOCKS_H
#include <stdbool.h>
#include <stdint.h>

#include "fids.h"

/* P9_LOCK_* of 9P2000.L. */
enum { LOCK_READ = 0, LOCK_WRITE = 1, LOCK_NONE = 2 };
enum { LOCK_SUCCESS = 0, LOCK_BLOCKED = 1, LOCK_FAILED = 2 };

struct lock {
  uint8_t type;
  uint64_t start;
  /* 0: up to the end of the file. */
  uint64_t length;
  /* The guest's process. */
  uint32_t process;
};

/* Takes or releases a lock; gives LOCK_SUCCESS, LOCK_BLOCKED or LOCK_FAILED. */
uint8_t take_lock(struct fid *fid, const struct lock *lock);
/* What would be in the way; `type` is LOCK_NONE when nothing is. Returns 0 or an errno. */
int test_lock(struct fid *fid, struct lock *lock);
/* Releases what was last locked through this handle. */
void forget_locks(struct fid *fid);

#endif
