/*
 * hull-share: serves files and folders of the host to one machine's guest.
 *
 *   hull-share SOCKET SCRATCH [OPTIONS PATH BELOW]...
 *
 * SOCKET is the Unix socket at which the machine's port "org.hull.share" listens, SCRATCH an empty folder.
 * Of each export, OPTIONS are letters: r (read-only), f (only the folder itself is), a (without what is
 * mounted below), or "-"; BELOW is a path inside of PATH, or "".
 *
 * Says "ready", or why not, on standard output, and from then on nothing. It ends when the connection
 * does, that is, with the machine: nobody has to look after it.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "confine.h"
#include "mount-attr.h"
#include "server.h"

/* How often locks that others hold are tried again, in ms. */
enum { LOCK_INTERVAL = 20 };

static int refuse(const char *what) {
  printf("%s\n", what);
  return 1;
}

static int connect_to(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(address.sun_path, path);
  return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address)
             ? -1
             : fd;
}

static void send_all(int connection, const uint8_t *bytes, long length) {
  while (length > 0) {
    ssize_t sent = send(connection, bytes, (size_t)length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) exit(0);
    bytes += sent;
    length -= sent;
  }
}

/* The machine's connection, from its first byte to its end. */
static void serve(int connection) {
  static uint8_t in[2 * MAX_MESSAGE], out[MAX_MESSAGE];
  size_t filled = 0;
  for (;;) {
    size_t at = 0;
    if (locks_wait()) {
      struct pollfd ready = {connection, POLLIN, 0};
      int events = poll(&ready, 1, LOCK_INTERVAL);
      long length;
      while ((length = answer_waiting_lock(out)) > 0)
        send_all(connection, out, length);
      if (events <= 0) continue;
    }
    ssize_t count = recv(connection, in + filled, sizeof in - filled, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    filled += (size_t)count;
    while (filled - at >= HEADER) {
      const uint8_t *message = in + at;
      size_t length = message[0] | message[1] << 8 | message[2] << 16 |
                      (size_t)message[3] << 24;
      if (length < HEADER || length > message_limit()) return;
      if (filled - at < length) break;
      long answer = answer_message(message, length, out);
      if (answer < 0) return;
      send_all(connection, out, answer);
      at += length;
    }
    memmove(in, in + at, filled - at);
    filled -= at;
  }
}

int main(int argc, char **argv) {
  static struct export exports[HULL_MAX_EXPORTS];
  static char failure[4096 + 256];
  size_t count = 0;
  int connection, root;

  if (argc < 3 || argc % 3 != 0) return refuse("wrong arguments");
  for (int i = 3; i < argc; i += 3) {
    if (count == HULL_MAX_EXPORTS) return refuse("too many mounts");
    exports[count++] = (struct export){
        .path = argv[i + 1],
        .below = argv[i + 2],
        .readonly = strchr(argv[i], 'r') != NULL,
        .flat = strchr(argv[i], 'f') != NULL,
        .alone = strchr(argv[i], 'a') != NULL,
    };
  }
  signal(SIGPIPE, SIG_IGN);
  connection = connect_to(argv[1]);
  if (connection < 0) {
    snprintf(failure, sizeof failure, "cannot connect to the machine: %s",
             strerror(errno));
    return refuse(failure);
  }
  root = confine(argv[2], exports, count, failure, sizeof failure);
  if (root < 0) return refuse(failure);
  begin_serving(root);
  if (printf("ready\n") < 0 || fflush(stdout)) return 1;
  close(STDIN_FILENO);
  close(STDOUT_FILENO);
  if (filter_system_calls()) return 1;
  serve(connection);
  return 0;
}
