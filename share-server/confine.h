#ifndef HULL_CONFINE_H
#define HULL_CONFINE_H
#include <stdbool.h>
#include <stddef.h>

/* A file or folder of the host that is to be served. */
struct export {
  const char *path;
  /* Below `path`, which the guest may have written to: resolved inside of it. "" for itself. */
  const char *below;
  /* Nothing in it can be written; `flat` leaves file systems mounted below it writable. */
  bool readonly, flat;
  /* File systems mounted below it are not to be seen. */
  bool alone;
};

/*
 * Makes the exports, named "0", "1" and so on, the only files that this process can reach, for good, and
 * gives up what else it may do. `scratch` is an empty folder to build the root in. Afterwards the current
 * folder is /proc/self/fd.
 *
 * Returns a descriptor of the root folder, or -1 with why in `failure`.
 */
int confine(const char *scratch, const struct export *exports, size_t count,
            char *failure, size_t failure_size);

/* The last step: leaves this process the system calls of a file server only. 0, or -1 and errno. */
int filter_system_calls(void);

#endif
