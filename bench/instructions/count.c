/*
 * A QEMU plugin: counts the guest's instructions, and writes the count to a file when the marker is executed,
 * which is the first instruction of marker.S.
 *
 *   -plugin file=count.so,out=FILE
 *
 * Debian packages no qemu-plugin.h, so what is used of it is declared here; see
 * https://www.qemu.org/docs/master/devel/tcg-plugins.html. Whole blocks are counted when they are entered: one
 * that an exception leaves early counts too much, which is a tiny part.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
  const char *target_name;
  struct {
    int min;
    int cur;
  } version;
} qemu_info_t;
enum { NO_REGISTERS };
typedef void (*tb_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*cpu_callback)(unsigned int, void *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, cpu_callback, int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, cpu_callback, int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
/* Its form depends on the version, so it is called through casts. */
void qemu_plugin_insn_data(void);

/* nopl 0x4c4c5548(%rax,%rax): no compiler emits it. */
static const unsigned char marker[8] = {0x0f, 0x1f, 0x84, 0x00, 'H', 'U', 'L', 'L'};

EXPORT int qemu_plugin_version = API_VERSION;

static int out = -1;
static int api;
static uint64_t count;

static void block(unsigned int cpu, void *instructions) {
  __atomic_fetch_add(&count, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void marked(unsigned int cpu, void *unused) {
  char line[32];
  int length = snprintf(line, sizeof line, "%llu\n", (unsigned long long)count);
  if (write(out, line, (size_t)length) != length) perror("count.so");
}

static bool is_marker(struct qemu_plugin_insn *insn) {
  if (qemu_plugin_insn_size(insn) != sizeof marker) return false;
  if (api < 3) {
    const void *(*data)(const struct qemu_plugin_insn *) = (const void *(*)(const struct qemu_plugin_insn *))qemu_plugin_insn_data;
    return memcmp(data(insn), marker, sizeof marker) == 0;
  }
  unsigned char bytes[sizeof marker];
  size_t (*data)(const struct qemu_plugin_insn *, void *, size_t) =
      (size_t(*)(const struct qemu_plugin_insn *, void *, size_t))qemu_plugin_insn_data;
  return data(insn, bytes, sizeof bytes) == sizeof bytes && memcmp(bytes, marker, sizeof marker) == 0;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  size_t instructions = qemu_plugin_tb_n_insns(tb);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, block, NO_REGISTERS, (void *)instructions);
  for (size_t i = 0; i < instructions; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    if (is_marker(insn)) qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, NULL);
  }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  api = info->version.cur;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0) out = open(argv[i] + 4, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  if (out < 0) {
    fprintf(stderr, "count.so: out=FILE is missing or cannot be written\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  return 0;
}
