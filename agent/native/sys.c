/*
 * Thin bindings of Linux system calls for the agent's script; agent/src/sys.ts declares and describes
 * them. No policy here: arguments are checked to be of the right type and inside of their buffers, a
 * failed call throws an Error whose `errno` is the errno's name and whose message is its text as Go
 * (and so Docker) words it. read, write, send and receive answer -1 instead where they would block.
 */
#include "binding.h"
#include "heap.h"
#include "lend.h"
#include "sys.h"
#include "tree.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
  int number;
  const char *name;
  const char *text;
} errors[] = {
    {EPERM, "EPERM", "operation not permitted"},
    {ENOENT, "ENOENT", "no such file or directory"},
    {ESRCH, "ESRCH", "no such process"},
    {EINTR, "EINTR", "interrupted system call"},
    {EIO, "EIO", "input/output error"},
    {ENXIO, "ENXIO", "no such device or address"},
    {E2BIG, "E2BIG", "argument list too long"},
    {ENOEXEC, "ENOEXEC", "exec format error"},
    {EBADF, "EBADF", "bad file descriptor"},
    {ECHILD, "ECHILD", "no child processes"},
    {EAGAIN, "EAGAIN", "resource temporarily unavailable"},
    {ENOMEM, "ENOMEM", "cannot allocate memory"},
    {EACCES, "EACCES", "permission denied"},
    {EFAULT, "EFAULT", "bad address"},
    {ENOTBLK, "ENOTBLK", "block device required"},
    {EBUSY, "EBUSY", "device or resource busy"},
    {EEXIST, "EEXIST", "file exists"},
    {EXDEV, "EXDEV", "invalid cross-device link"},
    {ENODEV, "ENODEV", "no such device"},
    {ENOTDIR, "ENOTDIR", "not a directory"},
    {EISDIR, "EISDIR", "is a directory"},
    {EINVAL, "EINVAL", "invalid argument"},
    {ENFILE, "ENFILE", "too many open files in system"},
    {EMFILE, "EMFILE", "too many open files"},
    {ENOTTY, "ENOTTY", "inappropriate ioctl for device"},
    {ETXTBSY, "ETXTBSY", "text file busy"},
    {EFBIG, "EFBIG", "file too large"},
    {ENOSPC, "ENOSPC", "no space left on device"},
    {ESPIPE, "ESPIPE", "illegal seek"},
    {EROFS, "EROFS", "read-only file system"},
    {EMLINK, "EMLINK", "too many links"},
    {EPIPE, "EPIPE", "broken pipe"},
    {ERANGE, "ERANGE", "numerical result out of range"},
    {EDEADLK, "EDEADLK", "resource deadlock avoided"},
    {ENAMETOOLONG, "ENAMETOOLONG", "file name too long"},
    {ENOSYS, "ENOSYS", "function not implemented"},
    {ENOTEMPTY, "ENOTEMPTY", "directory not empty"},
    {ELOOP, "ELOOP", "too many levels of symbolic links"},
    {EUCLEAN, "EUCLEAN", "structure needs cleaning"},
    {EOVERFLOW, "EOVERFLOW", "value too large for defined data type"},
    {ENODATA, "ENODATA", "no data available"},
    {EREMOTEIO, "EREMOTEIO", "remote I/O error"},
    {EPROTO, "EPROTO", "protocol error"},
    {EOPNOTSUPP, "EOPNOTSUPP", "operation not supported"},
    {EAFNOSUPPORT, "EAFNOSUPPORT", "address family not supported by protocol"},
    {EADDRINUSE, "EADDRINUSE", "address already in use"},
    {EADDRNOTAVAIL, "EADDRNOTAVAIL", "cannot assign requested address"},
    {ENETDOWN, "ENETDOWN", "network is down"},
    {ENETUNREACH, "ENETUNREACH", "network is unreachable"},
    {ENOBUFS, "ENOBUFS", "no buffer space available"},
    {EHOSTUNREACH, "EHOSTUNREACH", "no route to host"},
    {ELIBBAD, "ELIBBAD", "accessing a corrupted shared library"},
    {EDQUOT, "EDQUOT", "disk quota exceeded"},
};

/* Throws what errno `number` says. */
JSValue fail_with(JSContext *ctx, int number) {
  const char *name = "EUNKNOWN", *text = strerror(number);
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (errors[i].number == number) {
      name = errors[i].name;
      text = errors[i].text;
    }
  JSValue error = JS_NewError(ctx);
  JS_DefinePropertyValueStr(ctx, error, "message", JS_NewString(ctx, text),
                            JS_PROP_C_W_E);
  JS_DefinePropertyValueStr(ctx, error, "errno", JS_NewString(ctx, name),
                            JS_PROP_C_W_E);
  return JS_Throw(ctx, error);
}

JSValue fail(JSContext *ctx) { return fail_with(ctx, errno); }

/* The usual end of a binding: a number, or the errno. */
JSValue answer(JSContext *ctx, long result) {
  return result < 0 ? fail(ctx) : JS_NewInt64(ctx, result);
}

/* The same for calls on descriptors that may block: -1 says "not now". */
JSValue answer_io(JSContext *ctx, ssize_t result) {
  if (result < 0 && (errno == EAGAIN || errno == EINTR))
    return JS_NewInt32(ctx, -1);
  return answer(ctx, result);
}

/* Argument i as a number; false (and an exception) when it is none. */
int get_int(JSContext *ctx, JSValueConst value, int *out) {
  if (!JS_IsNumber(value)) {
    JS_ThrowTypeError(ctx, "a number is expected");
    return 0;
  }
  return JS_ToInt32(ctx, out, value) == 0;
}

int get_int64(JSContext *ctx, JSValueConst value, int64_t *out) {
  if (!JS_IsNumber(value)) {
    JS_ThrowTypeError(ctx, "a number is expected");
    return 0;
  }
  return JS_ToInt64(ctx, out, value) == 0;
}

/* Strings for system calls: a NUL inside would silently cut them. To be freed with JS_FreeCString. */
const char *get_string(JSContext *ctx, JSValueConst value) {
  size_t length;
  if (!JS_IsString(value)) {
    JS_ThrowTypeError(ctx, "a string is expected");
    return NULL;
  }
  const char *text = JS_ToCStringLen(ctx, &length, value);
  if (text && strlen(text) != length) {
    JS_FreeCString(ctx, text);
    fail_with(ctx, EINVAL);
    return NULL;
  }
  return text;
}

/* A range (offset, length) of an ArrayBuffer: argv[0..2]. */
uint8_t *get_range(JSContext *ctx, JSValueConst *argv, int64_t *length) {
  size_t size;
  int64_t at;
  uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, argv[0]);
  if (!bytes || !get_int64(ctx, argv[1], &at) ||
      !get_int64(ctx, argv[2], length))
    return NULL;
  if (at < 0 || *length < 0 || (uint64_t)at > size ||
      (uint64_t)*length > size - at) {
    JS_ThrowRangeError(ctx, "outside of the buffer");
    return NULL;
  }
  return bytes + at;
}

static void free_optional(JSContext *ctx, const char *text) {
  if (text) JS_FreeCString(ctx, text);
}

/* ---- memory and text ---- */

static void free_mapping(JSRuntime *runtime, void *opaque, void *bytes) {
  munmap(bytes, (size_t)opaque);
}

FUNCTION(sys_allocate) {
  INT64(0, size);
  if (size <= 0 || size > 1 << 30) return fail_with(ctx, EINVAL);
  void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (bytes == MAP_FAILED) return fail(ctx);
  return JS_NewArrayBuffer(ctx, bytes, size, free_mapping,
                           (void *)(size_t)size, 0);
}

FUNCTION(sys_copy) {
  RANGE(0, source, length);
  size_t size;
  uint8_t *target = JS_GetArrayBuffer(ctx, &size, argv[3]);
  if (!target) return JS_EXCEPTION;
  INT64(4, at);
  if (at < 0 || (uint64_t)at > size || (uint64_t)length > size - at)
    return JS_ThrowRangeError(ctx, "outside of the buffer");
  memmove(target + at, source, length);
  return JS_UNDEFINED;
}

FUNCTION(sys_encode) {
  size_t length;
  if (!JS_IsString(argv[0]))
    return JS_ThrowTypeError(ctx, "a string is expected");
  const char *text = JS_ToCStringLen(ctx, &length, argv[0]);
  if (!text) return JS_EXCEPTION;
  JSValue buffer = JS_NewArrayBufferCopy(ctx, (const uint8_t *)text, length);
  JS_FreeCString(ctx, text);
  return buffer;
}

FUNCTION(sys_decode) {
  RANGE(0, bytes, length);
  return JS_NewStringLen(ctx, (const char *)bytes, length);
}

FUNCTION(sys_runJobs) {
  JSContext *context;
  int result;
  while ((result = JS_ExecutePendingJob(JS_GetRuntime(ctx), &context)) > 0)
    ;
  if (result == 0) return JS_UNDEFINED;
  JSValue error = JS_GetException(context);
  return JS_Throw(ctx, error);
}

FUNCTION(sys_collect) {
  JS_RunGC(JS_GetRuntime(ctx));
  return JS_UNDEFINED;
}

FUNCTION(sys_ownMemory) {
  heap_own();
  return JS_UNDEFINED;
}

/* ---- files ---- */

FUNCTION(sys_open) {
  INT(0, directory);
  INT(2, flags);
  INT(3, mode);
  STRING(1, path);
  int fd = openat(directory, path, flags | O_CLOEXEC, mode);
  int error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, fd);
}

FUNCTION(sys_close) {
  INT(0, fd);
  return answer(ctx, close(fd));
}

FUNCTION(sys_read) {
  INT(0, fd);
  RANGE(1, bytes, length);
  return answer_io(ctx, read(fd, bytes, length));
}

/* For sources that give little at a time: reads until the range is full or nothing more is there now. */
FUNCTION(sys_readMany) {
  INT(0, fd);
  RANGE(1, bytes, length);
  int64_t end = 0;
  while (end < length) {
    ssize_t count = read(fd, bytes + end, length - end);
    if (count <= 0 && end == 0) return answer_io(ctx, count);
    if (count <= 0) break;
    end += count;
  }
  return JS_NewInt64(ctx, end);
}

FUNCTION(sys_write) {
  INT(0, fd);
  RANGE(1, bytes, length);
  return answer_io(ctx, write(fd, bytes, length));
}

FUNCTION(sys_stat) {
  INT(0, directory);
  INT(2, flags);
  STRING(1, path);
  struct stat status;
  int result = fstatat(directory, path, &status, flags), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  if (result < 0) return fail(ctx);
  JSValue object = JS_NewObject(ctx);
#define FIELD(name, value)                                                  \
  JS_DefinePropertyValueStr(ctx, object, name, JS_NewInt64(ctx, value), \
                            JS_PROP_C_W_E)
  FIELD("mode", status.st_mode);
  FIELD("uid", status.st_uid);
  FIELD("gid", status.st_gid);
  FIELD("size", status.st_size);
  FIELD("major", major(status.st_rdev));
  FIELD("minor", minor(status.st_rdev));
#undef FIELD
  return object;
}

/* Bytes in use on the file system a path is on. */
FUNCTION(sys_bytesUsed) {
  STRING(0, path);
  struct statfs status;
  int result = statfs(path, &status), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  if (result < 0) return fail(ctx);
  return JS_NewInt64(ctx, (int64_t)(status.f_blocks - status.f_bfree) *
                              status.f_bsize);
}

FUNCTION(sys_access) {
  STRING(0, path);
  INT(1, mode);
  int result = faccessat(AT_FDCWD, path, mode, AT_EACCESS), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_list) {
  STRING(0, path);
  DIR *directory = opendir(path);
  int error = errno;
  JS_FreeCString(ctx, path);
  if (!directory) return fail_with(ctx, error);
  JSValue names = JS_NewArray(ctx);
  struct dirent *entry;
  for (uint32_t i = 0; (entry = readdir(directory));)
    if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
      JS_SetPropertyUint32(ctx, names, i++, JS_NewString(ctx, entry->d_name));
  closedir(directory);
  return names;
}

FUNCTION(sys_readlink) {
  INT(0, directory);
  STRING(1, path);
  char target[4096];
  ssize_t length = readlinkat(directory, path, target, sizeof target);
  int error = errno;
  JS_FreeCString(ctx, path);
  if (length < 0) return fail_with(ctx, error);
  if (length == sizeof target) return fail_with(ctx, ENAMETOOLONG);
  return JS_NewStringLen(ctx, target, length);
}

FUNCTION(sys_mkdir) {
  INT(0, directory);
  INT(2, mode);
  STRING(1, path);
  int result = mkdirat(directory, path, mode), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_mknod) {
  INT(0, directory);
  INT(2, mode);
  INT(3, major);
  INT(4, minor);
  STRING(1, path);
  int result = mknodat(directory, path, mode, makedev(major, minor)),
      error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_symlink) {
  INT(1, directory);
  STRING(0, target);
  const char *path = get_string(ctx, argv[2]);
  if (!path) {
    JS_FreeCString(ctx, target);
    return JS_EXCEPTION;
  }
  int result = symlinkat(target, directory, path), error = errno;
  JS_FreeCString(ctx, target);
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_fchmod) {
  INT(0, fd);
  INT(1, mode);
  return answer(ctx, fchmod(fd, mode));
}

FUNCTION(sys_fchown) {
  INT(0, fd);
  INT64(1, uid);
  INT64(2, gid);
  return answer(ctx, fchown(fd, (uid_t)uid, (gid_t)gid));
}

FUNCTION(sys_pipe) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return fail(ctx);
  JSValue pair = JS_NewArray(ctx);
  JS_SetPropertyUint32(ctx, pair, 0, JS_NewInt32(ctx, fds[0]));
  JS_SetPropertyUint32(ctx, pair, 1, JS_NewInt32(ctx, fds[1]));
  return pair;
}

/* The new descriptor is kept over exec. */
FUNCTION(sys_dup) {
  INT(0, fd);
  INT(1, target);
  if (fd == target) return answer(ctx, fcntl(fd, F_SETFD, 0));
  return answer(ctx, dup2(fd, target));
}

FUNCTION(sys_duplicate) {
  INT(0, fd);
  return answer(ctx, fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

FUNCTION(sys_duplicateAbove) {
  INT(0, fd);
  INT(1, least);
  return answer(ctx, fcntl(fd, F_DUPFD_CLOEXEC, least));
}

FUNCTION(sys_closeRange) {
  INT(0, first);
  INT(1, last);
  return answer(ctx, syscall(SYS_close_range, first, last, 0));
}

FUNCTION(sys_nonblock) {
  INT(0, fd);
  int flags = fcntl(fd, F_GETFL);
  return answer(ctx, flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

FUNCTION(sys_setPipeSize) {
  INT(0, fd);
  INT(1, size);
  return answer(ctx, fcntl(fd, F_SETPIPE_SZ, size));
}

FUNCTION(sys_sync) {
  sync();
  return JS_UNDEFINED;
}

/* ---- mounts ---- */

FUNCTION(sys_mount) {
  INT64(3, flags);
  OPTIONAL(0, source);
  STRING(1, target);
  OPTIONAL(2, type);
  OPTIONAL(4, data);
  int result = mount(source, target, type, (unsigned long)flags, data),
      error = errno;
  free_optional(ctx, source);
  JS_FreeCString(ctx, target);
  free_optional(ctx, type);
  free_optional(ctx, data);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_unmount) {
  STRING(0, target);
  INT(1, flags);
  int result = umount2(target, flags), error = errno;
  JS_FreeCString(ctx, target);
  errno = error;
  return answer(ctx, result);
}

/* pivot_root(".", "."): the old root ends up on top of the new one, to be unmounted. */
FUNCTION(sys_pivotRoot) { return answer(ctx, syscall(SYS_pivot_root, ".", ".")); }

FUNCTION(sys_chroot) {
  STRING(0, path);
  int result = chroot(path), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_chdir) {
  STRING(0, path);
  int result = chdir(path), error = errno;
  JS_FreeCString(ctx, path);
  errno = error;
  return answer(ctx, result);
}

/* ---- processes ---- */

FUNCTION(sys_clone) {
  INT64(0, flags);
  INT(1, cgroup);
  struct clone_args arguments = {
      .flags = (uint64_t)flags,
      .exit_signal = SIGCHLD,
  };
  if (cgroup >= 0) {
    arguments.flags |= CLONE_INTO_CGROUP;
    arguments.cgroup = cgroup;
  }
  return answer(ctx, syscall(SYS_clone3, &arguments, sizeof arguments));
}

FUNCTION(sys_cloneOnto) {
  INT64(0, flags);
  INT(1, cgroup);
  return answer(ctx, clone_onto((uint64_t)flags, cgroup));
}

FUNCTION(sys_pidfd) {
  INT(0, pid);
  return answer(ctx, syscall(SYS_pidfd_open, pid, 0));
}

FUNCTION(sys_setns) {
  INT(0, fd);
  INT64(1, flags);
  return answer(ctx, setns(fd, (int)flags));
}

FUNCTION(sys_unshare) {
  INT64(0, flags);
  return answer(ctx, unshare((int)flags));
}

FUNCTION(sys_wait) {
  int status;
  pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
  if (pid == 0 || (pid < 0 && errno == ECHILD)) return JS_NULL;
  if (pid < 0) return fail(ctx);
  JSValue object = JS_NewObject(ctx);
  int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  JS_DefinePropertyValueStr(ctx, object, "pid", JS_NewInt32(ctx, pid),
                            JS_PROP_C_W_E);
  JS_DefinePropertyValueStr(ctx, object, "signal", JS_NewInt32(ctx, signal),
                            JS_PROP_C_W_E);
  JS_DefinePropertyValueStr(
      ctx, object, "code",
      JS_NewInt32(ctx, signal ? 128 + signal : WEXITSTATUS(status)),
      JS_PROP_C_W_E);
  return object;
}

/* Waits until that child has ended, and forgets it. */
FUNCTION(sys_reap) {
  INT(0, pid);
  pid_t ended;
  do ended = waitpid(pid, NULL, __WALL);
  while (ended < 0 && errno == EINTR);
  return answer(ctx, ended);
}

FUNCTION(sys_kill) {
  INT(0, pid);
  INT(1, signal);
  return answer(ctx, kill(pid, signal));
}

static void free_strings(JSContext *ctx, const char **strings) {
  for (size_t i = 0; strings && strings[i]; i++)
    JS_FreeCString(ctx, strings[i]);
  js_free(ctx, strings);
}

/* A JS array of strings as a NULL-ended vector. */
static const char **get_strings(JSContext *ctx, JSValueConst array) {
  JSValue value = JS_GetPropertyStr(ctx, array, "length");
  int count;
  if (JS_IsException(value) || !get_int(ctx, value, &count)) return NULL;
  if (count < 0 || count > 1 << 24) {
    fail_with(ctx, E2BIG);
    return NULL;
  }
  const char **strings = js_mallocz(ctx, (count + 1) * sizeof *strings);
  if (!strings) return NULL;
  for (int i = 0; i < count; i++) {
    JSValue item = JS_GetPropertyUint32(ctx, array, i);
    strings[i] = get_string(ctx, item);
    JS_FreeValue(ctx, item);
    if (!strings[i]) {
      free_strings(ctx, strings);
      return NULL;
    }
  }
  return strings;
}

FUNCTION(sys_execve) {
  STRING(0, path);
  const char **arguments = get_strings(ctx, argv[1]);
  if (!arguments) return JS_EXCEPTION;
  const char **environment = get_strings(ctx, argv[2]);
  if (!environment) return JS_EXCEPTION;
  execve(path, (char **)arguments, (char **)environment);
  int error = errno;
  free_strings(ctx, arguments);
  free_strings(ctx, environment);
  JS_FreeCString(ctx, path);
  return fail_with(ctx, error);
}

FUNCTION(sys_exit) {
  INT(0, code);
  _exit(code);
}

FUNCTION(sys_setsid) { return answer(ctx, setsid()); }

FUNCTION(sys_setgroups) {
  JSValue value = JS_GetPropertyStr(ctx, argv[0], "length");
  int count;
  if (JS_IsException(value) || !get_int(ctx, value, &count))
    return JS_EXCEPTION;
  if (count < 0 || count > 65536) return fail_with(ctx, EINVAL);
  gid_t *groups = js_mallocz(ctx, (count + 1) * sizeof *groups);
  if (!groups) return JS_EXCEPTION;
  for (int i = 0; i < count; i++) {
    JSValue item = JS_GetPropertyUint32(ctx, argv[0], i);
    int64_t group;
    if (!get_int64(ctx, item, &group)) {
      js_free(ctx, groups);
      return JS_EXCEPTION;
    }
    groups[i] = (gid_t)group;
  }
  int result = setgroups(count, groups), error = errno;
  js_free(ctx, groups);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_setgid) {
  INT64(0, gid);
  return answer(ctx, setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid));
}

FUNCTION(sys_setuid) {
  INT64(0, uid);
  return answer(ctx, setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid));
}

/* Effective and permitted set, as two 32-bit words; nothing is inheritable. */
FUNCTION(sys_setCapabilities) {
  INT64(0, low);
  INT64(1, high);
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(uint32_t)low, (uint32_t)low, 0},
      {(uint32_t)high, (uint32_t)high, 0},
  };
  return answer(ctx, syscall(SYS_capset, &header, data));
}

FUNCTION(sys_prctl) {
  INT(0, option);
  INT64(1, second);
  INT64(2, third);
  return answer(ctx, prctl(option, (unsigned long)second, (unsigned long)third,
                           0ul, 0ul));
}

/* Negative limits mean none. */
FUNCTION(sys_setrlimit) {
  INT(0, resource);
  INT64(1, soft);
  INT64(2, hard);
  struct rlimit limit = {
      soft < 0 ? RLIM_INFINITY : (rlim_t)soft,
      hard < 0 ? RLIM_INFINITY : (rlim_t)hard,
  };
  return answer(ctx, setrlimit(resource, &limit));
}

FUNCTION(sys_umask) {
  INT(0, mask);
  return JS_NewInt32(ctx, umask(mask));
}

/* Every signal to its default action and none blocked, as a program expects to begin. */
FUNCTION(sys_resetSignals) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  for (int i = 1; i < NSIG; i++) sigaction(i, &action, NULL);
  sigset_t none;
  sigemptyset(&none);
  return answer(ctx, sigprocmask(SIG_SETMASK, &none, NULL));
}

/* ---- terminals ---- */

FUNCTION(sys_openTerminal) {
  INT(0, master);
  int unlocked = 0;
  if (ioctl(master, TIOCSPTLCK, &unlocked) < 0) return fail(ctx);
  return answer(ctx, ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}

FUNCTION(sys_terminalNumber) {
  INT(0, master);
  int number;
  if (ioctl(master, TIOCGPTN, &number) < 0) return fail(ctx);
  return JS_NewInt32(ctx, number);
}

FUNCTION(sys_controlTerminal) {
  INT(0, fd);
  return answer(ctx, ioctl(fd, TIOCSCTTY, 0));
}

FUNCTION(sys_resizeTerminal) {
  INT(0, fd);
  INT(1, rows);
  INT(2, columns);
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  return answer(ctx, ioctl(fd, TIOCSWINSZ, &size));
}

/* ---- the machine ---- */

FUNCTION(sys_clock) {
  INT(0, id);
  struct timespec now;
  if (clock_gettime(id, &now) < 0) return fail(ctx);
  return JS_NewFloat64(ctx, now.tv_sec * 1e3 + now.tv_nsec / 1e6);
}

FUNCTION(sys_setClock) {
  double milliseconds;
  if (!JS_IsNumber(argv[0]) || JS_ToFloat64(ctx, &milliseconds, argv[0]))
    return JS_ThrowTypeError(ctx, "a number is expected");
  if (!(milliseconds >= 0 && milliseconds < 1e15))
    return fail_with(ctx, EINVAL);
  int64_t whole = (int64_t)milliseconds;
  struct timespec time = {
      .tv_sec = whole / 1000,
      .tv_nsec = whole % 1000 * 1000000 +
                 (long)((milliseconds - whole) * 1000000),
  };
  return answer(ctx, clock_settime(CLOCK_REALTIME, &time));
}

FUNCTION(sys_sleep) {
  INT(0, milliseconds);
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, NULL);
  return JS_UNDEFINED;
}

/* Mixes bytes into the kernel's random pool, credited in full, and makes it reseed now. */
FUNCTION(sys_addEntropy) {
  INT(0, fd);
  RANGE(1, bytes, length);
  if (length < 1 || length > 4096) return fail_with(ctx, EINVAL);
  struct rand_pool_info *info = malloc(sizeof *info + length);
  if (!info) return fail_with(ctx, ENOMEM);
  info->entropy_count = length * 8;
  info->buf_size = length;
  memcpy(info->buf, bytes, length);
  int result = ioctl(fd, RNDADDENTROPY, info), error = errno;
  memset(info, 0, sizeof *info + length);
  free(info);
  errno = error;
  return answer(ctx, result < 0 ? result : ioctl(fd, RNDRESEEDCRNG));
}

FUNCTION(sys_setHostname) {
  STRING(0, name);
  int result = sethostname(name, strlen(name)), error = errno;
  JS_FreeCString(ctx, name);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_setDomainname) {
  STRING(0, name);
  int result = setdomainname(name, strlen(name)), error = errno;
  JS_FreeCString(ctx, name);
  errno = error;
  return answer(ctx, result);
}

FUNCTION(sys_release) {
  struct utsname name;
  if (uname(&name) < 0) return fail(ctx);
  return JS_NewString(ctx, name.release);
}

FUNCTION(sys_reboot) {
  INT64(0, command);
  return answer(ctx, reboot((int)command));
}

/* ---- sockets ---- */

FUNCTION(sys_socket) {
  INT(0, domain);
  INT(1, type);
  INT(2, protocol);
  return answer(ctx, socket(domain, type | SOCK_CLOEXEC, protocol));
}

FUNCTION(sys_send) {
  INT(0, fd);
  RANGE(1, bytes, length);
  return answer_io(ctx, send(fd, bytes, length, MSG_NOSIGNAL));
}

FUNCTION(sys_receive) {
  INT(0, fd);
  RANGE(1, bytes, length);
  return answer_io(ctx, recv(fd, bytes, length, 0));
}

/* Says whether the text was an address; its bytes are in the buffer then. */
FUNCTION(sys_inetPton) {
  INT(0, family);
  size_t size;
  uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, argv[2]);
  if (!bytes) return JS_EXCEPTION;
  if (size < sizeof(struct in6_addr))
    return JS_ThrowRangeError(ctx, "no room for an address");
  const char *text = get_string(ctx, argv[1]);
  if (!text) return JS_EXCEPTION;
  int result = inet_pton(family, text, bytes);
  JS_FreeCString(ctx, text);
  return result < 0 ? fail(ctx) : JS_NewBool(ctx, result);
}

/* Loads a BPF program that decides about devices, and attaches it to a cgroup. */
FUNCTION(sys_filterDevices) {
  INT(0, cgroup);
  size_t size;
  uint8_t *program = JS_GetArrayBuffer(ctx, &size, argv[1]);
  if (!program) return JS_EXCEPTION;
  union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                         .insn_cnt = size / sizeof(struct bpf_insn),
                         .insns = (uintptr_t)program,
                         .license = (uintptr_t)"Apache-2.0"};
  int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (loaded < 0) return fail(ctx);
  union bpf_attr attach = {.target_fd = cgroup,
                           .attach_bpf_fd = loaded,
                           .attach_type = BPF_CGROUP_DEVICE};
  int result = syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
  int error = errno;
  close(loaded);
  errno = error;
  return answer(ctx, result);
}

/* Lets a BPF program of the classic kind decide about the process's system calls. */
FUNCTION(sys_filterCalls) {
  size_t size;
  uint8_t *program = JS_GetArrayBuffer(ctx, &size, argv[0]);
  if (!program) return JS_EXCEPTION;
  struct sock_fprog filter = {.len = size / sizeof(struct sock_filter),
                              .filter = (struct sock_filter *)program};
  return answer(ctx, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

/* ---- events ---- */

FUNCTION(sys_epollCreate) { return answer(ctx, epoll_create1(EPOLL_CLOEXEC)); }

FUNCTION(sys_epollControl) {
  INT(0, epoll);
  INT(1, operation);
  INT(2, fd);
  INT64(3, events);
  struct epoll_event event = {.events = (uint32_t)events, .data.fd = fd};
  return answer(ctx, epoll_ctl(epoll, operation, fd, &event));
}

#define MAX_EVENTS 64
/* Writes (fd, events) as pairs of 32-bit words into the buffer. */
FUNCTION(sys_epollWait) {
  INT(0, epoll);
  INT(2, timeout);
  size_t size;
  uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, argv[1]);
  if (!bytes) return JS_EXCEPTION;
  struct epoll_event events[MAX_EVENTS];
  int room = size / 8 < MAX_EVENTS ? size / 8 : MAX_EVENTS;
  int count = epoll_wait(epoll, events, room, timeout);
  if (count < 0 && errno == EINTR) count = 0;
  for (int i = 0; i < count; i++) {
    memcpy(bytes + 8 * i, &events[i].data.fd, 4);
    memcpy(bytes + 8 * i + 4, &events[i].events, 4);
  }
  return answer(ctx, count);
}

/* Blocks the signals and gives a descriptor that is readable when one is pending. */
FUNCTION(sys_signalfd) {
  sigset_t set;
  sigemptyset(&set);
  for (int i = 0; i < argc; i++) {
    INT(i, signal);
    sigaddset(&set, signal);
  }
  if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return fail(ctx);
  signal(SIGPIPE, SIG_IGN);
  return answer(ctx, signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
}

#define ENTRY(name, count) JS_CFUNC_DEF(#name, count, sys_##name)
static const JSCFunctionListEntry functions[] = {
    ENTRY(allocate, 1),        ENTRY(copy, 5),
    ENTRY(encode, 1),          ENTRY(decode, 3),
    ENTRY(runJobs, 0),         ENTRY(collect, 0),
    ENTRY(ownMemory, 0),
    ENTRY(open, 4),            ENTRY(close, 1),
    ENTRY(read, 4),            ENTRY(write, 4),
    ENTRY(readMany, 4),
    ENTRY(stat, 3),            ENTRY(access, 2),
    ENTRY(bytesUsed, 1),
    ENTRY(list, 1),            ENTRY(readlink, 2),
    ENTRY(mkdir, 3),           ENTRY(mknod, 5),
    ENTRY(symlink, 3),         ENTRY(fchmod, 2),
    ENTRY(fchown, 3),          ENTRY(pipe, 0),
    ENTRY(dup, 2),             ENTRY(nonblock, 1),
    ENTRY(duplicate, 1),       ENTRY(setPipeSize, 2),
    ENTRY(duplicateAbove, 2),  ENTRY(closeRange, 2),
    ENTRY(sync, 0),            ENTRY(mount, 5),
    ENTRY(unmount, 2),         ENTRY(pivotRoot, 0),
    ENTRY(chroot, 1),          ENTRY(chdir, 1),
    ENTRY(clone, 2),           ENTRY(cloneOnto, 2),
    ENTRY(pidfd, 1),           ENTRY(setns, 2),
    ENTRY(unshare, 1),         ENTRY(wait, 0),
    ENTRY(reap, 1),            ENTRY(kill, 2),
    ENTRY(execve, 3),          ENTRY(exit, 1),
    ENTRY(setsid, 0),          ENTRY(setgroups, 1),
    ENTRY(setgid, 1),          ENTRY(setuid, 1),
    ENTRY(setCapabilities, 2), ENTRY(prctl, 3),
    ENTRY(setrlimit, 3),       ENTRY(umask, 1),
    ENTRY(resetSignals, 0),    ENTRY(openTerminal, 1),
    ENTRY(terminalNumber, 1),  ENTRY(controlTerminal, 1),
    ENTRY(resizeTerminal, 3),  ENTRY(clock, 1),
    ENTRY(setClock, 1),        ENTRY(sleep, 1),
    ENTRY(addEntropy, 4),      ENTRY(setHostname, 1),
    ENTRY(setDomainname, 1),   ENTRY(release, 0),
    ENTRY(reboot, 1),          ENTRY(filterDevices, 2),
    ENTRY(filterCalls, 1),     ENTRY(socket, 3),
    ENTRY(send, 4),            ENTRY(receive, 4),
    ENTRY(inetPton, 3),
    ENTRY(epollCreate, 0),     ENTRY(epollControl, 4),
    ENTRY(epollWait, 3),       ENTRY(signalfd, 1),
};

void sys_install(JSContext *ctx, const struct timespec *started) {
  JSValue global = JS_GetGlobalObject(ctx);
  JSValue sys = JS_NewObject(ctx);
  JS_SetPropertyFunctionList(ctx, sys, functions,
                             sizeof functions / sizeof *functions);
  tree_install(ctx, sys);
  JS_SetPropertyStr(
      ctx, sys, "startedAt",
      JS_NewFloat64(ctx, started->tv_sec * 1e3 + started->tv_nsec / 1e6));
  JS_SetPropertyStr(ctx, global, "sys", sys);
  JS_FreeValue(ctx, global);
}
