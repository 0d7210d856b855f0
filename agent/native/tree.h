#ifndef HULL_TREE_H
#define HULL_TREE_H
#include "quickjs.h"

/* Adds the calls on trees of files (agent/src/sys.ts, Tree) to `sys`. */
void tree_install(JSContext *ctx, JSValue sys);

#endif
