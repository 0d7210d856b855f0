/*
 * Bindings for trees of files that anybody may have written: names are bytes, not text. A name is a
 * string with one character (0 to 255) a byte, so that what is no UTF-8 survives. Everything else is as
 * in sys.c.
 */
#include "tree.h"
#include "binding.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_NAME 4096
#define MAX_LINK 4096
#define HIGH_BITS 0x8080808080808080u
#define EVEN_BYTES 0x00ff00ff00ff00ffu

/* The bytes of a string; the buffer has room for `size`. -1 and an exception when it is none. */
static ssize_t get_bytes(JSContext *ctx, JSValueConst value, uint8_t *out,
                         size_t size) {
  size_t length, end = 0;
  if (!JS_IsString(value)) {
    JS_ThrowTypeError(ctx, "a string is expected");
    return -1;
  }
  const char *text = JS_ToCStringLen(ctx, &length, value);
  if (!text) return -1;
  /* What is ASCII is the same in both. */
  uint64_t word;
  while (end + sizeof word <= length && end + sizeof word <= size) {
    memcpy(&word, text + end, sizeof word);
    if (word & HIGH_BITS) break;
    memcpy(out + end, &word, sizeof word);
    end += sizeof word;
  }
  for (size_t i = end; i < length; i++) {
    uint8_t byte = text[i];
    int beyond = byte >= 0xc4; /* a character above 255 */
    if (byte >= 0xc0 && i + 1 < length)
      byte = (uint8_t)(byte << 6) | ((uint8_t)text[++i] & 0x3f);
    if (beyond || end == size) {
      JS_FreeCString(ctx, text);
      fail_with(ctx, beyond ? EINVAL : ENAMETOOLONG);
      return -1;
    }
    out[end++] = byte;
  }
  JS_FreeCString(ctx, text);
  return end;
}

/* A name for a system call. */
static int get_name(JSContext *ctx, JSValueConst value, char *out) {
  ssize_t length = get_bytes(ctx, value, (uint8_t *)out, MAX_NAME - 1);
  if (length < 0) return 0;
  out[length] = 0;
  if (strlen(out) != (size_t)length) {
    fail_with(ctx, EINVAL);
    return 0;
  }
  return 1;
}

/* A string with one character a byte. */
static JSValue new_bytes(JSContext *ctx, const uint8_t *bytes, size_t length) {
  size_t i = 0;
  while (i < length && bytes[i] && bytes[i] < 0x80) i++;
  if (i == length) return JS_NewStringLen(ctx, (const char *)bytes, length);
  char *text = malloc(2 * length + 1);
  if (!text) return fail_with(ctx, ENOMEM);
  size_t end = 0;
  for (i = 0; i < length; i++)
    if (bytes[i] < 0x80) {
      text[end++] = bytes[i];
    } else {
      text[end++] = 0xc0 | bytes[i] >> 6;
      text[end++] = 0x80 | (bytes[i] & 0x3f);
    }
  JSValue string = JS_NewStringLen(ctx, text, end);
  free(text);
  return string;
}

#define NAME(i, name)  \
  char name[MAX_NAME]; \
  if (!get_name(ctx, argv[i], name)) return JS_EXCEPTION

FUNCTION(tree_bytesToText) {
  RANGE(0, bytes, length);
  return new_bytes(ctx, bytes, length);
}

FUNCTION(tree_textToBytes) {
  size_t size;
  uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, argv[1]);
  if (!bytes) return JS_EXCEPTION;
  INT64(2, at);
  if (at < 0 || (uint64_t)at > size)
    return JS_ThrowRangeError(ctx, "outside of the buffer");
  ssize_t length = get_bytes(ctx, argv[0], bytes + at, size - at);
  return length < 0 ? JS_EXCEPTION : JS_NewInt64(ctx, length);
}

FUNCTION(tree_fill) {
  RANGE(0, bytes, length);
  INT(3, value);
  memset(bytes, value, length);
  return JS_UNDEFINED;
}

FUNCTION(tree_sum) {
  RANGE(0, bytes, length);
  int64_t sum = 0, i = 0;
  /* Eight bytes at a time, in four lanes of 16 bits: 128 steps do not overflow one. */
  while (length - i >= 8) {
    uint64_t lanes = 0, word;
    for (int step = 0; step < 128 && length - i >= 8; step++, i += 8) {
      memcpy(&word, bytes + i, sizeof word);
      lanes += (word & EVEN_BYTES) + (word >> 8 & EVEN_BYTES);
    }
    for (; lanes; lanes >>= 16) sum += lanes & 0xffff;
  }
  for (; i < length; i++) sum += bytes[i];
  return JS_NewInt64(ctx, sum);
}

/* The bytes before the first zero byte. */
FUNCTION(tree_textBefore0) {
  RANGE(0, bytes, length);
  return new_bytes(ctx, bytes, strnlen((const char *)bytes, length));
}

/*
 * Fields of octal digits: argv[2] has pairs of 16-bit words, a field's place behind `at` and its length;
 * argv[3] a double for each.
 */
#define FIELDS(bytes, end, fields, values, count)                         \
  size_t size, fields_size, values_size;                                  \
  INT64(1, at);                                                           \
  uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, argv[0]);                \
  uint16_t *fields = (uint16_t *)JS_GetArrayBuffer(ctx, &fields_size, argv[2]); \
  double *values = (double *)JS_GetArrayBuffer(ctx, &values_size, argv[3]); \
  if (!bytes || !fields || !values) return JS_EXCEPTION;                  \
  size_t count = fields_size / (2 * sizeof *fields);                      \
  if (at < 0 || (uint64_t)at > size || count > values_size / sizeof *values) \
    return JS_ThrowRangeError(ctx, "outside of the buffer");              \
  bytes += at;                                                            \
  size_t end = size - at

/* Digits between spaces, up to a zero byte; anything else gives -1. */
FUNCTION(tree_octals) {
  FIELDS(bytes, end, fields, values, count);
  for (size_t i = 0; i < count; i++) {
    size_t place = fields[2 * i], length = fields[2 * i + 1];
    if (place + length > end)
      return JS_ThrowRangeError(ctx, "outside of the buffer");
    const uint8_t *from = bytes + place, *to = from + length;
    int64_t value = 0;
    while (from < to && *from == ' ') from++;
    for (; from < to && *from >= '0' && *from <= '7' && value < 1ll << 48; from++)
      value = value * 8 + (*from - '0');
    while (from < to && *from == ' ') from++;
    values[i] = from == to || *from == 0 ? value : -1;
  }
  return JS_UNDEFINED;
}

/* Writes numbers with zeros before them; what does not fit is cut off. */
FUNCTION(tree_putOctals) {
  FIELDS(bytes, end, fields, values, count);
  for (size_t i = 0; i < count; i++) {
    size_t place = fields[2 * i], length = fields[2 * i + 1];
    if (place + length > end)
      return JS_ThrowRangeError(ctx, "outside of the buffer");
    uint64_t value = values[i] > 0 ? values[i] : 0;
    for (; length > 0; value >>= 3) bytes[place + --length] = '0' + (value & 7);
  }
  return JS_UNDEFINED;
}

FUNCTION(tree_openAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, flags);
  INT(3, mode);
  return answer(ctx, openat(directory, name, flags | O_CLOEXEC, mode));
}

/* The same for calls that are expected to fail: the negative errno instead of an exception, which is dear. */
FUNCTION(tree_tryOpenAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, flags);
  INT(3, mode);
  int fd = openat(directory, name, flags | O_CLOEXEC, mode);
  return JS_NewInt32(ctx, fd < 0 ? -errno : fd);
}

/* Fills 12 doubles; see StatField in agent/src/sys.ts. */
FUNCTION(tree_statAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, flags);
  size_t size;
  double *out = (double *)JS_GetArrayBuffer(ctx, &size, argv[3]);
  if (!out) return JS_EXCEPTION;
  if (size < 12 * sizeof *out)
    return JS_ThrowRangeError(ctx, "outside of the buffer");
  struct stat status;
  if (fstatat(directory, name, &status, flags) < 0) return fail(ctx);
  out[0] = status.st_mode;
  out[1] = status.st_uid;
  out[2] = status.st_gid;
  out[3] = status.st_size;
  out[4] = major(status.st_rdev);
  out[5] = minor(status.st_rdev);
  out[6] = status.st_dev;
  out[7] = status.st_ino;
  out[8] = status.st_nlink;
  out[9] = status.st_mtim.tv_sec;
  out[10] = status.st_mtim.tv_nsec;
  out[11] = 0;
  return JS_UNDEFINED;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in the open folder without "." and "..", sorted by their bytes. */
FUNCTION(tree_namesIn) {
  INT(0, fd);
  int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (copy < 0) return fail(ctx);
  DIR *directory = fdopendir(copy);
  if (!directory) {
    close(copy);
    return fail(ctx);
  }
  char **found = NULL;
  size_t count = 0, room = 0;
  int error = 0;
  struct dirent *entry;
  errno = 0;
  while (!error && (entry = readdir(directory))) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (count == room) {
      room = room ? 2 * room : 64;
      char **larger = realloc(found, room * sizeof *found);
      if (!larger) {
        error = ENOMEM;
        break;
      }
      found = larger;
    }
    if (!(found[count] = strdup(entry->d_name))) error = ENOMEM;
    else count++;
    errno = 0;
  }
  if (!error) error = errno;
  closedir(directory);
  JSValue names = error ? fail_with(ctx, error) : JS_NewArray(ctx);
  if (!error) qsort(found, count, sizeof *found, by_name);
  for (size_t i = 0; i < count; i++) {
    if (!error)
      JS_SetPropertyUint32(
          ctx, names, i,
          new_bytes(ctx, (uint8_t *)found[i], strlen(found[i])));
    free(found[i]);
  }
  free(found);
  return names;
}

FUNCTION(tree_readlinkAt) {
  INT(0, directory);
  NAME(1, name);
  uint8_t target[MAX_LINK];
  ssize_t length = readlinkat(directory, name, (char *)target, sizeof target);
  if (length < 0) return fail(ctx);
  if (length == sizeof target) return fail_with(ctx, ENAMETOOLONG);
  return new_bytes(ctx, target, length);
}

FUNCTION(tree_mkdirAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, mode);
  return answer(ctx, mkdirat(directory, name, mode));
}

FUNCTION(tree_mknodAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, mode);
  INT(3, major);
  INT(4, minor);
  return answer(ctx, mknodat(directory, name, mode, makedev(major, minor)));
}

FUNCTION(tree_symlinkAt) {
  NAME(0, target);
  INT(1, directory);
  NAME(2, name);
  return answer(ctx, symlinkat(target, directory, name));
}

/* A hard link; a link at `old` is linked itself, not what it points to. */
FUNCTION(tree_linkAt) {
  INT(0, from);
  NAME(1, old);
  INT(2, to);
  NAME(3, name);
  return answer(ctx, linkat(from, old, to, name, 0));
}

FUNCTION(tree_unlinkAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, flags);
  return answer(ctx, unlinkat(directory, name, flags));
}

FUNCTION(tree_chownAt) {
  INT(0, directory);
  NAME(1, name);
  INT64(2, uid);
  INT64(3, gid);
  return answer(ctx, fchownat(directory, name, (uid_t)uid, (gid_t)gid,
                              AT_SYMLINK_NOFOLLOW));
}

/* Not for symbolic links, which it would follow. */
FUNCTION(tree_chmodAt) {
  INT(0, directory);
  NAME(1, name);
  INT(2, mode);
  return answer(ctx, fchmodat(directory, name, mode, 0));
}

/* Owner, mode, and times of access and modification of an open file, in this order. What is so already is left. */
FUNCTION(tree_setStatus) {
  INT(0, fd);
  INT64(1, uid);
  INT64(2, gid);
  INT(3, mode);
  INT64(4, seconds);
  INT64(5, nanoseconds);
  struct timespec time = {.tv_sec = seconds, .tv_nsec = nanoseconds};
  struct timespec times[2] = {time, time};
  struct stat status;
  if (fstat(fd, &status) < 0) return fail(ctx);
  int chown = status.st_uid != (uid_t)uid || status.st_gid != (gid_t)gid;
  if (chown && fchown(fd, (uid_t)uid, (gid_t)gid) < 0) return fail(ctx);
  /* A change of owner may have changed the mode. */
  if ((chown || (status.st_mode & 07777) != (mode_t)mode) &&
      fchmod(fd, mode) < 0)
    return fail(ctx);
  return answer(ctx, futimens(fd, times));
}

/* Sets the times of access and modification. */
FUNCTION(tree_timesAt) {
  INT(0, directory);
  NAME(1, name);
  INT64(2, seconds);
  INT64(3, nanoseconds);
  struct timespec time = {.tv_sec = seconds, .tv_nsec = nanoseconds};
  struct timespec times[2] = {time, time};
  return answer(ctx, utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW));
}

/*
 * Extended attributes as [name, value, …], null when there are none: of an open file, or where `fd` is -1 of
 * `name`, which is not followed.
 */
static JSValue attributes(JSContext *ctx, int fd, const char *name) {
  static char names[65536];
  static uint8_t value[65536];
  ssize_t size = fd >= 0 ? flistxattr(fd, names, sizeof names)
                         : llistxattr(name, names, sizeof names);
  if (size < 0) return errno == EOPNOTSUPP ? JS_NULL : fail(ctx);
  if (size == 0) return JS_NULL;
  JSValue list = JS_NewArray(ctx);
  uint32_t end = 0;
  for (char *at = names; at < names + size; at += strlen(at) + 1) {
    ssize_t length = fd >= 0 ? fgetxattr(fd, at, value, sizeof value)
                             : lgetxattr(name, at, value, sizeof value);
    if (length < 0) continue; /* gone meanwhile, or not for us */
    JS_SetPropertyUint32(ctx, list, end++,
                         new_bytes(ctx, (uint8_t *)at, strlen(at)));
    JS_SetPropertyUint32(ctx, list, end++, new_bytes(ctx, value, length));
  }
  return list;
}

FUNCTION(tree_xattrsOf) {
  INT(0, fd);
  return fd < 0 ? fail_with(ctx, EBADF) : attributes(ctx, fd, NULL);
}

/* These calls know paths only: the process's working folder becomes `directory`. */
FUNCTION(tree_xattrsAt) {
  INT(0, directory);
  NAME(1, name);
  if (directory != AT_FDCWD && fchdir(directory) < 0) return fail(ctx);
  return attributes(ctx, -1, name);
}

FUNCTION(tree_setXattrAt) {
  INT(0, directory);
  NAME(1, name);
  NAME(2, attribute);
  static uint8_t value[65536];
  ssize_t length = get_bytes(ctx, argv[3], value, sizeof value);
  if (length < 0) return JS_EXCEPTION;
  if (directory != AT_FDCWD && fchdir(directory) < 0) return fail(ctx);
  return answer(ctx, lsetxattr(name, attribute, value, length, 0));
}

/* Copies bytes from a file to a pipe in the kernel. @returns how many, 0 at the file's end */
FUNCTION(tree_sendfile) {
  INT(0, target);
  INT(1, source);
  INT64(2, count);
  return answer(ctx, sendfile(target, source, NULL, count));
}

/* Moves bytes from a pipe to a file in the kernel. @returns how many, 0 at the pipe's end */
FUNCTION(tree_splice) {
  INT(0, source);
  INT(1, target);
  INT64(2, count);
  return answer(ctx, splice(source, NULL, target, NULL, count, 0));
}

#define ENTRY(name, count) JS_CFUNC_DEF(#name, count, tree_##name)
static const JSCFunctionListEntry functions[] = {
    ENTRY(bytesToText, 3), ENTRY(textToBytes, 3), ENTRY(fill, 4),
    ENTRY(sum, 3),         ENTRY(openAt, 4),      ENTRY(statAt, 4),
    ENTRY(namesIn, 1),     ENTRY(readlinkAt, 2),  ENTRY(mkdirAt, 3),
    ENTRY(mknodAt, 5),     ENTRY(symlinkAt, 3),   ENTRY(linkAt, 4),
    ENTRY(unlinkAt, 3),    ENTRY(chownAt, 4),     ENTRY(chmodAt, 3),
    ENTRY(timesAt, 4),     ENTRY(xattrsAt, 2),    ENTRY(setXattrAt, 4),
    ENTRY(sendfile, 3),    ENTRY(splice, 3),      ENTRY(tryOpenAt, 4),
    ENTRY(setStatus, 6),   ENTRY(xattrsOf, 1),    ENTRY(textBefore0, 3),
    ENTRY(octals, 4),      ENTRY(putOctals, 4),
};

void tree_install(JSContext *ctx, JSValue sys) {
  JS_SetPropertyFunctionList(ctx, sys, functions,
                             sizeof functions / sizeof *functions);
}
