/*
 * The container's process 1 when it was started with --init: runs the program as its child, passes
 * signals on to it, reaps whatever is orphaned, and ends as the program ended. The agent's ELF executes
 * itself for it, so that nothing of the agent's memory is in it. What it does is what tini does, which
 * Docker uses.
 */
#include "init.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Signals that say something of this process itself. */
static const int own[] = {SIGFPE,  SIGILL,  SIGSEGV, SIGBUS,
                          SIGABRT, SIGTRAP, SIGSYS,  0};

static void run(char **arguments, const sigset_t *mask) {
  /* Its own group, and the terminal's foreground: Ctrl-C is for the program. */
  setpgid(0, 0);
  tcsetpgrp(STDIN_FILENO, getpid());
  signal(SIGTTIN, SIG_DFL);
  signal(SIGTTOU, SIG_DFL);
  sigprocmask(SIG_SETMASK, mask, NULL);
  execvp(arguments[0], arguments);
  int error = errno;
  fprintf(stderr, "exec %s failed: %s\n", arguments[0], strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

int init_main(char **arguments) {
  sigset_t caught, before;
  prctl(PR_SET_NAME, "docker-init");
  sigfillset(&caught);
  for (const int *signal = own; *signal; signal++) sigdelset(&caught, *signal);
  sigprocmask(SIG_SETMASK, &caught, &before);
  signal(SIGTTIN, SIG_IGN);
  signal(SIGTTOU, SIG_IGN);

  pid_t program = fork();
  if (program < 0) return 126;
  if (program == 0) run(arguments, &before);

  for (;;) {
    int signal = sigwaitinfo(&caught, NULL);
    if (signal > 0 && signal != SIGCHLD) kill(program, signal);
    int status;
    for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;)
      if (ended == program)
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status)
                                   : WEXITSTATUS(status);
  }
}
