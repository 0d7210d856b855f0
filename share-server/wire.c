#include "wire.h"

#include <errno.h>
#include <string.h>

const uint8_t *get_bytes(struct message *message, size_t length) {
  const uint8_t *bytes = message->at;
  if ((size_t)(message->end - message->at) < length) {
    message->bad = true;
    message->at = message->end;
    return NULL;
  }
  message->at += length;
  return bytes;
}

static uint64_t get(struct message *message, size_t length) {
  const uint8_t *bytes = get_bytes(message, length);
  uint64_t value = 0;
  if (!bytes) return 0;
  while (length-- > 0) value = value << 8 | bytes[length];
  return value;
}

uint8_t get8(struct message *message) { return (uint8_t)get(message, 1); }
uint16_t get16(struct message *message) { return (uint16_t)get(message, 2); }
uint32_t get32(struct message *message) { return (uint32_t)get(message, 4); }
uint64_t get64(struct message *message) { return get(message, 8); }

size_t get_string(struct message *message, char *text, size_t size) {
  size_t length = get16(message);
  const uint8_t *bytes = get_bytes(message, length);
  text[0] = 0;
  if (!bytes) return 0;
  if (length >= size || memchr(bytes, 0, length)) {
    message->bad = true;
    return 0;
  }
  memcpy(text, bytes, length);
  text[length] = 0;
  return length;
}

int get_name(struct message *message, struct name *name) {
  size_t length = get16(message);
  const uint8_t *bytes = get_bytes(message, length);
  name->text[0] = 0;
  if (!bytes) return EPROTO;
  if (length >= sizeof name->text) return ENAMETOOLONG;
  if (length == 0 || memchr(bytes, 0, length) || memchr(bytes, '/', length))
    return EINVAL;
  memcpy(name->text, bytes, length);
  name->text[length] = 0;
  if (!strcmp(name->text, ".") || !strcmp(name->text, "..")) return EINVAL;
  return 0;
}

void put_bytes(struct reply *reply, const void *bytes, size_t length) {
  if (reply->full || (size_t)(reply->end - reply->at) < length) {
    reply->full = true;
    return;
  }
  if (length > 0) memcpy(reply->at, bytes, length);
  reply->at += length;
}

static void put(struct reply *reply, uint64_t value, size_t length) {
  uint8_t bytes[8];
  for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)(value >> (8 * i));
  put_bytes(reply, bytes, length);
}

void put8(struct reply *reply, uint8_t value) { put(reply, value, 1); }
void put16(struct reply *reply, uint16_t value) { put(reply, value, 2); }
void put32(struct reply *reply, uint32_t value) { put(reply, value, 4); }
void put64(struct reply *reply, uint64_t value) { put(reply, value, 8); }

void put_string(struct reply *reply, const char *text, size_t length) {
  put16(reply, (uint16_t)length);
  put_bytes(reply, text, length);
}
