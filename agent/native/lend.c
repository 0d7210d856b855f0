/*
 * A process of the agent's that executes a program gives its memory back then: hundreds of pages, which takes longer
 * than all else of the execve. Where it is lent, the lender gives it back, when nobody waits for it.
 */
#include "lend.h"

#include <errno.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <unistd.h>

static pid_t borrower;
/* The lender's from then on: its own is in use. */
static _Alignas(16) char stack[1024];

/* What the lender does: nothing, with none of its files, until it is killed. */
__attribute__((used)) static _Noreturn void lend(void) {
  syscall(SYS_close_range, 0, ~0U, 0);
  for (;;) syscall(SYS_pause);
}

pid_t clone_onto(uint64_t flags, int cgroup) {
  struct clone_args arguments = {
      .flags = flags | CLONE_VM | CLONE_PARENT | CLONE_PARENT_SETTID |
               CLONE_INTO_CGROUP,
      .parent_tid = (uint64_t)&borrower,
      .cgroup = (uint64_t)cgroup,
  };
  long result;
  /* No C between: the borrower goes on on this stack. */
  __asm__ volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jle 1f\n\t"
      "mov %[stack], %%rsp\n\t"
      "call lend\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone3), "D"(&arguments), "S"(sizeof arguments),
        [stack] "r"(stack + sizeof stack)
      : "rcx", "r11", "cc", "memory");
  if (result == 0) return borrower;
  errno = (int)-result;
  return -1;
}
