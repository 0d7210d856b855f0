#ifndef HULL_LEND_H
#define HULL_LEND_H
#include <stdint.h>
#include <sys/types.h>

/*
 * Makes a child of this process's parent that goes on in this process's memory, and comes back in the child only, with
 * its PID as this process sees it. This process does nothing any more until it is killed. -1 and errno, in this
 * process, when there is no child.
 */
pid_t clone_onto(uint64_t flags, int cgroup);

#endif
