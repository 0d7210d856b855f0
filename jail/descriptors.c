/*
 * Loaded into QEMU in its room, where there is neither /proc nor /dev: opening /dev/fd/N gives a duplicate
 * of descriptor N, as it would elsewhere; /dev/null is descriptor 0 (QEMU tries on it which locks there
 * are, and locks disks accordingly), /dev/kvm is descriptor 9.
 *
 * A descriptor keeps the access it was opened with. QEMU before 8.2 opens a memory file for reading and
 * writing even if it maps it privately; what it gets of a template's memory can be read only, which the
 * kernel sees to.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KVM = 9 };

static const char FOLDER[] = "/dev/fd/";

static int open_path(const char *path, int flags, mode_t mode) {
  int inherited = -1;
  if (!strcmp(path, "/dev/null")) inherited = STDIN_FILENO;
  if (!strcmp(path, "/dev/kvm")) inherited = KVM;
  if (!strncmp(path, FOLDER, sizeof FOLDER - 1)) {
    char *end;
    long number = strtol(path + sizeof FOLDER - 1, &end, 10);
    if (*end == 0 && number > STDERR_FILENO && number < 1024)
      inherited = (int)number;
  }
  if (inherited < 0)
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
  int fd = fcntl(inherited, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  if (fd < 0) errno = ENOENT;
  return fd;
}

#define MODE(flags, last)                                                      \
  mode_t mode = 0;                                                             \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {                                     \
    va_list args;                                                              \
    va_start(args, last);                                                      \
    mode = va_arg(args, mode_t);                                               \
    va_end(args);                                                              \
  }

int open(const char *path, int flags, ...) {
  MODE(flags, flags)
  return open_path(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags, flags)
  return open_path(path, flags, mode);
}

/* What the C library's fortified headers call where no file is made. */
int __open_2(const char *path, int flags) { return open_path(path, flags, 0); }

int __open64_2(const char *path, int flags) {
  return open_path(path, flags, 0);
}
