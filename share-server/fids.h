#ifndef HULL_FIDS_H
#define HULL_FIDS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* The guest's handles. Each holds a descriptor of the very file (O_PATH), never a path. */
struct fid {
  uint32_t id;
  /* O_PATH; for an extended attribute, of the file whose attribute it is. */
  int path;
  /* The same file opened for reading or writing; -1 before Tlopen. */
  int open;
  /* The user who attached: the owner of what is made through this handle. */
  uint32_t uid;
  /* It took a lock, see locks.c. */
  bool locked;
  enum { PLAIN, ATTRIBUTE_READ, ATTRIBUTE_WRITE } kind;
  struct {
    char name[256];
    uint8_t *value;
    size_t size, filled;
    int flags;
  } attribute;
  struct fid *next;
};

/* NULL when the guest has no such handle. */
struct fid *find_fid(uint32_t id);
/* A new handle that takes over `path`; NULL when the number is taken or there are too many. */
struct fid *add_fid(uint32_t id, int path, uint32_t uid);
/* Closes and forgets it. */
void drop_fid(struct fid *fid);
/* Forgets all of them. */
void drop_all_fids(void);

#endif
