/*
 * Compiles one module to QuickJS bytecode, without debug information, and prints it as a C array.
 *
 *   compile SCRIPT > bytecode.h
 *
 * Bytecode belongs to the exact engine it was made by, so this is built from the same sources as the
 * agent's runtime.
 */
#include <stdio.h>
#include <stdlib.h>

#include "quickjs.h"

static char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) return NULL;
  long size = ftell(file);
  rewind(file);
  char *text = malloc(size + 1);
  if (!text || fread(text, 1, size, file) != (size_t)size) return NULL;
  text[size] = 0;
  *length = size;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  size_t length, size;
  char *text = argc == 2 ? read_file(argv[1], &length) : NULL;
  if (!text) {
    fprintf(stderr, "usage: compile SCRIPT\n");
    return 2;
  }
  JSRuntime *runtime = JS_NewRuntime();
  JSContext *context = JS_NewContext(runtime);
  JSValue code = JS_Eval(context, text, length, "agent.js",
                         JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY |
                             JS_EVAL_FLAG_STRIP);
  if (JS_IsException(code)) {
    JSValue error = JS_GetException(context);
    fprintf(stderr, "%s\n", JS_ToCString(context, error));
    return 1;
  }
  uint8_t *bytes =
      JS_WriteObject(context, &size, code, JS_WRITE_OBJ_BYTECODE);
  if (!bytes) return 1;
  printf("static const unsigned char bytecode[%zu] = {", size);
  for (size_t i = 0; i < size; i++) printf(i % 24 ? "%d," : "\n%d,", bytes[i]);
  printf("\n};\n");
  return 0;
}
