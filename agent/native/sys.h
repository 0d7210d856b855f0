#ifndef HULL_SYS_H
#define HULL_SYS_H
#include "quickjs.h"

#include <time.h>

/*
 * Puts the object `sys` (see agent/src/sys.ts for its functions) on the global object. `started` is
 * when the agent began, by the monotonic clock.
 */
void sys_install(JSContext *context, const struct timespec *started);

#endif
