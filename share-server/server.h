#ifndef HULL_SERVER_H
#define HULL_SERVER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Largest message, in bytes; what the guest asks for may be less. */
enum { MAX_MESSAGE = 1024 * 1024, HEADER = 7 };

/*
 * The root folder of what is served, and the folder /proc/self/fd of this process as the current
 * folder: a descriptor's number is then a path of its file.
 */
void begin_serving(int root);

/*
 * Answers one message of `length` bytes, its header included.
 * Returns the length of the answer in `answer`, 0 when there is none (yet), or -1 when what came is
 * not 9P2000.L and the connection is of no use any more.
 */
long answer_message(const uint8_t *message, size_t length, uint8_t *answer);

/* The largest message now, after Tversion. */
size_t message_limit(void);

/* Locks that wait for another's end: whether there are any, and an answer once one of them is there. */
bool locks_wait(void);
long answer_waiting_lock(uint8_t *answer);

/* Opens a handle's file, which is a regular file or a folder. -1 and errno when it cannot be. */
int reopen(int path, int flags);

#endif
