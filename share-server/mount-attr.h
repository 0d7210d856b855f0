#ifndef HULL_MOUNT_ATTR_H
#define HULL_MOUNT_ATTR_H
#include <stdint.h>
#include <sys/syscall.h>

/* mount_setattr(2), Linux 5.12; <linux/mount.h> clashes with <sys/mount.h>, and musl has neither. */
struct hull_mount_attr {
  uint64_t attr_set, attr_clr, propagation, userns_fd;
};
enum {
  HULL_MOUNT_RDONLY = 0x1,
  HULL_MOUNT_NOSUID = 0x2,
  HULL_MOUNT_NODEV = 0x4,
  HULL_MOUNT_NOEXEC = 0x8,
};
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* As many as one container may have. */
enum { HULL_MAX_EXPORTS = 256 };

#endif
