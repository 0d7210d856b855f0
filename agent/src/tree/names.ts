/** Names as bytes, and as the text that requests and answers are made of. */
import type { Bytes } from "../sys.js";

export function toBytes(text: string): Bytes {
  const bytes = sys.encode(text);
  return sys.bytesToText(bytes, 0, bytes.byteLength);
}

/** What is no UTF-8 becomes U+FFFD. */
export function toText(name: Bytes): string {
  const bytes = new ArrayBuffer(name.length);
  const length = sys.textToBytes(name, bytes, 0);
  return sys.decode(bytes, 0, length);
}

/** Go's path.Clean for an absolute path. */
export function cleanPath(path: Bytes): Bytes {
  const parts: Bytes[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/**
 * The path that the Engine works with: clean and absolute, except that "/" and "/." at the end are kept,
 * by which a symbolic link to a folder is followed.
 */
export function enginePath(path: Bytes): Bytes {
  const clean = cleanPath(path);
  if (clean === "/") return path.endsWith("/.") || path === "." ? "/." : "/";
  if (path.endsWith("/.")) return `${clean}/.`;
  return path.endsWith("/") ? `${clean}/` : clean;
}

/** Go's path.Base. */
export function baseName(path: Bytes): Bytes {
  let end = path.length;
  while (end > 1 && path.charAt(end - 1) === "/") end--;
  if (end === 1 && path.charAt(0) === "/") return "/";
  return path.slice(path.lastIndexOf("/", end - 1) + 1, end);
}
