import { initialState } from "./container.js";
import { type ContainerRecord, NEVER, RECORD_VERSION } from "./record.js";

/** The record of a container that was asked for without a wish, and has no name. */
export function plainRecord(
  hostname: string,
  argv: readonly string[],
): ContainerRecord {
  return {
    version: RECORD_VERSION,
    id: "",
    name: "",
    created: NEVER,
    imageId: "",
    config: {
      Hostname: hostname,
      Domainname: "",
      User: "",
      AttachStdin: false,
      AttachStdout: false,
      AttachStderr: false,
      Tty: false,
      OpenStdin: false,
      StdinOnce: false,
      Env: [],
      Cmd: null,
      Image: "",
      Volumes: null,
      WorkingDir: "",
      Entrypoint: null,
      OnBuild: null,
      Labels: {},
    },
    hostConfig: {},
    networks: [],
    argv: [...argv],
    state: initialState(),
    restartCount: 0,
    endpoints: [],
    diskBytes: 0,
  };
}
