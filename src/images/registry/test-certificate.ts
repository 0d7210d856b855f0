/** For tests: a self-signed certificate for 127.0.0.1. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

export function makeCertificate(
  folder: string,
  name = "IP:127.0.0.1",
): { cert: string; key: string } {
  const key = join(folder, "self.key");
  const cert = join(folder, "self.pem");
  execFileSync(
    "openssl",
    [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(
        " ",
      ),
      ...["-subj", "/CN=test", "-addext", `subjectAltName=${name}`],
      ...["-keyout", key, "-out", cert],
    ],
    { stdio: "pipe" },
  );
  return { cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8") };
}
