import { X509Certificate } from "node:crypto";
import { lookup } from "node:dns/promises";
import { readdir, readFile } from "node:fs/promises";
import { BlockList, isIP } from "node:net";
import { join } from "node:path";
import { InvalidParameter, SystemError } from "../../errors.js";

/** How registries are reached. */
export interface RegistryOptions {
  /** Base URLs asked for images of docker.io before docker.io itself. */
  mirrors: readonly string[];
  /** "host", "host:port" or an address block such as "10.0.0.0/8": TLS is not verified, plain HTTP allowed. */
  insecure: readonly string[];
  /** Folders with one folder a registry ("host:port") that holds *.crt (CAs) and *.cert with *.key. */
  certificateFolders: readonly string[];
}

/** One way to a registry. */
export interface Endpoint {
  /** Without a trailing slash. */
  base: string;
  /** Its failures are not the user's business: the next endpoint is asked. */
  mirror: boolean;
  tls: TlsSettings;
}

export interface TlsSettings {
  verify: boolean;
  /** PEM; empty when only the system's are trusted. */
  ca: string[];
  certificates: { cert: string; key: string }[];
}

const DOCKER_HUB = "registry-1.docker.io";

/**
 * The endpoints of a registry, in the order they are to be tried.
 * @param domain as in a reference: "docker.io", "host:port"
 */
export async function endpointsOf(
  domain: string,
  options: RegistryOptions,
): Promise<Endpoint[]> {
  if (domain !== "docker.io") return ofHost(domain, options);
  const endpoints: Endpoint[] = [];
  for (const mirror of options.mirrors) {
    const url = parseMirror(mirror);
    endpoints.push({
      base: url.href.replace(/\/+$/, ""),
      mirror: true,
      tls: await tlsSettings(url.host, options),
    });
  }
  return [...endpoints, ...(await ofHost(DOCKER_HUB, options))];
}

/** @throws {InvalidParameter} no URL of a registry */
export function parseMirror(mirror: string): URL {
  const url = URL.canParse(mirror) ? new URL(mirror) : undefined;
  if (
    url === undefined ||
    (url.protocol !== "http:" && url.protocol !== "https:") ||
    url.username !== "" ||
    url.search !== "" ||
    url.hash !== ""
  ) {
    throw new InvalidParameter(
      `invalid mirror: ${JSON.stringify(mirror)} is not the URL of a registry`,
    );
  }
  return url;
}

async function ofHost(
  host: string,
  options: RegistryOptions,
): Promise<Endpoint[]> {
  const tls = await tlsSettings(host, options);
  const endpoints = [{ base: `https://${host}`, mirror: false, tls }];
  if (!tls.verify)
    endpoints.push({ base: `http://${host}`, mirror: false, tls });
  return endpoints;
}

/** How TLS is to be spoken with a host ("host:port"). */
export async function tlsSettings(
  host: string,
  options: RegistryOptions,
): Promise<TlsSettings> {
  return {
    verify: !(await isInsecure(host, options.insecure)),
    ...(await readCertificates(host, options.certificateFolders)),
  };
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Whether a host may be talked to without (verified) TLS: as Docker, all of loopback may. */
export async function isInsecure(
  host: string,
  insecure: readonly string[],
): Promise<boolean> {
  const { hostname } = new URL(`http://${host}`);
  const name = hostname.replace(/^\[|\]$/g, "");
  if (insecure.includes(host) || insecure.includes(name)) return true;
  if (name === "localhost") return true;
  const blocks = new BlockList();
  let anyBlock = false;
  for (const entry of insecure) {
    const match = /^(.*)\/(\d{1,3})$/.exec(entry);
    if (match === null) continue;
    const [, address = "", length] = match;
    const version = isIP(address);
    if (version === 0 || Number(length) > (version === 4 ? 32 : 128)) continue;
    blocks.addSubnet(address, Number(length), family(version));
    anyBlock = true;
  }
  const inside = (address: string): boolean => {
    const version = family(isIP(address));
    return LOOPBACK.check(address, version) || blocks.check(address, version);
  };
  if (isIP(name) !== 0) return inside(name);
  if (!anyBlock) return false;
  try {
    const addresses = await lookup(name, { all: true });
    return addresses.some(({ address }) => inside(address));
  } catch {
    return false;
  }
}

function family(version: number): "ipv4" | "ipv6" {
  return version === 6 ? "ipv6" : "ipv4";
}

async function readCertificates(
  host: string,
  folders: readonly string[],
): Promise<Pick<TlsSettings, "ca" | "certificates">> {
  const ca: string[] = [];
  const certificates: { cert: string; key: string }[] = [];
  for (const folder of folders) {
    const directory = join(folder, host);
    let names: string[];
    try {
      names = (await readdir(directory)).sort();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENOTDIR") continue;
      throw new SystemError(
        `cannot read certificates in ${directory}: ${(error as Error).message}`,
        { cause: error },
      );
    }
    for (const name of names) {
      if (name.endsWith(".crt")) {
        ca.push(await readCertificate(join(directory, name)));
      } else if (name.endsWith(".cert")) {
        const key = `${name.slice(0, -".cert".length)}.key`;
        if (!names.includes(key)) {
          throw new SystemError(
            `missing key ${key} for client certificate ${name} in ${directory}. CA certificates must use the extension .crt`,
          );
        }
        certificates.push({
          cert: await readCertificate(join(directory, name)),
          key: await readFile(join(directory, key), "utf8"),
        });
      }
    }
  }
  return { ca, certificates };
}

/** @throws {SystemError} the file is no certificate: TLS itself would only ignore it */
async function readCertificate(path: string): Promise<string> {
  const pem = await readFile(path, "utf8");
  try {
    new X509Certificate(pem);
  } catch (error) {
    throw new SystemError(
      `${path} is not a certificate: ${(error as Error).message}`,
      { cause: error },
    );
  }
  return pem;
}
