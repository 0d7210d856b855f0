/*
 * The first process of a machine that has been taken over as a whole. What it does is told by the container's
 * hostname. A machine of less than HOSTILE MiB gets the real agent, so that hostile and honest guests can have one
 * daemon.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { HOSTILE = 700, EVENT = 4, RESPONSE = 3 };

static char input[1 << 20], frame[1 << 17];

static int open_port(const char *wanted) {
  for (;;) {
    DIR *ports = opendir("/sys/class/virtio-ports");
    struct dirent *port;
    while (ports && (port = readdir(ports))) {
      char path[512], name[64] = "";
      snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name",
               port->d_name);
      int fd = open(path, O_RDONLY);
      if (fd < 0) continue;
      ssize_t length = read(fd, name, sizeof name - 1);
      close(fd);
      if (length <= 0 || strncmp(name, wanted, strlen(wanted))) continue;
      snprintf(path, sizeof path, "/dev/%s", port->d_name);
      if ((fd = open(path, O_RDWR | O_NONBLOCK)) >= 0) return fd;
    }
    if (ports) closedir(ports);
    usleep(1000);
  }
}

/* Until the host has taken it, or has taken nothing for a while. */
static int put(int port, const void *bytes, size_t length) {
  const char *at = bytes;
  for (int tries = 0; length > 0 && tries < 1000;) {
    ssize_t written = write(port, at, length);
    if (written <= 0) {
      usleep(1000);
      tries++;
      continue;
    }
    tries = 0;
    at += written;
    length -= (size_t)written;
  }
  return length == 0;
}

static size_t encode(int type, const char *payload, uint32_t claimed) {
  size_t length = strlen(payload);
  memset(frame, 0, 20);
  for (int i = 0; i < 4; i++) frame[i] = (char)(claimed >> 8 * i);
  frame[4] = (char)type;
  memcpy(frame + 20, payload, length);
  frame[20 + length] = (char)0xa5;
  return 21 + length;
}

static void say(int port, int type, const char *payload) {
  put(port, frame, encode(type, payload, (uint32_t)strlen(payload)));
}

/* Answers the host's requests as an agent would, until the container's process would run. */
static void behave(int port) {
  size_t filled = 0;
  char *at = input;
  for (;;) {
    ssize_t count = read(port, input + filled, sizeof input - 1 - filled);
    if (count > 0) filled += (size_t)count;
    else usleep(1000);
    input[filled] = 0;
    for (size_t i = 0; i < filled; i++)
      if (!input[i]) input[i] = ' ';
    char *request;
    while ((request = strstr(at, "{\"id\":"))) {
      char answer[128], *op;
      int id = atoi(request + 6);
      if (!(op = strstr(request, "\"op\":\"")) || !strchr(op + 6, '"')) break;
      at = op + 6;
      int spawn = !strncmp(at, "spawn", 5);
      snprintf(answer, sizeof answer, "{\"id\":%d,\"ok\":true,\"result\":%s}",
               id,
               spawn                       ? "{\"pid\":7}"
               : !strncmp(at, "setup", 5) ? "{\"timings\":{}}"
                                           : "{}");
      say(port, RESPONSE, answer);
      if (spawn) return;
    }
  }
}

static void noise(int port) {
  uint32_t state = 1;
  for (;;) {
    for (size_t i = 0; i < sizeof frame; i++) {
      state = state * 1664525 + 1013904223;
      frame[i] = (char)(state >> 24);
    }
    put(port, frame, sizeof frame);
  }
}

/* Messages of the share port: of every kind, with a length that fits or does not. */
static void mangle_shares(int port) {
  static const char version[] = "\x15\0\0\0\x64\xff\xff\0\0\x10\0\x08\0" "9P2000.L";
  static const char attach[] =
      "\x18\0\0\0\x68\1\0\1\0\0\0\xff\xff\xff\xff\0\0\1\0" "0" "\0\0\0\0";
  uint32_t state = 7;
  put(port, version, sizeof version - 1);
  put(port, attach, sizeof attach - 1);
  for (int round = 0; round < 20000; round++) {
    uint8_t message[64];
    for (size_t i = 0; i < sizeof message; i++) {
      state = state * 1664525 + 1013904223;
      message[i] = (uint8_t)(state >> 24) % (i & 1 ? 3 : 120);
    }
    memset(message, 0, 4);
    message[0] = (uint8_t)sizeof message;
    message[4] = (uint8_t)(state >> 16) % 128;
    memset(message + 7, 0, 4);
    message[7] = 1;
    /* It does not read the answers: in the end the server takes no more. */
    if (!put(port, message, sizeof message)) return;
  }
  memset(frame, 0xff, 64);
  put(port, frame, 64);
}

int main(int argc, char **argv) {
  struct sysinfo info;
  (void)argc;
  sysinfo(&info);
  unsigned long mebibytes = info.totalram * info.mem_unit >> 20;
  if (mebibytes < HOSTILE) {
    execv("/agent", argv);
    return 1;
  }
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  int port = open_port("org.hull.agent.0");
  say(port, EVENT,
      "{\"event\":\"hello\",\"hello\":{\"protocol\":" PROTOCOL
      ",\"version\":\"x\",\"kernel\":\"x\",\"bootId\":\"\",\"uptimeMs\":1,"
      "\"ready\":false,\"processes\":[]}}");
  behave(port);
  const char *name = strstr(input, "\"hostname\":\"hostile-");
  usleep(500000);
  switch (name ? name[20] - '0' : -1) {
  case 0:
    noise(port);
    break;
  case 1:
    for (;;) put(port, frame, encode(EVENT, "{}", 0xfffffff0));
  case 2:
    for (int id = 4711;; id++) {
      char answer[64];
      snprintf(answer, sizeof answer, "{\"id\":%d,\"ok\":true,\"result\":{}}", id);
      say(port, RESPONSE, answer);
    }
  case 3:
    for (;;)
      say(port, EVENT, "{\"event\":\"log\",\"level\":\"info\",\"message\":\"flood\"}");
  default:
    mangle_shares(open_port("org.hull.share.0"));
    say(port, EVENT, "{\"event\":\"log\",\"level\":\"info\",\"message\":\"mangled\"}");
  }
  for (;;) sleep(1000);
}
