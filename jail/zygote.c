/*
 * Makes a machine's QEMU the zygote of others: a process that stands still, and of which copies are forked,
 * each a machine of its own. What the zygote has read, translated and set up they share until they write to
 * it. Part of what is loaded into QEMU (see descriptors.c); does nothing unless HULL_ZYGOTE is set, to
 * "SOCKET FIRST-UID": a descriptor that listens for orders, and what the launcher calls --first-uid.
 *
 * An order is made by hull-jail --fork-from (launcher.c; `struct order` is the same there). It comes with the
 * open files that the copy has instead of the zygote's: its log, its sockets, its taps, and the disk where the
 * zygote has one that can be written. The answer is the copy's process ID. A copy may be a zygote itself.
 *
 * fork(2) copies one thread only, the main one, which is in its poll then. All others are stopped first, in
 * a signal handler, where they must have been waiting in a system call. In the copy each is made again by
 * clone(2), with its old stack and thread-local memory, and returns from the handler into that call, which is
 * begun again. Then the copy does what the launcher does for any other machine: namespaces, no capability,
 * user and group of its own; last comes QEMU's seccomp filter, which the zygote does without.
 *
 * Files that the copies would share are made anew: eventfds, and connections: QMP's is at its end, for which
 * QEMU has its listening socket; the agent's is the first that comes.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "order.h"

enum {
  MOST_THREADS = 256,
  MOST_FILES = 1024,
  MOST_POLLED = 1024,
  MOST_HUGE = 16,
  MOST_HANDLERS = 64,
  PARK_TRIES = 2000,
  ROBUST_LIST_BYTES = 24,
  RSEQ_BYTES = 32,
  /* How long a copy that has ended is there for the daemon to see how. */
  ZOMBIE_MS = 500,
  FAILED = 125,
};
#define RSEQ_SIGNATURE 0x53053053
#define PARK_SIGNAL (SIGRTMIN + 9)

static int orders = -1; /* The socket; -1: no zygote. */
static uid_t first_uid;
static char **arguments;

/* --- Threads --- */

enum { FREE, STARTING, AT_WORK, ENDING };

struct thread {
  atomic_int used;
  atomic_int parked; /* 1: in the handler, waiting; -1: was not waiting in a system call */
  pid_t tid;
  void *tls;
  void *robust_list;
  int *tid_field; /* Where the C library has the thread's ID. */
  char *stack;
  jmp_buf context;
};

static struct thread threads[MOST_THREADS];
static atomic_int released; /* Counts; a parked thread waits for a change. */
static __thread struct thread *self;

static long futex(atomic_int *word, int operation, int value) {
  return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

/* Whether a signal met the thread where it waits for an event, to go on waiting when the handler returns. */
static int was_waiting(const ucontext_t *context) {
  const greg_t *registers = context->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  if (at[0] == 0x0f && at[1] == 0x05)
    return registers[REG_RAX] == SYS_futex || registers[REG_RAX] == SYS_poll ||
           registers[REG_RAX] == SYS_ppoll;
  return at[-2] == 0x0f && at[-1] == 0x05 && registers[REG_RAX] == -EINTR;
}

static void park(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info;
  struct thread *thread = self;
  if (!thread) return;
  int error = errno;
  if (!was_waiting(context)) {
    thread->parked = -1;
  } else if (!setjmp(thread->context)) {
    int before = released;
    thread->stack = __builtin_frame_address(0);
    thread->parked = 1;
    while (released == before) futex(&released, FUTEX_WAIT_PRIVATE, before);
  }
  errno = error;
}

struct start {
  void *(*function)(void *);
  void *argument;
};

static void leave(void *thread) {
  self = NULL;
  ((struct thread *)thread)->used = ENDING;
}

static int *tid_field(void) {
  pid_t tid = (pid_t)syscall(SYS_gettid);
  int *words = (int *)pthread_self();
  for (int at = 0x40; at < 0x200; at++)
    if (words[at] == tid) return words + at;
  return NULL;
}

static void enroll(struct thread *thread) {
  size_t length;
  thread->tid = (pid_t)syscall(SYS_gettid);
  thread->tls = (void *)pthread_self();
  thread->tid_field = tid_field();
  syscall(SYS_get_robust_list, 0, &thread->robust_list, &length);
  self = thread;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, PARK_SIGNAL);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void *begin(void *argument) {
  struct start start = *(struct start *)argument;
  void *result = NULL;
  free(argument);
  for (int at = 0; at < MOST_THREADS; at++) {
    int unused = FREE;
    if (!atomic_compare_exchange_strong(&threads[at].used, &unused, STARTING))
      continue;
    threads[at].tid = 0;
    enroll(&threads[at]);
    threads[at].used = AT_WORK;
    pthread_cleanup_push(leave, &threads[at]);
    result = start.function(start.argument);
    pthread_cleanup_pop(1);
    return result;
  }
  abort();
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*function)(void *), void *argument) {
  static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                     void *);
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
  if (orders < 0) return next(thread, attributes, function, argument);
  struct start *start = malloc(sizeof *start);
  if (!start) return EAGAIN;
  *start = (struct start){function, argument};
  int error = next(thread, attributes, begin, start);
  if (error) free(start);
  return error;
}

static void release(void) {
  released++;
  futex(&released, FUTEX_WAKE_PRIVATE, MOST_THREADS);
}

/* A thread that has left its function has things to do yet, and may hold locks of the C library. */
static int is_gone(const struct thread *thread) {
  for (int at = 0; at < MOST_THREADS; at++)
    if (threads[at].used == AT_WORK && threads[at].tid == thread->tid) return 1;
  return syscall(SYS_tgkill, getpid(), thread->tid, 0) && errno == ESRCH;
}

/* Stops all other threads. Returns 0 when one of them is at work. */
static int park_all(void) {
  for (int at = 0; at < MOST_THREADS; at++) {
    struct thread *thread = &threads[at];
    if (thread->used == ENDING && is_gone(thread)) thread->used = FREE;
    if (thread->used == FREE) continue;
    if (thread->used != AT_WORK || !thread->tid_field) return 0;
    thread->parked = 0;
    if (syscall(SYS_tgkill, getpid(), thread->tid, PARK_SIGNAL)) return 0;
    for (int tries = 0; !thread->parked; tries++) {
      if (tries == PARK_TRIES || thread->used != AT_WORK) return 0;
      usleep(tries < 20 ? 10 : 500);
    }
    if (thread->parked < 0) return 0;
  }
  return 1;
}

static int go_on(void *argument) {
  struct thread *thread = argument;
  syscall(SYS_set_robust_list, thread->robust_list, ROBUST_LIST_BYTES);
  ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
  if (offset)
    syscall(SYS_rseq, (char *)thread->tls + *offset, RSEQ_BYTES, 0,
            RSEQ_SIGNATURE);
  longjmp(thread->context, 1);
}

/* In the copy: has all threads go on where they were. */
static int resurrect(void) {
  const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                    CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                    CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  for (int at = 0; at < MOST_THREADS; at++) {
    struct thread *thread = &threads[at];
    if (thread->used == FREE) continue;
    /* Below the handler's frame there is nothing of use. */
    uintptr_t stack = ((uintptr_t)thread->stack - 16384) & ~(uintptr_t)63;
    thread->tid = clone(go_on, (void *)stack, flags, thread, thread->tid_field,
                        thread->tls, thread->tid_field);
    if (thread->tid < 0) return 0;
  }
  return 1;
}

/* --- What QEMU does that has to be done again --- */

static char eventfds[MOST_FILES];
static int eventfd_flags[MOST_FILES];
static int connections[2] = {-1, -1}; /* To ORDER_QMP, ORDER_AGENT. */
static struct { unsigned offload, header, offload_set; } taps[ORDER_TAPS];
static struct { void *start; size_t bytes; } huge[MOST_HUGE];
static int huge_count;
static void *filter; /* scmp_filter_ctx */
static atomic_int ended; /* Some copies have. */
/* In a copy that has no connection to its agent's socket yet: the other end of what is in its place. */
static int late_agent = -1;

int eventfd(unsigned value, int flags) {
  int fd = (int)syscall(SYS_eventfd2, value, flags);
  if (fd >= 0 && fd < MOST_FILES) {
    eventfds[fd] = 1;
    eventfd_flags[fd] = flags;
  }
  return fd;
}

int close(int fd) {
  if (fd >= 0 && fd < MOST_FILES) eventfds[fd] = 0;
  return (int)syscall(SYS_close, fd);
}

int accept4(int listener, struct sockaddr *address, socklen_t *length,
            int flags) {
  int fd = (int)syscall(SYS_accept4, listener, address, length, flags);
  if (listener == ORDER_QMP) connections[0] = fd;
  if (listener == ORDER_AGENT) connections[1] = fd;
  return fd;
}

int ioctl(int fd, unsigned long request, ...) {
  va_list args;
  va_start(args, request);
  void *argument = va_arg(args, void *);
  va_end(args);
  int tap = fd - ORDER_FIRST_TAP;
  if (tap >= 0 && tap < ORDER_TAPS) {
    if (request == TUNSETOFFLOAD) {
      taps[tap].offload = (unsigned)(uintptr_t)argument;
      taps[tap].offload_set = 1;
    }
    if (request == TUNSETVNETHDRSZ) taps[tap].header = *(unsigned *)argument;
  }
  return (int)syscall(SYS_ioctl, fd, request, argument);
}

int madvise(void *start, size_t bytes, int advice) {
  if (orders >= 0) {
    /* The guest's memory is what is to be forked. */
    if (advice == MADV_DONTFORK) return 0;
    if (advice == MADV_HUGEPAGE && huge_count < MOST_HUGE) {
      huge[huge_count].start = start;
      huge[huge_count++].bytes = bytes;
    }
  }
  return (int)syscall(SYS_madvise, start, bytes, advice);
}

/* What libraries do when a process forks, e.g. that their random numbers are others from then on. */
static struct { void (*prepare)(void), (*parent)(void), (*child)(void); } at_fork[MOST_HANDLERS];
static int at_fork_count;

int __register_atfork(void (*prepare)(void), void (*parent)(void),
                      void (*child)(void), void *library) {
  static int (*next)(void (*)(void), void (*)(void), void (*)(void), void *);
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, "__register_atfork");
  if (at_fork_count == MOST_HANDLERS) return ENOMEM;
  at_fork[at_fork_count].prepare = prepare;
  at_fork[at_fork_count].parent = parent;
  at_fork[at_fork_count++].child = child;
  return next(prepare, parent, child, library);
}

/* As fork(2), but for the other threads, which the C library would forget. */
static pid_t fork_with_handlers(void) {
  for (int at = at_fork_count; at-- > 0;)
    if (at_fork[at].prepare) at_fork[at].prepare();
  pid_t pid = _Fork();
  int error = errno;
  for (int at = 0; at < at_fork_count; at++) {
    void (*handler)(void) = pid == 0 ? at_fork[at].child : at_fork[at].parent;
    if (handler) handler();
  }
  errno = error;
  return pid;
}

int seccomp_load(void *context) {
  if (orders >= 0) {
    filter = context;
    return 0;
  }
  int (*next)(void *);
  *(void **)&next = dlsym(RTLD_NEXT, "seccomp_load");
  return next(context);
}

void seccomp_release(void *context) {
  if (orders >= 0) return;
  void (*next)(void *);
  *(void **)&next = dlsym(RTLD_NEXT, "seccomp_release");
  next(context);
}

/* --- The copy --- */

static void die(const char *what) {
  dprintf(STDERR_FILENO, "hull-jail: a copy of the zygote %s: %s\n", what,
          strerror(errno));
  _exit(FAILED);
}

/* A file takes the place of another one, and is read and written as that one was: with waiting, or without. */
static void put(int fd, int descriptor) {
  int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & (O_NONBLOCK | O_APPEND)) ||
      dup3(fd, descriptor, O_CLOEXEC) < 0)
    die("cannot take its files");
}

static void renew_eventfds(void) {
  for (int fd = 0; fd < MOST_FILES; fd++) {
    if (!eventfds[fd]) continue;
    struct pollfd one = {.fd = fd, .events = POLLIN};
    int fresh = (int)syscall(SYS_eventfd2, poll(&one, 1, 0) > 0 ? 1 : 0,
                             eventfd_flags[fd]);
    if (fresh < 0) die("cannot make an eventfd");
    put(fresh, fd);
    syscall(SYS_close, fresh);
  }
}

static void take_taps(void) {
  for (int tap = 0; tap < ORDER_TAPS; tap++) {
    int fd = ORDER_FIRST_TAP + tap;
    if (taps[tap].header &&
        syscall(SYS_ioctl, fd, TUNSETVNETHDRSZ, &taps[tap].header))
      die("cannot set up its taps");
    if (taps[tap].offload_set &&
        syscall(SYS_ioctl, fd, TUNSETOFFLOAD, (uintptr_t)taps[tap].offload))
      die("cannot set up its taps");
  }
}

/* A pair's first end takes the place of a connection that the zygote has. @returns the second */
static int disconnect(int connection) {
  int pair[2];
  if (connection < 0) return -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
    die("cannot make a socket");
  put(pair[0], connection);
  syscall(SYS_close, pair[0]);
  return pair[1];
}

/* QEMU locks bytes of its files. The locks belong to the file as it was opened, which is another one now. */
static void lock_alike(int old, int fd) {
  struct flock lock = {.l_whence = SEEK_SET};
  do {
    lock.l_type = F_WRLCK;
    lock.l_start += lock.l_len;
    lock.l_len = 0;
    /* A lock of the process's own would be in the way of all that there are. */
    if (fcntl(old, F_GETLK, &lock)) die("cannot see what is locked");
    if (lock.l_type == F_UNLCK) return;
    lock.l_pid = 0;
    if (fcntl(fd, F_OFD_SETLK, &lock)) die("cannot lock its disk");
  } while (lock.l_len);
}

static void take_disk(int disk, const struct order *order) {
  int taken = 0;
  for (int fd = STDERR_FILENO + 1; fd < MOST_FILES; fd++) {
    struct stat file;
    if (fstat(fd, &file) || file.st_dev != order->device ||
        file.st_ino != order->inode)
      continue;
    if (!taken++) lock_alike(fd, disk);
    put(disk, fd);
  }
  errno = ENOENT;
  if (!taken) die("cannot put its disk in the place of another one");
  syscall(SYS_close, disk);
}

/* The process list shows whose it is. */
static void rename_as(const struct order *order) {
  unsigned char *uuid = dlsym(RTLD_DEFAULT, "qemu_uuid");
  for (char **at = arguments; at[0] && at[1]; at++) {
    if (!strcmp(at[0], "-name")) memcpy(at[1], order->name, strlen(at[1]));
    if (!strcmp(at[0], "-uuid")) memcpy(at[1], order->uuid, strlen(at[1]));
  }
  const char *digit = order->uuid;
  for (int byte = 0; uuid && byte < 16; byte++, digit += 2) {
    unsigned value;
    if (*digit == '-') digit++;
    if (sscanf(digit, "%2x", &value) == 1) uuid[byte] = (unsigned char)value;
  }
}

static int fits(const struct order *order) {
  for (char **at = arguments; at[0] && at[1]; at++) {
    if (!strcmp(at[0], "-name") && strlen(at[1]) != strlen(order->name))
      return 0;
    if (!strcmp(at[0], "-uuid") && strlen(at[1]) != strlen(order->uuid))
      return 0;
  }
  return 1;
}

static void confine(void) {
  uid_t id = first_uid + (uid_t)getpid();
  for (int one = 0; prctl(PR_CAPBSET_READ, one) >= 0; one++)
    if (prctl(PR_CAPBSET_READ, one) && prctl(PR_CAPBSET_DROP, one))
      die("cannot drop a capability");
  if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, id, id, id) ||
      syscall(SYS_setresuid, id, id, id))
    die("cannot become its user");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    die("cannot give up privileges");
  orders = -1;
  if (filter) {
    int error = seccomp_load(filter);
    errno = -error;
    if (error) die("cannot load QEMU's filter");
  }
}

static void become(const struct order *order, const int *files) {
  put(files[0], STDOUT_FILENO);
  if (dup2(STDOUT_FILENO, STDERR_FILENO) < 0 ||
      fcntl(STDOUT_FILENO, F_SETFD, 0))
    die("cannot take its log");
  put(files[1], ORDER_QMP);
  put(files[2], ORDER_AGENT);
  put(files[3], ORDER_SHARE);
  for (int tap = 0; tap < ORDER_TAPS; tap++)
    put(files[4 + tap], ORDER_FIRST_TAP + tap);
  for (int at = 0; at < ORDER_FILES; at++) syscall(SYS_close, files[at]);
  const int *more = files + ORDER_FILES;
  if (order->zygote) {
    put(*more, orders);
    syscall(SYS_close, *more++);
  } else {
    syscall(SYS_close, orders);
  }
  if (order->disk) take_disk(*more, order);
  take_taps();
  renew_eventfds();
  syscall(SYS_close, disconnect(connections[0]));
  late_agent = disconnect(connections[1]);
  rename_as(order);
  /* What it writes to is its own, page by page. */
  for (int at = 0; at < huge_count; at++)
    syscall(SYS_madvise, huge[at].start, huge[at].bytes, MADV_NOHUGEPAGE);
  /* Where the host's scheduler goes by sessions (autogroup), all copies would have one machine's share. */
  if (setsid() < 0) die("cannot have a session of its own");
  if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET))
    die("cannot make namespaces");
  if (!order->zygote) {
    signal(SIGCHLD, SIG_DFL);
    confine();
  }
  if (!resurrect()) die("cannot have its threads go on");
}

/* --- Orders --- */

/* @returns whether the connection is one of the listening socket's, and not a file that came later */
static int belongs(int connection, int listener) {
  struct sockaddr_un one = {0}, two = {0};
  socklen_t first = sizeof one, second = sizeof two;
  return !getsockname(connection, (struct sockaddr *)&one, &first) &&
         !getsockname(listener, (struct sockaddr *)&two, &second) &&
         first == second && !memcmp(&one, &two, first);
}

/* @returns how many files came with the order; 0: it is none */
static int receive(int from, struct order *order, int *files) {
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(ORDER_MOST_FILES * sizeof(int))];
  } control;
  struct iovec data = {order, sizeof *order};
  struct msghdr message = {.msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  if (recvmsg(from, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL) != sizeof *order)
    return 0;
  int count = ORDER_FILES + !!order->zygote + !!order->disk;
  size_t bytes = (size_t)count * sizeof *files;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (!header || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(bytes))
    return 0;
  memcpy(files, CMSG_DATA(header), bytes);
  order->name[sizeof order->name - 1] = order->uuid[sizeof order->uuid - 1] = 0;
  return count;
}

static void serve(void) {
  int files[ORDER_MOST_FILES], answer = -EPROTO;
  struct order order;
  struct timeval limit = {.tv_sec = 2};
  int from = (int)syscall(SYS_accept4, orders, NULL, NULL, SOCK_CLOEXEC);
  if (from < 0) return;
  setsockopt(from, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  int count = receive(from, &order, files);
  if (count) {
    if (!fits(&order)) {
      answer = -EINVAL;
    } else if (!belongs(connections[0], ORDER_QMP) ||
               !belongs(connections[1], ORDER_AGENT)) {
      answer = -ENOTCONN;
    } else if (!park_all()) {
      answer = -EBUSY;
    } else {
      answer = fork_with_handlers();
      if (answer == 0) {
        syscall(SYS_close, from);
        become(&order, files);
        return;
      }
      if (answer < 0) answer = -errno;
    }
    release();
    for (int at = 0; at < count; at++) syscall(SYS_close, files[at]);
  }
  if (send(from, &answer, sizeof answer, MSG_NOSIGNAL) < 0) errno = 0;
  syscall(SYS_close, from);
}

/* A copy's end is the daemon's to see, in the process list; a moment later nobody needs it any more. */
static void note_end(int signal) {
  (void)signal;
  ended = 1;
}

/* The first who connects to a copy's agent socket is in the place of the one whom the zygote had. */
static void connect_agent(void) {
  int fd = (int)syscall(SYS_accept4, ORDER_AGENT, NULL, NULL,
                        SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  put(fd, connections[1]);
  syscall(SYS_close, fd);
  syscall(SYS_close, late_agent);
  late_agent = -1;
}

/* The main loop's: it looks for orders, too, and in a copy for who connects to the agent's socket first. */
int ppoll(struct pollfd *polled, nfds_t count, const struct timespec *timeout,
          const sigset_t *mask) {
  static int (*next)(struct pollfd *, nfds_t, const struct timespec *,
                     const sigset_t *);
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, "ppoll");
  if ((orders < 0 && late_agent < 0) || count > MOST_POLLED ||
      getpid() != syscall(SYS_gettid))
    return next(polled, count, timeout, mask);
  static struct pollfd all[MOST_POLLED + 2];
  struct pollfd *order = all + count, *agent = order + 1;
  memcpy(all, polled, count * sizeof *polled);
  *order = (struct pollfd){.fd = orders, .events = POLLIN};
  *agent = (struct pollfd){.fd = late_agent < 0 ? -1 : ORDER_AGENT,
                           .events = POLLIN};
  const struct timespec soon = {.tv_nsec = ZOMBIE_MS * 1000000};
  int reap = ended;
  int ready = next(all, count + 2, reap ? &soon : timeout, mask);
  if (ready == 0 && reap) {
    ended = 0;
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
  if (ready < 0 && errno == EINTR && ended) return 0;
  if (ready <= 0) return ready;
  memcpy(polled, all, count * sizeof *polled);
  ready -= !!order->revents + !!agent->revents;
  if (agent->revents) connect_agent();
  if (order->revents) serve();
  return ready;
}

__attribute__((constructor)) static void prepare(int argc, char **argv) {
  const char *value = getenv("HULL_ZYGOTE");
  int descriptor;
  unsigned uid;
  (void)argc;
  if (!value || sscanf(value, "%d %u", &descriptor, &uid) != 2) return;
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART,
                             .sa_sigaction = park};
  sigaction(PARK_SIGNAL, &action, NULL);
  struct sigaction child = {.sa_handler = note_end, .sa_flags = SA_NOCLDSTOP};
  sigaction(SIGCHLD, &child, NULL);
  arguments = argv;
  first_uid = uid;
  orders = descriptor;
}
