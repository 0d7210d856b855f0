/**
 * Who a process runs as, from the container's own passwd and group files, as Docker resolves it
 * (github.com/moby/sys/user, GetExecUser and GetAdditionalGroups). Pure functions of the files' text.
 */
import { Failure } from "./failure.js";

/** A resolved user. */
export interface ExecUser {
  uid: number;
  gid: number;
  /** Supplementary groups; the primary one is among them, as Docker has it. */
  groups: number[];
  home: string;
}

interface PasswdEntry {
  name: string;
  uid: number;
  gid: number;
  home: string;
}

interface GroupEntry {
  name: string;
  gid: number;
  members: string[];
}

/** The container's passwd and group files. */
export interface UserFiles {
  passwd: PasswdEntry[];
  group: GroupEntry[];
}

const MAX_ID = 2 ** 31 - 1;

export function parseUserFiles(passwd: string, group: string): UserFiles {
  return { passwd: parsePasswd(passwd), group: parseGroup(group) };
}

/** Entries of a passwd file. Malformed fields read as 0 and "", as Docker reads them. */
export function parsePasswd(text: string): PasswdEntry[] {
  return lines(text).map((line) => {
    const fields = line.split(":");
    return {
      name: fields[0] ?? "",
      uid: number(fields[2]) ?? 0,
      gid: number(fields[3]) ?? 0,
      home: fields[5] ?? "",
    };
  });
}

/** Entries of a group file. */
function parseGroup(text: string): GroupEntry[] {
  return lines(text).map((line) => {
    const fields = line.split(":");
    return {
      name: fields[0] ?? "",
      gid: number(fields[2]) ?? 0,
      members: fields[3] ? fields[3].split(",") : [],
    };
  });
}

/**
 * Resolves "", "user", "uid", "user:group", "uid:gid" and their mixtures.
 * @param extraGroups names or numbers of --group-add
 * @throws {Failure} `no-such-user`, worded as Docker words it
 */
export function resolveUser(
  spec: string,
  extraGroups: string[],
  files: UserFiles,
): ExecUser {
  const parts = spec.split(":");
  const userPart = parts[0] ?? "";
  const groupPart = parts[1] ?? "";
  const user: ExecUser = { uid: 0, gid: 0, groups: [], home: "/" };

  const uid = number(userPart);
  const entry = files.passwd.find((candidate) => {
    if (userPart === "") return candidate.uid === 0;
    // A number is always an ID, also when a user is named so.
    return uid !== undefined
      ? candidate.uid === uid
      : candidate.name === userPart;
  });
  if (entry) {
    user.uid = entry.uid;
    user.gid = entry.gid;
    user.home = entry.home;
  } else if (userPart !== "") {
    if (uid === undefined)
      throw noSuchUser(
        `unable to find user ${userPart}: no matching entries in passwd file`,
      );
    user.uid = inRange(uid);
  }

  const allGroups = files.group;
  const groups: number[] = [];
  if (groupPart !== "") {
    user.gid = findGroup(groupPart, allGroups, "unable to find group");
  } else if (entry) {
    for (const group of allGroups)
      if (group.members.includes(entry.name)) groups.push(group.gid);
  }
  for (const extra of extraGroups)
    groups.push(findGroup(extra, allGroups, "unable to find group"));
  user.groups = [...new Set([user.gid, ...groups])];
  return user;
}

function findGroup(
  wanted: string,
  groups: GroupEntry[],
  error: string,
): number {
  const gid = number(wanted);
  const group = groups.find((candidate) =>
    gid !== undefined ? candidate.gid === gid : candidate.name === wanted,
  );
  if (group) return group.gid;
  if (gid === undefined)
    throw noSuchUser(`${error} ${wanted}: no matching entries in group file`);
  return inRange(gid);
}

function inRange(id: number): number {
  if (id < 0 || id > MAX_ID)
    throw noSuchUser(`uids and gids must be in range 0-${MAX_ID}`);
  return id;
}

function noSuchUser(message: string): Failure {
  return new Failure("no-such-user", message);
}

/** Lines that count: no comments, no empty ones. */
function lines(text: string): string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/** A decimal number with an optional sign; undefined for anything else. */
function number(text: string | undefined): number | undefined {
  if (!text || text.length > 15) return undefined;
  const digits = text[0] === "-" || text[0] === "+" ? text.slice(1) : text;
  if (digits === "") return undefined;
  for (const digit of digits) if (digit < "0" || digit > "9") return undefined;
  return Number(text);
}
