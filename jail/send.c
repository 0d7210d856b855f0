/*
 * For node, which cannot: send(socket, bytes, descriptors) sends bytes over a Unix socket, open files with
 * them (unix(7), SCM_RIGHTS).
 *
 * Returns how many bytes were sent, or, when none were, minus the error's number. With the first byte sent
 * all the files are.
 */
#include <errno.h>
#include <node_api.h>
#include <string.h>
#include <sys/socket.h>

enum { MOST = 8 };

static napi_value refuse(napi_env env, const char *why) {
  napi_throw_type_error(env, NULL, why);
  return NULL;
}

static napi_value send_files(napi_env env, napi_callback_info info) {
  napi_value argument[3], element, result;
  size_t count = 3, length;
  int32_t socket, files[MOST];
  uint32_t amount;
  void *bytes;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof files)];
  } control;

  if (napi_get_cb_info(env, info, &count, argument, NULL, NULL) != napi_ok ||
      count != 3 ||
      napi_get_value_int32(env, argument[0], &socket) != napi_ok ||
      napi_get_buffer_info(env, argument[1], &bytes, &length) != napi_ok ||
      napi_get_array_length(env, argument[2], &amount) != napi_ok)
    return refuse(env, "send(socket, bytes, descriptors)");
  if (length == 0 || amount == 0 || amount > MOST)
    return refuse(env, "send: nothing, or too much, to send");
  for (uint32_t i = 0; i < amount; i++)
    if (napi_get_element(env, argument[2], i, &element) != napi_ok ||
        napi_get_value_int32(env, element, &files[i]) != napi_ok)
      return refuse(env, "send: a descriptor is a number");

  memset(&control, 0, sizeof control);
  struct iovec data = {bytes, length};
  struct msghdr message = {.msg_iov = &data,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = CMSG_SPACE(amount * sizeof *files)};
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(amount * sizeof *files);
  memcpy(CMSG_DATA(&control.header), files, amount * sizeof *files);
  ssize_t sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (napi_create_int32(env, sent < 0 ? -errno : (int32_t)sent, &result) !=
      napi_ok)
    return NULL;
  return result;
}

NAPI_MODULE_INIT() {
  napi_value function;
  if (napi_create_function(env, "send", NAPI_AUTO_LENGTH, send_files, NULL,
                           &function) != napi_ok ||
      napi_set_named_property(env, exports, "send", function) != napi_ok)
    return NULL;
  return exports;
}
