/* What hull-jail --fork-from tells a zygote (zygote.c), in one message with the open files. */
enum {
  ORDER_QMP = 10,
  ORDER_AGENT = 11,
  ORDER_SHARE = 12,
  ORDER_FIRST_TAP = 16,
  ORDER_TAPS = 4,
  /* The log, the three sockets that listen, the taps. */
  ORDER_FILES = 1 + 3 + ORDER_TAPS,
  /* Then, where there are: the socket for orders, the disk. */
  ORDER_MOST_FILES = ORDER_FILES + 2,
};

struct order {
  char uuid[40];
  /* The value of -name; as long as the zygote's own. */
  char name[256];
  /* Whether the copy is a zygote itself: it comes with a socket for orders. */
  int zygote;
  /* Whether it comes with a disk, and the file in whose place that is. */
  int disk;
  unsigned long long device, inode;
};
