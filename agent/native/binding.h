#ifndef HULL_BINDING_H
#define HULL_BINDING_H
/* What bindings of system calls share: arguments out of the script, results and errors into it. */
#include "quickjs.h"

#include <stddef.h>
#include <sys/types.h>

#define FUNCTION(name)                                                  \
  static JSValue name(JSContext *ctx, JSValueConst self, int argc,      \
                      JSValueConst *argv)

/* Throws what errno `number` says. */
JSValue fail_with(JSContext *ctx, int number);
/* Throws what errno says. */
JSValue fail(JSContext *ctx);
/* The usual end of a binding: a number, or the errno. */
JSValue answer(JSContext *ctx, long result);
/* The same for calls on descriptors that may block: -1 says "not now". */
JSValue answer_io(JSContext *ctx, ssize_t result);

/* Argument as a number; false (and an exception) when it is none. */
int get_int(JSContext *ctx, JSValueConst value, int *out);
int get_int64(JSContext *ctx, JSValueConst value, int64_t *out);
/* Strings for system calls: a NUL inside would silently cut them. To be freed with JS_FreeCString. */
const char *get_string(JSContext *ctx, JSValueConst value);
/* A range (offset, length) of an ArrayBuffer: argv[0..2]. */
uint8_t *get_range(JSContext *ctx, JSValueConst *argv, int64_t *length);

#define INT(i, name) \
  int name;          \
  if (!get_int(ctx, argv[i], &name)) return JS_EXCEPTION
#define INT64(i, name) \
  int64_t name;        \
  if (!get_int64(ctx, argv[i], &name)) return JS_EXCEPTION
#define STRING(i, name)                          \
  const char *name = get_string(ctx, argv[i]);   \
  if (!name) return JS_EXCEPTION
/* null becomes NULL; free with free_optional. */
#define OPTIONAL(i, name)                                              \
  const char *name = JS_IsNull(argv[i]) ? NULL : get_string(ctx, argv[i]); \
  if (!name && !JS_IsNull(argv[i])) return JS_EXCEPTION
#define RANGE(i, name, length)                               \
  int64_t length;                                            \
  uint8_t *name = get_range(ctx, argv + (i), &length);       \
  if (!name) return JS_EXCEPTION

#endif
