/*
 * The agent's entry: a QuickJS context with the built-ins the script uses, the system calls of sys.c,
 * and the script's bytecode. All behaviour is in the script.
 */
#include <string.h>
#include <unistd.h>

#include "bytecode.h"
#include "heap.h"
#include "init.h"
#include "quickjs.h"
#include "sys.h"

/* Bytes of heap that are in use when garbage is looked for, the first time. */
enum { GARBAGE = 1024 * 1024 };

static void complain(const char *text) {
  if (text && write(2, text, strlen(text)) >= 0 && write(2, "\n", 1)) return;
}

int main(int argc, char **argv) {
  /* Not the agent, but the init of a container: argv is the name, "--" and the program's own. */
  if (argc > 2 && strcmp(argv[0], INIT_NAME) == 0) return init_main(argv + 2);
  struct timespec started;
  clock_gettime(CLOCK_MONOTONIC, &started);
  JSRuntime *runtime = JS_NewRuntime2(&heap_functions, NULL);
  JSContext *context = runtime ? JS_NewContextRaw(runtime) : NULL;
  if (!context) return 1;
  JS_AddIntrinsicBaseObjects(context);
  JS_AddIntrinsicDate(context);
  JS_AddIntrinsicJSON(context);
  JS_AddIntrinsicMapSet(context);
  JS_AddIntrinsicTypedArrays(context);
  JS_AddIntrinsicPromise(context);
  /* Not before the script is there: nothing of it is garbage. */
  JS_SetGCThreshold(runtime, GARBAGE);
  /* A handler that recurses without end throws long before the 8 MiB of stack are gone. */
  JS_SetMaxStackSize(runtime, 1024 * 1024);
  sys_install(context, &started);
  JSValue code = JS_ReadObject(context, bytecode, sizeof bytecode,
                               JS_READ_OBJ_BYTECODE);
  JSValue result =
      JS_IsException(code) ? code : JS_EvalFunction(context, code);
  if (JS_IsException(result)) {
    JSValue error = JS_GetException(context);
    complain(JS_ToCString(context, error));
    return 1;
  }
  return 0;
}
