#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mount-attr.h"

/* What a container of Docker's may do to the files of its volumes; no more than that is needed here. */
static const int KEPT[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
                           CAP_FOWNER, CAP_FSETID,       CAP_MKNOD,
                           CAP_SETFCAP};
enum { KEPT_COUNT = sizeof KEPT / sizeof *KEPT, MAX_OPEN = 1024 * 1024 };

static char *failure;
static size_t failure_size;

static int failed(const char *what, const char *which) {
  snprintf(failure, failure_size, "%s%s%s: %s", what, *which ? " " : "", which,
           strerror(errno));
  return -1;
}

static int write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t written = write(fd, text, strlen(text));
  close(fd);
  return written < 0 ? -1 : 0;
}

/* Without root: root of a user namespace in which there is nobody but the user. */
static int become_root(void) {
  char map[64];
  uid_t uid = getuid();
  gid_t gid = getgid();
  if (unshare(CLONE_NEWUSER))
    return failed("volumes without root need user namespaces", "");
  write_file("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "0 %u 1", uid);
  if (write_file("/proc/self/uid_map", map)) return failed("map the user", "");
  snprintf(map, sizeof map, "0 %u 1", gid);
  if (write_file("/proc/self/gid_map", map)) return failed("map the group", "");
  return 0;
}

static int open_export(const struct export *export) {
  int fd = open(export->path, O_PATH | O_CLOEXEC), inside;
  struct open_how how = {
      .flags = O_PATH | O_CLOEXEC,
      .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
  };
  if (fd < 0 || !*export->below) return fd;
  inside = (int)syscall(SYS_openat2, fd, export->below, &how, sizeof how);
  close(fd);
  return inside;
}

static int mount_export(const struct export *export, int source, size_t i) {
  char from[64], to[32];
  struct stat file;
  struct hull_mount_attr attributes = {
      .attr_set = HULL_MOUNT_NOSUID | HULL_MOUNT_NODEV | HULL_MOUNT_NOEXEC,
      .propagation = MS_PRIVATE,
  };
  snprintf(from, sizeof from, "/proc/self/fd/%d", source);
  snprintf(to, sizeof to, "%zu", i);
  if (fstat(source, &file)) return -1;
  if (S_ISDIR(file.st_mode) ? mkdir(to, 0755)
                            : mknod(to, S_IFREG | 0644, 0))
    return -1;
  if (mount(from, to, NULL, MS_BIND | (export->alone ? 0 : MS_REC), NULL))
    return -1;
  if (syscall(SYS_mount_setattr, AT_FDCWD, to, AT_RECURSIVE, &attributes,
              sizeof attributes))
    return -1;
  if (!export->readonly) return 0;
  attributes = (struct hull_mount_attr){.attr_set = HULL_MOUNT_RDONLY};
  return (int)syscall(SYS_mount_setattr, AT_FDCWD, to,
                      export->flat ? 0 : AT_RECURSIVE, &attributes,
                      sizeof attributes);
}

static int drop_capabilities(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2] = {{0, 0, 0}, {0, 0, 0}};
  for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++) {
    bool keep = false;
    for (size_t i = 0; i < KEPT_COUNT; i++) keep |= KEPT[i] == one;
    if (!keep && prctl(PR_CAPBSET_DROP, one)) return -1;
  }
  for (size_t i = 0; i < KEPT_COUNT; i++) {
    sets[KEPT[i] / 32].effective |= 1u << (KEPT[i] % 32);
    sets[KEPT[i] / 32].permitted |= 1u << (KEPT[i] % 32);
  }
  return (int)syscall(SYS_capset, &header, sets);
}

int confine(const char *scratch, const struct export *exports, size_t count,
            char *message, size_t message_size) {
  int sources[HULL_MAX_EXPORTS], own_files, root;
  struct rlimit files = {MAX_OPEN, MAX_OPEN};
  failure = message;
  failure_size = message_size;

  if (setrlimit(RLIMIT_NOFILE, &files)) {
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  if (geteuid() != 0 && become_root()) return -1;
  if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC))
    return failed("unshare", "");
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
    return failed("make mounts private", "");
  for (size_t i = 0; i < count; i++) {
    sources[i] = open_export(&exports[i]);
    if (sources[i] < 0)
      return *exports[i].below
                 ? failed("cannot access path below the volume:",
                          exports[i].below)
                 : failed("cannot open", exports[i].path);
  }
  own_files = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (own_files < 0) return failed("open /proc/self/fd", "");
  if (mount("hull", scratch, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            "size=64k,mode=755") ||
      chdir(scratch))
    return failed("mount a root at", scratch);
  for (size_t i = 0; i < count; i++) {
    if (mount_export(&exports[i], sources[i], i))
      return failed("mount", exports[i].path);
    close(sources[i]);
  }
  if (mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID |
                                 MS_NODEV | MS_NOEXEC,
            NULL))
    return failed("make the root read-only", "");
  if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
      chdir("/"))
    return failed("change the root", "");
  root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0 || fchdir(own_files)) return failed("open the root", "");
  close(own_files);
  umask(0);
  if (drop_capabilities() || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return failed("drop privileges", "");
  return root;
}

/* By number: those of the x86-64 system calls that the C library's functions make. */
static const uint32_t ALLOWED[] = {
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64,
    SYS_close, SYS_open, SYS_openat, SYS_lseek, SYS_getdents64, SYS_stat,
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_mkdirat, SYS_mknodat,
    SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_linkat, SYS_symlinkat,
    SYS_readlinkat, SYS_chmod, SYS_fchmodat, SYS_fchownat, SYS_truncate,
    SYS_ftruncate, SYS_utimensat, SYS_fsync, SYS_fdatasync, SYS_fcntl,
    SYS_getxattr, SYS_setxattr, SYS_listxattr, SYS_removexattr, SYS_poll,
    SYS_recvfrom, SYS_sendto, SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap,
    SYS_mprotect, SYS_madvise, SYS_rt_sigreturn, SYS_exit, SYS_exit_group,
};
enum { ALLOWED_COUNT = sizeof ALLOWED / sizeof *ALLOWED };

int filter_system_calls(void) {
  struct sock_filter program[ALLOWED_COUNT + 6];
  size_t at = 0;
  struct sock_fprog filter;
  program[at++] = (struct sock_filter)BPF_STMT(
      BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                               AUDIT_ARCH_X86_64, 1, 0);
  program[at++] =
      (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  program[at++] = (struct sock_filter)BPF_STMT(
      BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < ALLOWED_COUNT; i++)
    program[at++] = (struct sock_filter)BPF_JUMP(
        BPF_JMP | BPF_JEQ | BPF_K, ALLOWED[i], (uint8_t)(ALLOWED_COUNT - i), 0);
  program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
                                               SECCOMP_RET_ERRNO | EPERM);
  program[at++] =
      (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  filter = (struct sock_fprog){(unsigned short)at, program};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}
