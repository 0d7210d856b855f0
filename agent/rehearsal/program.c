/*
 * What runs in a machine that is prepared for the warm pool: a program that does a little of what most
 * programs do when they start (fork, execute, pipes, files, folders, signals, memory), so that the
 * kernel's code for it is warm. Says one line and ends.
 *
 * Under TCG code that the kernel runs for a page fault or an interrupt out of a program is translated apart from
 * the same code when it runs for a system call (the stack segment is another then). So both are gone through.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
/* Parts of the program's file that are read, and written, by page faults. */
static const unsigned char text[256 * PAGE] = {1};
static unsigned char data[96 * PAGE] = {1};
static unsigned char zeros[32 * PAGE];

static void onSignal(int number) { (void)number; }

static int touch(size_t page) {
  return *(const volatile unsigned char *)(text + page * PAGE);
}

static void put(unsigned char *memory, size_t page) {
  *(volatile unsigned char *)(memory + page * PAGE) = 2;
}

/* Ticks, and what a disk has to say, come while the program computes. */
static void compute(long milliseconds) {
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  do
    clock_gettime(CLOCK_MONOTONIC, &now);
  while ((now.tv_sec - begin.tv_sec) * 1000 +
             (now.tv_nsec - begin.tv_nsec) / 1000000 <
         milliseconds);
}

static void fault(void) {
  /* Here and there, one after the other, and where nobody has read ahead. */
  for (size_t page = 200; page > 100; page -= 33) {
    touch(page);
    compute(1);
  }
  for (size_t page = 0; page < 96; page++) touch(page);
  compute(5);
  for (size_t page = 90; page > 0; page -= 10) put(data, page);
  for (size_t page = 0; page < 48; page++) put(data, page);
  for (size_t page = 0; page < 32; page += 3) put(zeros, page);
  unsigned char stack[24 * PAGE];
  for (size_t page = 24; page > 0; page--) put(stack, page - 1);
  compute(25);
}

static void useFiles(void) {
  char text[64] = "rehearsal";
  struct stat found;
  mkdir("/tmp/rehearsal", 0700);
  int file = open("/tmp/rehearsal/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file >= 0) {
    (void)!write(file, text, sizeof text);
    lseek(file, 0, SEEK_SET);
    (void)!read(file, text, sizeof text);
    fstat(file, &found);
    fcntl(file, F_GETFL);
    close(file);
  }
  rename("/tmp/rehearsal/file", "/tmp/rehearsal/other");
  unlink("/tmp/rehearsal/other");
  rmdir("/tmp/rehearsal");
  (void)!readlink("/proc/self/exe", text, sizeof text);
  access("/etc/passwd", R_OK);
  DIR *root = opendir("/");
  if (root) {
    while (readdir(root))
      continue;
    closedir(root);
  }
}

static void useProcesses(char **argv) {
  int ends[2];
  char answer[16];
  if (pipe(ends))
    return;
  pid_t child = fork();
  if (child == 0) {
    for (size_t page = 0; page < 12; page++) put(data, page);
    dup2(ends[1], 1);
    char *again[] = {argv[0], "child", NULL};
    execv(argv[0], again);
    _exit(1);
  }
  for (size_t page = 8; page < 24; page++) put(data, page);
  close(ends[1]);
  struct pollfd ready = {ends[0], POLLIN, 0};
  poll(&ready, 1, 1000);
  (void)!read(ends[0], answer, sizeof answer);
  close(ends[0]);
  waitpid(child, NULL, 0);
}

int main(int argc, char **argv) {
  if (argc > 1) {
    fault();
    puts("child");
    return 0;
  }
  struct sigaction action = {.sa_handler = onSignal};
  sigaction(SIGUSR1, &action, NULL);
  raise(SIGUSR1);
  size_t size = 1 << 20;
  char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) {
    memset(memory, 1, 1 << 16);
    mprotect(memory, 4096, PROT_READ);
    munmap(memory, size);
  }
  int pair = socket(AF_UNIX, SOCK_STREAM, 0);
  if (pair >= 0)
    close(pair);
  usleep(1000);
  fault();
  useFiles();
  useProcesses(argv);
  puts("rehearsed");
  return 0;
}
