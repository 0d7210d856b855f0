#ifndef HEAP_H
#define HEAP_H

#include "quickjs.h"

/* The script's memory; for JS_NewRuntime2. */
extern const JSMallocFunctions heap_functions;

/*
 * After a fork both processes have the same pages, and the first write to each of them costs a fault. This
 * writes to all pages of small blocks, when there is time for that.
 */
void heap_own(void);

#endif
