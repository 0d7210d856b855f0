/*
 * The script's memory. QuickJS asks for a hundred small blocks a message, and after each of them for its
 * size, which musl's malloc has to look up: a third of what the agent did at a container's start. Here a
 * block's size stands before it, and small ones that are free wait in a list for each size. They never go
 * back to the system: the agent's heap is some hundred kilobytes. They are cut from slabs, which are known
 * so that a process can take them for itself after a fork.
 */
#include "heap.h"

#include <stdlib.h>
#include <string.h>

enum { STEP = 16, SMALL = 512, SLAB = 32 * 1024, PAGE = 4096 };

/* Blocks have the size of a multiple of STEP, with this. */
struct header {
  size_t bytes;
};

/* What a free block has instead of content. */
struct unused {
  struct unused *next;
};

/* What a slab begins with. */
struct slab {
  _Alignas(STEP) struct slab *before;
};

static struct unused *lists[SMALL / STEP + 1];
static struct slab *slabs;
static char *slab, *slab_end;

static struct header *header_of(void *block) {
  return (struct header *)block - 1;
}

static size_t bytes_for(size_t size) {
  return (size + sizeof(struct header) + STEP - 1) & ~(size_t)(STEP - 1);
}

static struct header *carve(size_t bytes) {
  if ((size_t)(slab_end - slab) < bytes) {
    struct slab *fresh = malloc(SLAB);
    if (!fresh) {
      slab = slab_end = NULL;
      return NULL;
    }
    fresh->before = slabs;
    slabs = fresh;
    slab = (char *)(fresh + 1);
    slab_end = (char *)fresh + SLAB;
  }
  struct header *header = (struct header *)slab;
  slab += bytes;
  return header;
}

static void *allocate(JSMallocState *state, size_t size) {
  if (size > SIZE_MAX / 2) return NULL;
  size_t bytes = bytes_for(size);
  struct unused **list = bytes <= SMALL ? &lists[bytes / STEP] : NULL;
  void *block;
  if (list && *list) {
    block = *list;
    *list = (*list)->next;
  } else {
    struct header *header = list ? carve(bytes) : malloc(bytes);
    if (!header) return NULL;
    header->bytes = bytes;
    block = header + 1;
  }
  state->malloc_count++;
  state->malloc_size += bytes;
  return block;
}

static void discard(JSMallocState *state, void *block) {
  if (!block) return;
  struct header *header = header_of(block);
  state->malloc_count--;
  state->malloc_size -= header->bytes;
  if (header->bytes <= SMALL) {
    struct unused *unused = block;
    unused->next = lists[header->bytes / STEP];
    lists[header->bytes / STEP] = unused;
  } else {
    free(header);
  }
}

static void *resize(JSMallocState *state, void *block, size_t size) {
  if (!block) return size == 0 ? NULL : allocate(state, size);
  if (size == 0) {
    discard(state, block);
    return NULL;
  }
  if (size > SIZE_MAX / 2) return NULL;
  struct header *header = header_of(block);
  size_t before = header->bytes, bytes = bytes_for(size);
  if (bytes == before) return block;
  if (before > SMALL && bytes > SMALL) {
    header = realloc(header, bytes);
    if (!header) return NULL;
    header->bytes = bytes;
    state->malloc_size += bytes - before;
    return header + 1;
  }
  void *other = allocate(state, size);
  if (!other) return NULL;
  memcpy(other, block, (before < bytes ? before : bytes) - sizeof *header);
  discard(state, block);
  return other;
}

static size_t usable_size(const void *block) {
  return ((const struct header *)block - 1)->bytes - sizeof(struct header);
}

void heap_own(void) {
  for (struct slab *one = slabs; one; one = one->before)
    for (int at = 0; at < SLAB; at += PAGE) {
      volatile char *byte = (char *)one + at;
      *byte = *byte;
    }
}

const JSMallocFunctions heap_functions = {allocate, discard, resize,
                                          usable_size};
