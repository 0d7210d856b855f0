/*
 * 9P2000.L, as the Linux client speaks it (net/9p, fs/9p), over folders of the host. A handle is a
 * descriptor of the file itself, opened with O_PATH one component at a time and never through a symbolic
 * link: what a guest renames or plants while a request is under way leads nowhere else. Only regular
 * files and folders are ever opened; devices, pipes and sockets are the guest's own affair.
 */
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fids.h"
#include "locks.h"
#include "wire.h"

enum {
  Rlerror = 7,
  Tstatfs = 8,
  Tlopen = 12,
  Tlcreate = 14,
  Tsymlink = 16,
  Tmknod = 18,
  Treadlink = 22,
  Tgetattr = 24,
  Tsetattr = 26,
  Txattrwalk = 30,
  Txattrcreate = 32,
  Treaddir = 40,
  Tfsync = 50,
  Tlock = 52,
  Tgetlock = 54,
  Tlink = 70,
  Tmkdir = 72,
  Trenameat = 74,
  Tunlinkat = 76,
  Tversion = 100,
  Tattach = 104,
  Tflush = 108,
  Twalk = 110,
  Tread = 116,
  Twrite = 118,
  Tclunk = 120,
  Tremove = 122,
};

enum {
  SET_MODE = 0x1,
  SET_UID = 0x2,
  SET_GID = 0x4,
  SET_SIZE = 0x8,
  SET_ATIME = 0x10,
  SET_MTIME = 0x20,
  SET_ATIME_TO = 0x80,
  SET_MTIME_TO = 0x100,
};

enum { MAX_WALK = 16, MIN_MESSAGE = 4096 };
enum { MAX_ATTRIBUTE = 64 * 1024, MAX_WAITING = 1024 };
enum { GOT_BASIC = 0x7ff, LOCK_MAY_WAIT = 1, REMOVE_FOLDER = 0x200 };
/* What Linux knows 9P by: programs then know that change notices do not come from the host. */
#define V9FS_MAGIC 0x01021997

static int root;
static dev_t root_device;
static size_t limit = MIN_MESSAGE;

struct waiting {
  uint16_t tag;
  uint32_t fid;
  struct lock lock;
  struct waiting *next;
};
static struct waiting *waiting;
static size_t waiting_count;

void begin_serving(int folder) {
  struct stat file;
  root = folder;
  if (fstat(folder, &file) == 0) root_device = file.st_dev;
}
size_t message_limit(void) { return limit; }

/* --- Descriptors --- */

static const char *path_of(int descriptor) {
  static char path[12];
  snprintf(path, sizeof path, "%d", descriptor);
  return path;
}

int reopen(int path, int flags) {
  return open(path_of(path), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static int open_entry(int folder, const char *name) {
  return openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* Without root's rights a file cannot be given away: it belongs to who runs the daemon. */
static int give(int path, uint32_t uid, uint32_t gid) {
  if (fchownat(path, "", uid, gid, AT_EMPTY_PATH) == 0) return 0;
  return errno == EPERM || errno == EINVAL ? 0 : errno;
}

/* --- What a file is --- */

/*
 * Inode numbers of several file systems below one root are kept apart by the uppermost byte: 0 for the
 * first that is asked for, 255 for the root folder's own.
 */
static uint64_t number_of(dev_t device, ino_t inode) {
  static dev_t devices[255];
  static size_t known;
  size_t i = 0;
  if (device == root_device) return inode + (UINT64_C(255) << 56);
  while (i < known && devices[i] != device) i++;
  if (i == known && known < 255) devices[known++] = device;
  return inode + ((uint64_t)i << 56);
}

/* Version 0: not to be cached by the guest, since others may write to it. */
static void put_qid(struct reply *reply, mode_t mode, dev_t device,
                    ino_t inode) {
  put8(reply, S_ISDIR(mode) ? 0x80 : S_ISLNK(mode) ? 0x02 : 0);
  put32(reply, 0);
  put64(reply, number_of(device, inode));
}

static int put_qid_of(struct reply *reply, int path) {
  struct stat file;
  if (fstat(path, &file)) return errno;
  put_qid(reply, file.st_mode, file.st_dev, file.st_ino);
  return 0;
}

/* As the kernel's new_encode_dev() packs it. */
static uint64_t packed(dev_t device) {
  unsigned high = major(device), low = minor(device);
  return (low & 0xff) | (uint64_t)high << 8 | (uint64_t)(low & ~0xffu) << 12;
}

/* --- The operations. Each gives 0, or an errno for the guest. --- */

static int version(struct message *in, struct reply *out) {
  char text[32];
  uint32_t size = get32(in);
  bool ours;
  get_string(in, text, sizeof text);
  if (in->bad || size < MIN_MESSAGE) return EPROTO;
  drop_all_fids();
  ours = strncmp(text, "9P2000.L", 8) == 0;
  limit = size < MAX_MESSAGE ? size : MAX_MESSAGE;
  put32(out, (uint32_t)limit);
  if (ours)
    put_string(out, "9P2000.L", 8);
  else
    put_string(out, "unknown", 7);
  return 0;
}

static int attach(struct message *in, struct reply *out) {
  char text[256];
  uint32_t id = get32(in), uid;
  int path;
  get32(in);
  get_string(in, text, sizeof text);
  get_string(in, text, sizeof text);
  uid = get32(in);
  if (in->bad) return EPROTO;
  path = fcntl(root, F_DUPFD_CLOEXEC, 0);
  if (path < 0) return errno;
  if (!add_fid(id, path, uid == (uint32_t)-1 ? 0 : uid)) {
    close(path);
    return EBADF;
  }
  return put_qid_of(out, path);
}

static int walk(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in)), *made;
  uint32_t id = get32(in);
  uint16_t count = get16(in), done;
  uint8_t *counter = out->at;
  int path, error = 0;
  struct name name;
  if (in->bad || count > MAX_WALK) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (fid->id == id && fid->open >= 0) return EBUSY;
  path = fcntl(fid->path, F_DUPFD_CLOEXEC, 0);
  if (path < 0) return errno;
  put16(out, 0);
  for (done = 0; done < count; done++) {
    int next;
    error = get_name(in, &name);
    if (error) break;
    next = open_entry(path, name.text);
    if (next < 0) {
      error = errno;
      break;
    }
    close(path);
    path = next;
    error = put_qid_of(out, path);
    if (error) break;
  }
  if (error) {
    close(path);
    if (done == 0 || in->bad) return error;
  } else if (fid->id == id) {
    forget_locks(fid);
    close(fid->path);
    fid->path = path;
  } else {
    made = add_fid(id, path, fid->uid);
    if (!made) {
      close(path);
      return EBADF;
    }
  }
  counter[0] = (uint8_t)done;
  counter[1] = 0;
  return 0;
}

static int get_attributes(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct stat file;
  get64(in);
  if (in->bad) return EPROTO;
  if (!fid) return EBADF;
  if (fstat(fid->path, &file)) return errno;
  put64(out, GOT_BASIC);
  put_qid(out, file.st_mode, file.st_dev, file.st_ino);
  put32(out, file.st_mode);
  put32(out, file.st_uid);
  put32(out, file.st_gid);
  put64(out, file.st_nlink);
  put64(out, packed(file.st_rdev));
  put64(out, (uint64_t)file.st_size);
  /* Programs choose their buffers by it, and each read is a round trip. */
  put64(out, limit > 128 * 1024 ? 128 * 1024 : 4096);
  put64(out, (uint64_t)file.st_blocks);
  put64(out, (uint64_t)file.st_atim.tv_sec);
  put64(out, (uint64_t)file.st_atim.tv_nsec);
  put64(out, (uint64_t)file.st_mtim.tv_sec);
  put64(out, (uint64_t)file.st_mtim.tv_nsec);
  put64(out, (uint64_t)file.st_ctim.tv_sec);
  put64(out, (uint64_t)file.st_ctim.tv_nsec);
  put64(out, 0);
  put64(out, 0);
  put64(out, 0);
  put64(out, 0);
  return 0;
}

static int set_attributes(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  uint32_t valid = get32(in), mode = get32(in), uid = get32(in),
           gid = get32(in);
  uint64_t size = get64(in);
  struct timespec times[2];
  (void)out;
  times[0].tv_sec = (time_t)get64(in);
  times[0].tv_nsec = (long)get64(in);
  times[1].tv_sec = (time_t)get64(in);
  times[1].tv_nsec = (long)get64(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (valid & (SET_UID | SET_GID)) {
    if (fchownat(fid->path, "", valid & SET_UID ? uid : (uid_t)-1,
                 valid & SET_GID ? gid : (gid_t)-1, AT_EMPTY_PATH))
      /* An ID that is not there without root's rights. */
      return errno == EINVAL ? EPERM : errno;
  }
  if (valid & SET_MODE && chmod(path_of(fid->path), mode & 07777)) return errno;
  if (valid & SET_SIZE) {
    int failed;
    if (size > INT64_MAX) return EFBIG;
    failed = fid->open >= 0 ? ftruncate(fid->open, (off_t)size) : -1;
    if (failed && truncate(path_of(fid->path), (off_t)size)) return errno;
  }
  if (valid & (SET_ATIME | SET_MTIME)) {
    if (!(valid & SET_ATIME))
      times[0].tv_nsec = UTIME_OMIT;
    else if (!(valid & SET_ATIME_TO))
      times[0].tv_nsec = UTIME_NOW;
    if (!(valid & SET_MTIME))
      times[1].tv_nsec = UTIME_OMIT;
    else if (!(valid & SET_MTIME_TO))
      times[1].tv_nsec = UTIME_NOW;
    if (utimensat(AT_FDCWD, path_of(fid->path), times, 0)) return errno;
  }
  return 0;
}

enum {
  FLAGS = O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_EXCL,
};

/* Opens the file of a descriptor; the guest opens what is neither file nor folder by itself. */
static int open_for(int path, uint32_t flags) {
  struct stat file;
  if (fstat(path, &file)) return -1;
  if (S_ISDIR(file.st_mode)) return reopen(path, O_RDONLY | O_DIRECTORY);
  if (!S_ISREG(file.st_mode)) {
    errno = ENXIO;
    return -1;
  }
  return reopen(path, (int)(flags & FLAGS & ~O_EXCL));
}

static int open_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  uint32_t flags = get32(in);
  int error;
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open >= 0) return EBADF;
  fid->open = open_for(fid->path, flags);
  if (fid->open < 0) return errno;
  error = put_qid_of(out, fid->path);
  /* The unit of reads and writes; 0: as much as a message has room for. */
  put32(out, 0);
  return error;
}

/* What open(2) leaves out or takes away: set-ID bits, after the file has its owner. */
static int finish(int path, struct fid *maker, uint32_t gid, uint32_t mode) {
  int error = give(path, maker->uid, gid);
  if (!error && mode & 07000 && chmod(path_of(path), mode & 07777))
    error = errno;
  return error;
}

static int create_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct name name;
  int error = get_name(in, &name), opened, path;
  uint32_t flags = get32(in), mode = get32(in), gid = get32(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open >= 0) return EBADF;
  if (error) return error;
  opened = openat(fid->path, name.text,
                  (int)(flags & FLAGS & ~O_EXCL) | O_CREAT | O_EXCL |
                      O_NOFOLLOW | O_CLOEXEC | O_NOCTTY,
                  mode & 0777);
  if (opened >= 0) {
    path = open(path_of(opened), O_PATH | O_CLOEXEC);
    error = path < 0 ? errno : finish(path, fid, gid, mode);
  } else {
    if (errno != EEXIST || flags & O_EXCL) return errno;
    /* Somebody else has made it since the guest looked. */
    path = open_entry(fid->path, name.text);
    if (path < 0) return errno;
    opened = open_for(path, flags);
    error = opened < 0 ? errno : 0;
  }
  if (!error) error = put_qid_of(out, path);
  if (error) {
    if (path >= 0) close(path);
    if (opened >= 0) close(opened);
    return error;
  }
  close(fid->path);
  fid->path = path;
  fid->open = opened;
  put32(out, 0);
  return 0;
}

/* The owner, and the qid, of what was just made in a folder. */
static int made(struct fid *folder, const char *name, uint32_t gid,
                uint32_t mode, struct reply *out) {
  int path = open_entry(folder->path, name), error;
  if (path < 0) return errno;
  error = finish(path, folder, gid, mode);
  if (!error) error = put_qid_of(out, path);
  close(path);
  return error;
}

static int make_folder(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct name name;
  int error = get_name(in, &name);
  uint32_t mode = get32(in), gid = get32(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (error) return error;
  if (mkdirat(fid->path, name.text, mode & 0777)) return errno;
  return made(fid, name.text, gid, mode, out);
}

static int make_link(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct name name;
  char target[4096];
  int error = get_name(in, &name);
  uint32_t gid;
  get_string(in, target, sizeof target);
  gid = get32(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (error) return error;
  if (symlinkat(target, fid->path, name.text)) return errno;
  return made(fid, name.text, gid, 0, out);
}

static int make_node(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct name name;
  int error = get_name(in, &name);
  uint32_t mode = get32(in), high = get32(in), low = get32(in),
           gid = get32(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (error) return error;
  if (mknodat(fid->path, name.text, mode & (S_IFMT | 0777), makedev(high, low)))
    return errno;
  return made(fid, name.text, gid, mode & 07777, out);
}

static int link_file(struct message *in, struct reply *out) {
  struct fid *folder = find_fid(get32(in)), *fid = find_fid(get32(in));
  struct name name;
  int error = get_name(in, &name);
  (void)out;
  if (in->bad) return EPROTO;
  if (!fid || !folder || fid->kind != PLAIN || folder->kind != PLAIN)
    return EBADF;
  if (error) return error;
  return linkat(AT_FDCWD, path_of(fid->path), folder->path, name.text,
                AT_SYMLINK_FOLLOW)
             ? errno
             : 0;
}

static int rename_file(struct message *in, struct reply *out) {
  struct fid *from = find_fid(get32(in)), *to;
  struct name name, new_name;
  int error = get_name(in, &name), new_error;
  (void)out;
  to = find_fid(get32(in));
  new_error = get_name(in, &new_name);
  if (in->bad) return EPROTO;
  if (!from || !to || from->kind != PLAIN || to->kind != PLAIN) return EBADF;
  if (error || new_error) return error ? error : new_error;
  return renameat(from->path, name.text, to->path, new_name.text) ? errno : 0;
}

static int unlink_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct name name;
  int error = get_name(in, &name);
  uint32_t flags = get32(in);
  (void)out;
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  if (error) return error;
  return unlinkat(fid->path, name.text,
                  flags & REMOVE_FOLDER ? AT_REMOVEDIR : 0)
             ? errno
             : 0;
}

static int read_link(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  char target[4096];
  ssize_t length;
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN) return EBADF;
  length = readlinkat(fid->path, "", target, sizeof target);
  if (length < 0) return errno;
  put_string(out, target, (size_t)length);
  return 0;
}

static int file_system(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct statfs system;
  if (in->bad) return EPROTO;
  if (!fid) return EBADF;
  if (fstatfs(fid->path, &system)) return errno;
  put32(out, V9FS_MAGIC);
  put32(out, (uint32_t)system.f_bsize);
  put64(out, system.f_blocks);
  put64(out, system.f_bfree);
  put64(out, system.f_bavail);
  put64(out, system.f_files);
  put64(out, system.f_ffree);
  put64(out, 0);
  put32(out, (uint32_t)system.f_namelen);
  return 0;
}

static int flush_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  uint32_t data_only = in->at < in->end ? get32(in) : 0;
  (void)out;
  if (in->bad) return EPROTO;
  if (!fid || fid->open < 0) return EBADF;
  return (data_only ? fdatasync(fid->open) : fsync(fid->open)) ? errno : 0;
}

static int read_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  uint64_t offset = get64(in);
  uint32_t count = get32(in);
  size_t room = limit - HEADER - 4;
  ssize_t length;
  if (in->bad) return EPROTO;
  if (!fid) return EBADF;
  if (count > room) count = (uint32_t)room;
  if (fid->kind == ATTRIBUTE_READ) {
    size_t rest = offset < fid->attribute.size ? fid->attribute.size - offset : 0;
    if (count > rest) count = (uint32_t)rest;
    put32(out, count);
    if (count > 0) put_bytes(out, fid->attribute.value + offset, count);
    return 0;
  }
  if (fid->kind != PLAIN || fid->open < 0) return EBADF;
  if (offset > INT64_MAX) return EINVAL;
  length = pread(fid->open, out->at + 4, count, (off_t)offset);
  if (length < 0) return errno;
  put32(out, (uint32_t)length);
  out->at += length;
  return 0;
}

static int write_file(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  uint64_t offset = get64(in);
  uint32_t count = get32(in);
  const uint8_t *bytes = get_bytes(in, count);
  ssize_t length;
  if (in->bad) return EPROTO;
  if (!fid) return EBADF;
  if (fid->kind == ATTRIBUTE_WRITE) {
    if (offset != fid->attribute.filled ||
        count > fid->attribute.size - fid->attribute.filled)
      return EINVAL;
    if (count > 0) memcpy(fid->attribute.value + offset, bytes, count);
    fid->attribute.filled += count;
    put32(out, count);
    return 0;
  }
  if (fid->kind != PLAIN || fid->open < 0) return EBADF;
  if (offset > INT64_MAX) return EINVAL;
  length = pwrite(fid->open, bytes, count, (off_t)offset);
  if (length < 0) return errno;
  put32(out, (uint32_t)length);
  return 0;
}

static mode_t mode_of(unsigned char type) { return (mode_t)DTTOIF(type); }

struct entry {
  uint64_t inode;
  int64_t next;
  unsigned short length;
  unsigned char type;
  char name[];
};

static int read_folder(struct message *in, struct reply *out) {
  static _Alignas(8) uint8_t entries[64 * 1024];
  struct fid *fid = find_fid(get32(in));
  uint64_t offset = get64(in);
  uint32_t count = get32(in);
  uint8_t *counter = out->at, *end;
  struct stat folder;
  size_t room = limit - HEADER - 4;
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open < 0) return EBADF;
  if (offset > INT64_MAX) return EINVAL;
  if (count > room) count = (uint32_t)room;
  if (fstat(fid->open, &folder)) return errno;
  if (!S_ISDIR(folder.st_mode)) return ENOTDIR;
  if (lseek(fid->open, (off_t)offset, SEEK_SET) < 0) return errno;
  put32(out, 0);
  end = out->at + count;
  for (;;) {
    long length = syscall(SYS_getdents64, fid->open, entries, sizeof entries);
    if (length < 0) return errno;
    if (length == 0) break;
    for (long at = 0; at < length;) {
      struct entry *entry = (struct entry *)(entries + at);
      size_t name = strlen(entry->name);
      if ((size_t)(end - out->at) < 13 + 8 + 1 + 2 + name) goto full;
      put_qid(out, mode_of(entry->type), folder.st_dev, entry->inode);
      put64(out, (uint64_t)entry->next);
      put8(out, entry->type);
      put_string(out, entry->name, name);
      at += entry->length;
    }
  }
full:
  count = (uint32_t)(out->at - counter - 4);
  out->at = counter;
  put32(out, count);
  out->at += count;
  return 0;
}

/* --- Extended attributes --- */

/* Names that the guest's kernel cannot read back are left out of the list. */
static size_t listed(char *names, size_t size) {
  size_t kept = 0;
  for (size_t at = 0; at < size;) {
    size_t length = strnlen(names + at, size - at) + 1;
    if (at + length > size) break;
    if (strncmp(names + at, "system.", 7)) {
      memmove(names + kept, names + at, length);
      kept += length;
    }
    at += length;
  }
  return kept;
}

static int read_attribute(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in)), *result;
  uint32_t id = get32(in);
  char name[256];
  uint8_t *value;
  ssize_t size;
  int path;
  get_string(in, name, sizeof name);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || find_fid(id)) return EBADF;
  value = malloc(MAX_ATTRIBUTE);
  if (!value) return ENOMEM;
  size = name[0] ? getxattr(path_of(fid->path), name, value, MAX_ATTRIBUTE)
                 : listxattr(path_of(fid->path), (char *)value, MAX_ATTRIBUTE);
  if (size < 0) {
    int error = errno;
    free(value);
    /* Symbolic links and special files have none that a user may set. */
    return error == EPERM || error == ELOOP ? ENODATA : error;
  }
  if (!name[0]) size = (ssize_t)listed((char *)value, (size_t)size);
  path = fcntl(fid->path, F_DUPFD_CLOEXEC, 0);
  result = path < 0 ? NULL : add_fid(id, path, fid->uid);
  if (!result) {
    if (path >= 0) close(path);
    free(value);
    return EMFILE;
  }
  result->kind = ATTRIBUTE_READ;
  result->attribute.value = value;
  result->attribute.size = (size_t)size;
  put64(out, (uint64_t)size);
  return 0;
}

static int begin_attribute(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  char name[256];
  uint64_t size;
  uint32_t flags;
  (void)out;
  get_string(in, name, sizeof name);
  size = get64(in);
  flags = get32(in);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open >= 0) return EBADF;
  if (!name[0]) return EINVAL;
  if (size > MAX_ATTRIBUTE) return E2BIG;
  fid->attribute.value = malloc(size > 0 ? size : 1);
  if (!fid->attribute.value) return ENOMEM;
  fid->kind = ATTRIBUTE_WRITE;
  strcpy(fid->attribute.name, name);
  fid->attribute.size = size;
  fid->attribute.filled = 0;
  fid->attribute.flags = (int)(flags & (XATTR_CREATE | XATTR_REPLACE));
  return 0;
}

/* A written attribute takes effect when its handle is closed; nothing, in place of one, removes it. */
static int end_attribute(struct fid *fid) {
  const char *path = path_of(fid->path);
  if (fid->attribute.filled < fid->attribute.size) return EINVAL;
  if (fid->attribute.size == 0 && fid->attribute.flags == XATTR_REPLACE)
    return removexattr(path, fid->attribute.name) ? errno : 0;
  return setxattr(path, fid->attribute.name, fid->attribute.value,
                  fid->attribute.size, fid->attribute.flags)
             ? errno
             : 0;
}

static int clunk(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  int error = 0;
  (void)out;
  if (in->bad) return EPROTO;
  if (!fid) return EBADF;
  if (fid->kind == ATTRIBUTE_WRITE) error = end_attribute(fid);
  drop_fid(fid);
  return error;
}

/* Linux asks to unlink a name in its folder and never for this; the handle is gone in any case. */
static int remove_file(struct message *in, struct reply *out) {
  int error = clunk(in, out);
  return error ? error : EOPNOTSUPP;
}

/* --- Locks --- */

/* Answers later, with `tag`, where the lock may be waited for. */
static bool wait_for(uint16_t tag, uint32_t fid, const struct lock *lock) {
  struct waiting *one;
  if (waiting_count >= MAX_WAITING || !(one = malloc(sizeof *one)))
    return false;
  *one = (struct waiting){tag, fid, *lock, waiting};
  waiting = one;
  waiting_count++;
  return true;
}

static int lock_file(struct message *in, struct reply *out, uint16_t tag,
                     bool *later) {
  struct fid *fid = find_fid(get32(in));
  struct lock lock;
  char client[1024];
  uint32_t flags;
  uint8_t status;
  lock.type = get8(in);
  flags = get32(in);
  lock.start = get64(in);
  lock.length = get64(in);
  lock.process = get32(in);
  get_string(in, client, sizeof client);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open < 0) return EBADF;
  status = take_lock(fid, &lock);
  if (status == LOCK_BLOCKED && flags & LOCK_MAY_WAIT &&
      wait_for(tag, fid->id, &lock)) {
    *later = true;
    return 0;
  }
  put8(out, status);
  return 0;
}

static int find_lock(struct message *in, struct reply *out) {
  struct fid *fid = find_fid(get32(in));
  struct lock lock;
  char client[1024];
  int error;
  lock.type = get8(in);
  lock.start = get64(in);
  lock.length = get64(in);
  lock.process = get32(in);
  size_t length = get_string(in, client, sizeof client);
  if (in->bad) return EPROTO;
  if (!fid || fid->kind != PLAIN || fid->open < 0) return EBADF;
  error = test_lock(fid, &lock);
  if (error) return error;
  put8(out, lock.type);
  put64(out, lock.start);
  put64(out, lock.length);
  put32(out, lock.process);
  put_string(out, client, length);
  return 0;
}

static int cancel(struct message *in, struct reply *out) {
  uint16_t tag = get16(in);
  struct waiting **link = &waiting, *one;
  (void)out;
  if (in->bad) return EPROTO;
  while ((one = *link)) {
    if (one->tag == tag) {
      *link = one->next;
      waiting_count--;
      free(one);
    } else {
      link = &one->next;
    }
  }
  return 0;
}

/* --- Messages --- */

static void begin_answer(struct reply *out, uint8_t *bytes, uint8_t type,
                         uint16_t tag) {
  *out = (struct reply){bytes, bytes, bytes + limit, false};
  put32(out, 0);
  put8(out, type);
  put16(out, tag);
}

static long end_answer(struct reply *out) {
  long length = out->at - out->start;
  out->at = out->start;
  put32(out, (uint32_t)length);
  return length;
}

static long refuse(uint8_t *bytes, uint16_t tag, int error) {
  struct reply out;
  begin_answer(&out, bytes, Rlerror, tag);
  put32(&out, (uint32_t)error);
  return end_answer(&out);
}

bool locks_wait(void) { return waiting != NULL; }

long answer_waiting_lock(uint8_t *answer) {
  struct waiting **link = &waiting, *one;
  while ((one = *link)) {
    struct fid *fid = find_fid(one->fid);
    uint8_t status = fid ? take_lock(fid, &one->lock) : LOCK_FAILED;
    if (status != LOCK_BLOCKED) {
      struct reply out;
      begin_answer(&out, answer, Tlock + 1, one->tag);
      put8(&out, status);
      *link = one->next;
      waiting_count--;
      free(one);
      return end_answer(&out);
    }
    link = &one->next;
  }
  return 0;
}

long answer_message(const uint8_t *bytes, size_t length, uint8_t *answer) {
  struct message in = {bytes + 4, bytes + length, false};
  struct reply out;
  uint8_t type = get8(&in);
  uint16_t tag = get16(&in);
  bool later = false;
  int error;

  begin_answer(&out, answer, (uint8_t)(type + 1), tag);
  switch (type) {
    case Tversion: error = version(&in, &out); break;
    case Tattach: error = attach(&in, &out); break;
    case Twalk: error = walk(&in, &out); break;
    case Tgetattr: error = get_attributes(&in, &out); break;
    case Tsetattr: error = set_attributes(&in, &out); break;
    case Tlopen: error = open_file(&in, &out); break;
    case Tlcreate: error = create_file(&in, &out); break;
    case Tmkdir: error = make_folder(&in, &out); break;
    case Tsymlink: error = make_link(&in, &out); break;
    case Tmknod: error = make_node(&in, &out); break;
    case Tlink: error = link_file(&in, &out); break;
    case Trenameat: error = rename_file(&in, &out); break;
    case Tunlinkat: error = unlink_file(&in, &out); break;
    case Treadlink: error = read_link(&in, &out); break;
    case Tstatfs: error = file_system(&in, &out); break;
    case Tfsync: error = flush_file(&in, &out); break;
    case Tread: error = read_file(&in, &out); break;
    case Twrite: error = write_file(&in, &out); break;
    case Treaddir: error = read_folder(&in, &out); break;
    case Txattrwalk: error = read_attribute(&in, &out); break;
    case Txattrcreate: error = begin_attribute(&in, &out); break;
    case Tclunk: error = clunk(&in, &out); break;
    case Tremove: error = remove_file(&in, &out); break;
    case Tlock: error = lock_file(&in, &out, tag, &later); break;
    case Tgetlock: error = find_lock(&in, &out); break;
    case Tflush: error = cancel(&in, &out); break;
    default: error = EOPNOTSUPP;
  }
  if (later) return 0;
  if (type == Tversion && error) return -1;
  if (!error && out.full) error = EMSGSIZE;
  return error ? refuse(answer, tag, error) : end_answer(&out);
}
