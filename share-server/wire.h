#ifndef HULL_WIRE_H
#define HULL_WIRE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The wire format of 9P2000.L: little-endian integers, strings of a two-byte length and their bytes.
 * Everything that is read was written by a guest: a read beyond the message gives zero and sets `bad`,
 * which whoever handles the message checks before it acts.
 */
struct message {
  const uint8_t *at, *end;
  bool bad;
};

/* A name of one path component, or a text, with a final zero. */
struct name {
  char text[256];
};

uint8_t get8(struct message *message);
uint16_t get16(struct message *message);
uint32_t get32(struct message *message);
uint64_t get64(struct message *message);
/* Bytes of the message itself. */
const uint8_t *get_bytes(struct message *message, size_t length);
/*
 * A string with no zero in it, of less than `size` bytes; `bad` is set otherwise.
 * Returns its length.
 */
size_t get_string(struct message *message, char *text, size_t size);
/* One path component: no slash, not "", "." or "..". Returns 0 or an errno. */
int get_name(struct message *message, struct name *name);

/* A reply that is being built. Writes beyond its room are left out and set `full`. */
struct reply {
  uint8_t *start, *at, *end;
  bool full;
};

void put8(struct reply *reply, uint8_t value);
void put16(struct reply *reply, uint16_t value);
void put32(struct reply *reply, uint32_t value);
void put64(struct reply *reply, uint64_t value);
void put_bytes(struct reply *reply, const void *bytes, size_t length);
void put_string(struct reply *reply, const char *text, size_t length);

#endif
