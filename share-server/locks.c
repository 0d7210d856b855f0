/*
 * Locks of the guest's processes, as locks of the host, so that the containers that share a folder, and
 * the host's own programs, see each other's. The guest's kernel settles what its own processes want of
 * each other; here a process is an open file description of the locked file.
 */
#include "locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "server.h"

enum { MAX_OWNERS = 16 * 1024 };

struct owner {
  dev_t device;
  ino_t inode;
  uint32_t process;
  int file;
  bool readonly;
  /* The handle through which it locked last. */
  uint32_t fid;
  struct owner *next;
};

static struct owner *owners;
static size_t count;

static struct owner *find_owner(const struct stat *file, uint32_t process) {
  struct owner *owner = owners;
  while (owner && (owner->process != process || owner->inode != file->st_ino ||
                   owner->device != file->st_dev))
    owner = owner->next;
  return owner;
}

static void drop_owner(struct owner *owner) {
  struct owner **link = &owners;
  while (*link != owner) link = &(*link)->next;
  *link = owner->next;
  count--;
  close(owner->file);
  free(owner);
}

static struct owner *add_owner(struct fid *fid, const struct stat *file,
                               uint32_t process) {
  struct owner *owner;
  bool readonly = false;
  int opened;
  if (!S_ISREG(file->st_mode) && !S_ISDIR(file->st_mode)) return NULL;
  if (count >= MAX_OWNERS) return NULL;
  opened = S_ISDIR(file->st_mode) ? -1 : reopen(fid->path, O_RDWR);
  if (opened < 0) {
    readonly = true;
    opened = reopen(fid->path, O_RDONLY);
  }
  if (opened < 0) return NULL;
  owner = malloc(sizeof *owner);
  if (!owner) {
    close(opened);
    return NULL;
  }
  *owner = (struct owner){.device = file->st_dev,
                          .inode = file->st_ino,
                          .process = process,
                          .file = opened,
                          .readonly = readonly,
                          .next = owners};
  owners = owner;
  count++;
  return owner;
}

/* A file that cannot be written is locked for reading where a lock for writing was asked for. */
static bool to_host(const struct lock *lock, bool readonly,
                    struct flock *host) {
  if (lock->type > LOCK_NONE || lock->start > INT64_MAX ||
      lock->length > INT64_MAX - lock->start)
    return false;
  *host = (struct flock){
      .l_type = lock->type == LOCK_NONE                ? F_UNLCK
                : lock->type == LOCK_READ || readonly ? F_RDLCK
                                                       : F_WRLCK,
      .l_whence = SEEK_SET,
      .l_start = (off_t)lock->start,
      .l_len = (off_t)lock->length};
  return true;
}

uint8_t take_lock(struct fid *fid, const struct lock *lock) {
  struct stat file;
  struct flock host;
  struct owner *owner;
  if (fstat(fid->path, &file)) return LOCK_FAILED;
  owner = find_owner(&file, lock->process);
  if (!owner && lock->type == LOCK_NONE) return LOCK_SUCCESS;
  if (!owner) owner = add_owner(fid, &file, lock->process);
  if (!owner || !to_host(lock, owner->readonly, &host)) return LOCK_FAILED;
  owner->fid = fid->id;
  fid->locked = true;
  if (fcntl(owner->file, F_OFD_SETLK, &host) == 0) {
    /* The kernel of the guest says so when a process lets go of everything. */
    if (lock->type == LOCK_NONE && lock->start == 0 && lock->length == 0)
      drop_owner(owner);
    return LOCK_SUCCESS;
  }
  return errno == EAGAIN || errno == EACCES ? LOCK_BLOCKED : LOCK_FAILED;
}

int test_lock(struct fid *fid, struct lock *lock) {
  struct stat file;
  struct flock host;
  struct owner *owner;
  int error;
  if (fstat(fid->path, &file)) return errno;
  owner = find_owner(&file, lock->process);
  if (!owner) owner = add_owner(fid, &file, lock->process);
  if (!owner) return ENOLCK;
  owner->fid = fid->id;
  fid->locked = true;
  /* Linux does not say which type it asks for: a lock for writing meets any other. */
  if (lock->type == LOCK_NONE) lock->type = LOCK_WRITE;
  if (!to_host(lock, owner->readonly, &host)) return EINVAL;
  error = fcntl(owner->file, F_OFD_GETLK, &host) ? errno : 0;
  if (error) return error;
  lock->type = host.l_type == F_UNLCK   ? LOCK_NONE
               : host.l_type == F_RDLCK ? LOCK_READ
                                        : LOCK_WRITE;
  if (lock->type != LOCK_NONE) {
    lock->start = (uint64_t)host.l_start;
    lock->length = (uint64_t)host.l_len;
    /* Whose it is, is no process of this guest. */
    lock->process = 0;
  }
  return 0;
}

void forget_locks(struct fid *fid) {
  struct owner *owner = owners, *next;
  if (!fid->locked) return;
  for (; owner; owner = next) {
    next = owner->next;
    if (owner->fid == fid->id) drop_owner(owner);
  }
}
