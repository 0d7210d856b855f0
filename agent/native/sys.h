#ifndef HULL_SYS_H
#define HULL_SYS_H
#include "quickjs.h"

/* Puts the object `sys` (see agent/src/sys.ts for its functions) on the global object. */
void sys_install(JSContext *context);

#endif
