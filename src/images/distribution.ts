import { shortId } from "./digest.js";
import {
  type Index,
  parseConfig,
  parseManifest,
  MAX_CONFIG,
} from "./manifest.js";
import type { Reference } from "./reference.js";
import type { RegistryClient } from "./registry/client.js";
import type { Credentials } from "./registry/credentials.js";
import { SystemError } from "../errors.js";

/** DistributionInspect of the specification. */
export interface DistributionInspect {
  Descriptor: { mediaType: string; digest: string; size: number };
  Platforms: { architecture: string; os: string; variant?: string }[];
}

/**
 * Asks a registry what it has under a reference.
 * @throws {RegistryError} {@link SystemError}
 */
export function inspectDistribution(
  registry: RegistryClient,
  reference: Reference,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<DistributionInspect> {
  return registry.withRepository(
    reference,
    credentials,
    signal,
    async (repository) => {
      const name = reference.digest ?? reference.tag ?? "latest";
      const answer = await repository.manifest(name, signal);
      const document = parseManifest(answer.bytes, answer.mediaType);
      const descriptor = {
        mediaType: document.value.mediaType ?? answer.mediaType,
        digest: answer.digest,
        size: answer.bytes.length,
      };
      if (document.kind === "index") {
        return { Descriptor: descriptor, Platforms: platforms(document.value) };
      }
      const { digest, size } = document.value.config;
      if (size > MAX_CONFIG) {
        throw new SystemError(`image config ${shortId(digest)} is too long`);
      }
      const config = parseConfig(
        await repository.smallBlob(digest, size, signal),
      );
      return {
        Descriptor: descriptor,
        Platforms: [platformView(config)],
      };
    },
  );
}

function platforms(index: Index): DistributionInspect["Platforms"] {
  return index.manifests.flatMap(({ platform }) =>
    platform === undefined ? [] : [platformView(platform)],
  );
}

function platformView({
  architecture,
  os,
  variant,
}: {
  architecture: string;
  os: string;
  variant: string;
}): DistributionInspect["Platforms"][number] {
  return { architecture, os, ...(variant === "" ? {} : { variant }) };
}
