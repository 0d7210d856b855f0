/*
 * Starts a machine's QEMU. What QEMU needs of the host is opened here, while that is allowed, and handed
 * down as descriptors; then, with --room, the process becomes nobody in an empty room: a user and group
 * of its own, namespaces whose root is the room's folder (read-only), no capability, no new privileges.
 *
 *   hull-jail [OPTION]... -- PROGRAM [ARGUMENT]...
 *
 *   --keep N           descriptor N was inherited and is QEMU's, too
 *   --listen N=PATH    N is a Unix socket that listens at PATH
 *   --tap N=DEVICE     N is the tap device of that name
 *   --open N=PATH      N is the file, open for reading and writing
 *   --processes N      so many processes and threads may the user have
 *   --room DIR         QEMU's root; PROGRAM is a path in it
 *   --first-uid N      user and group are N + the process's ID. No other process has them, since no
 *                      other process has its ID.
 *   --host-network     stay in the host's network namespace
 *   --zygote N         PROGRAM is a zygote (zygote.c) that takes orders at the socket N. It stays root, with
 *                      the few capabilities that it takes to confine its copies.
 *
 *   hull-jail [OPTION]... --fork-from PATH --name NAME --uuid UUID --answer N
 *
 * has the zygote that listens at PATH fork a machine, with what --listen and --tap name, and stdout as its
 * log. Its process ID is written to descriptor N. With --zygote it is one itself.
 *
 *   --disk PATH        a disk that the copy has in the place of one of the zygote's,
 *   --instead-of PATH  which is this file
 *
 * Errors go to stderr, and the exit status is 125.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "order.h"

enum {
  FAILED = 125,
  MAX_DESCRIPTOR = 64,
  BACKLOG = 8,
  /* How long a zygote on a busy host may take. */
  ANSWER_SECONDS = 10,
};

static char kept[MAX_DESCRIPTOR];

static void die(const char *format, ...) {
  int error = errno;
  va_list args;
  fputs("hull-jail: ", stderr);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  if (error) fprintf(stderr, ": %s", strerror(error));
  fputc('\n', stderr);
  exit(FAILED);
}

static unsigned long number(const char *text, unsigned long most) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno || end == text || *end || value > most) {
    errno = 0;
    die("\"%s\" is no number up to %lu", text, most);
  }
  return value;
}

/* Reads "N=VALUE"; the value is what is returned. */
static char *descriptor_of(char *text, int *descriptor) {
  char *value = strchr(text, '=');
  errno = 0;
  if (!value) die("\"%s\" is not of the form N=VALUE", text);
  *value++ = 0;
  *descriptor = (int)number(text, MAX_DESCRIPTOR - 1);
  return value;
}

/* Gives an open file its number, and lets it outlive the exec. */
static void keep_as(int fd, int descriptor) {
  if (descriptor <= STDERR_FILENO || kept[descriptor]) {
    errno = 0;
    die("descriptor %d is taken", descriptor);
  }
  if (fd == descriptor) {
    if (fcntl(fd, F_SETFD, 0)) die("cannot keep descriptor %d", descriptor);
  } else {
    if (dup2(fd, descriptor) < 0) die("cannot make descriptor %d", descriptor);
    close(fd);
  }
  kept[descriptor] = 1;
}

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  errno = fd < 0 ? errno : ENAMETOOLONG;
  if (fd < 0 || strlen(path) >= sizeof address.sun_path)
    die("cannot make the socket %s", path);
  strcpy(address.sun_path, path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) ||
      listen(fd, BACKLOG))
    die("cannot listen at %s", path);
  return fd;
}

static int open_tap(const char *device) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) die("cannot open /dev/net/tun");
  errno = ENAMETOOLONG;
  if (strlen(device) >= sizeof request.ifr_name)
    die("cannot open the tap device %s", device);
  strcpy(request.ifr_name, device);
  if (ioctl(fd, TUNSETIFF, &request))
    die("cannot open the tap device %s", device);
  return fd;
}

static void close_others(void) {
  for (int fd = STDERR_FILENO + 1; fd < MAX_DESCRIPTOR; fd++)
    if (!kept[fd]) close(fd);
  if (syscall(SYS_close_range, MAX_DESCRIPTOR, ~0u, 0))
    die("cannot close what QEMU does not need");
}

static void limit(int which, const char *what, rlim_t value) {
  struct rlimit both = {value, value};
  if (setrlimit(which, &both)) die("cannot limit %s", what);
}

static void enter(const char *room, int host_network) {
  if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
              (host_network ? 0 : CLONE_NEWNET)))
    die("cannot make namespaces");
  if (sethostname("machine", 7)) die("cannot set the hostname");
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
    die("cannot make mounts private");
  if (mount(room, room, NULL, MS_BIND, NULL)) die("cannot mount %s", room);
  if (mount(NULL, room, NULL,
            MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
    die("cannot make %s read-only", room);
  if (chdir(room) || syscall(SYS_pivot_root, ".", ".") ||
      umount2(".", MNT_DETACH) || chdir("/"))
    die("cannot make %s the root", room);
}

/* A zygote's copies go into namespaces, and change their user, as `enter` and `become_nobody` do. */
static void keep_what_confines(void) {
  for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++)
    if (one != CAP_SYS_ADMIN && one != CAP_SETPCAP && one != CAP_SETUID &&
        one != CAP_SETGID && prctl(PR_CAPBSET_DROP, one))
      die("cannot drop capability %d", one);
  if (syscall(SYS_setgroups, 0, NULL)) die("cannot leave groups");
}

/* @returns the open file that is to take the other one's place */
static int open_disk(const char *path, const char *other, struct order *order) {
  struct stat old;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) die("cannot open %s", path);
  if (stat(other, &old)) die("cannot find %s", other);
  order->disk = 1;
  order->device = old.st_dev;
  order->inode = old.st_ino;
  return fd;
}

/*
 * @param orders the copy's socket for them, or -1
 * @param disk its path, or NULL
 * @returns the process ID of the zygote's copy
 */
static int fork_from(const char *path, const char *name, const char *uuid,
                     int orders, const char *disk, const char *other) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct order order = {.zygote = orders >= 0};
  int files[ORDER_MOST_FILES] = {STDOUT_FILENO, ORDER_QMP, ORDER_AGENT,
                                 ORDER_SHARE};
  int answer, count = ORDER_FILES;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof files)];
  } control = {0};
  errno = ENAMETOOLONG;
  if (strlen(path) >= sizeof address.sun_path ||
      strlen(name) >= sizeof order.name || strlen(uuid) >= sizeof order.uuid)
    die("cannot ask %s", path);
  strcpy(address.sun_path, path);
  strcpy(order.name, name);
  strcpy(order.uuid, uuid);
  for (int tap = 0; tap < ORDER_TAPS; tap++)
    files[4 + tap] = ORDER_FIRST_TAP + tap;
  if (orders >= 0) files[count++] = orders;
  if (disk) files[count++] = open_disk(disk, other, &order);
  size_t bytes = (size_t)count * sizeof *files;
  struct iovec data = {&order, sizeof order};
  struct msghdr message = {.msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = CMSG_SPACE(bytes)};
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(&control.header), files, bytes);
  struct timeval limit = {.tv_sec = ANSWER_SECONDS};
  int to = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (to < 0 ||
      setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) || connect(to, (struct sockaddr *)&address, sizeof address) ||
      sendmsg(to, &message, MSG_NOSIGNAL) != sizeof order ||
      recv(to, &answer, sizeof answer, MSG_WAITALL) != sizeof answer)
    die("the zygote does not answer");
  errno = -answer;
  if (answer <= 0) die("the zygote cannot be forked");
  return answer;
}

static void become_nobody(unsigned long first) {
  uid_t id = (uid_t)(first + (unsigned long)getpid());
  for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++)
    if (prctl(PR_CAPBSET_DROP, one)) die("cannot drop capability %d", one);
  /* The C library's functions would do the same for each thread; there is one. */
  if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, id, id, id) ||
      syscall(SYS_setresuid, id, id, id))
    die("cannot become user %u", id);
}

int main(int argc, char **argv) {
  static char zygote[64];
  static const char *ENVIRONMENT_OF_ROOM[] = {
      "LD_PRELOAD=/hull-descriptors.so", NULL, NULL};
  const char *room = NULL, *origin = NULL, *name = NULL, *uuid = NULL,
             *disk = NULL, *other = NULL;
  int orders = -1, answer = -1;
  unsigned long first_uid = 0, processes = 0;
  int host_network = 0, at = 1, descriptor;

  umask(077);
  for (; at < argc && strcmp(argv[at], "--"); at++) {
    const char *option = argv[at];
    errno = 0;
    if (!strcmp(option, "--host-network")) {
      host_network = 1;
      continue;
    }
    char *value = argv[++at];
    if (!value) die("%s needs a value", option);
    if (!strcmp(option, "--keep")) {
      descriptor = (int)number(value, MAX_DESCRIPTOR - 1);
      keep_as(descriptor, descriptor);
    } else if (!strcmp(option, "--listen")) {
      value = descriptor_of(value, &descriptor);
      keep_as(listen_at(value), descriptor);
    } else if (!strcmp(option, "--tap")) {
      value = descriptor_of(value, &descriptor);
      keep_as(open_tap(value), descriptor);
    } else if (!strcmp(option, "--open")) {
      value = descriptor_of(value, &descriptor);
      int fd = open(value, O_RDWR | O_CLOEXEC);
      if (fd < 0) die("cannot open %s", value);
      keep_as(fd, descriptor);
    } else if (!strcmp(option, "--processes")) {
      processes = number(value, 1000000);
    } else if (!strcmp(option, "--room")) {
      room = value;
    } else if (!strcmp(option, "--first-uid")) {
      first_uid = number(value, 0xffffffff);
    } else if (!strcmp(option, "--zygote")) {
      orders = (int)number(value, MAX_DESCRIPTOR - 1);
    } else if (!strcmp(option, "--fork-from")) {
      origin = value;
    } else if (!strcmp(option, "--name")) {
      name = value;
    } else if (!strcmp(option, "--uuid")) {
      uuid = value;
    } else if (!strcmp(option, "--disk")) {
      disk = value;
    } else if (!strcmp(option, "--instead-of")) {
      other = value;
    } else if (!strcmp(option, "--answer")) {
      answer = (int)number(value, MAX_DESCRIPTOR - 1);
    } else {
      die("%s is no option", option);
    }
  }
  errno = 0;
  if (origin) {
    if (!name || !uuid || answer < 0 || !disk != !other)
      die("--fork-from needs more options");
    int pid = fork_from(origin, name, uuid, orders, disk, other);
    if (dprintf(answer, "%d", pid) < 0) die("cannot answer");
    return 0;
  }
  if (at + 1 >= argc) die("there is no program to start");
  if (room && !first_uid) die("--room needs --first-uid");
  if (orders >= 0 && !room) die("--zygote needs --room");

  close_others();
  limit(RLIMIT_CORE, "core dumps", 0);
  if (room) {
    enter(room, host_network);
    if (processes) limit(RLIMIT_NPROC, "processes", processes);
    if (orders < 0) {
      become_nobody(first_uid);
    } else {
      keep_what_confines();
      snprintf(zygote, sizeof zygote, "HULL_ZYGOTE=%d %lu", orders, first_uid);
      ENVIRONMENT_OF_ROOM[1] = zygote;
    }
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("cannot give up privileges");
  argv += at + 1;
  if (room)
    execve(argv[0], argv, (char **)ENVIRONMENT_OF_ROOM);
  else
    execvp(argv[0], argv);
  die("cannot execute %s", argv[0]);
}
