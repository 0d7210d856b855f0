#ifndef HEAP_H
#define HEAP_H

#include "quickjs.h"

/* The script's memory; for JS_NewRuntime2. */
extern const JSMallocFunctions heap_functions;

#endif
