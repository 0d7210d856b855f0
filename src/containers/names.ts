/** Container names and IDs. */
import { randomBytes, randomInt } from "node:crypto";
import { InvalidParameter } from "../errors.js";

const ADJECTIVES = (
  "agile amber ardent bold brave breezy bright brisk calm candid cheerful clear clever cosy crisp " +
  "curious daring deft eager earnest easy elegant fair fearless festive firm fond frank fresh gallant " +
  "gentle gifted glad golden graceful grand happy hardy hearty honest hopeful humble jolly jovial keen " +
  "kind lively loyal lucid lucky mellow merry mighty modest neat nimble noble patient peaceful placid " +
  "playful polite proud quick quiet radiant ready robust serene sharp sincere sleek smooth snappy sober " +
  "solid sound spirited steady stoic sturdy sunny swift tidy tranquil trusty upbeat valiant vivid warm " +
  "wise witty worthy zealous zesty"
).split(" ");

/** Ships and sea-farers' things: containers travel in hulls. */
const NOUNS = (
  "anchor ark barge barque beacon bollard boom bosun bow bowsprit bridge brig buoy cabin caravel clipper " +
  "cog compass corvette crane current cutter deck derrick dhow dinghy dock dory ferry fleet forecastle " +
  "frigate galleon galley gangway hatch harbour haven hawser helm hold jetty jib junk keel kayak ketch " +
  "lagoon lantern lateen launch lighter lock lugger mast mizzen mooring navigator oar packet pier pilot " +
  "pinnace porthole prow pump punt quay raft rigging rudder sail schooner scow sextant shallop skiff " +
  "skipper sloop spar spinnaker stern tender tide tiller topsail trawler trimaran tug wharf wherry winch " +
  "windlass xebec yacht yawl"
).split(" ");

/** A 64 hex digit container (or exec) ID. */
export function newId(): string {
  return randomBytes(32).toString("hex");
}

/** A name like "brave_clipper"; with a number behind it when tries before it were taken. */
export function randomName(attempt: number): string {
  const base = `${pick(ADJECTIVES)}_${pick(NOUNS)}`;
  return attempt === 0 ? base : `${base}${randomInt(10 * attempt)}`;
}

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)] as string;
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/**
 * Checks a name a user chose and takes a leading slash off.
 * @throws {InvalidParameter} with Docker's words
 */
export function checkName(name: string): string {
  const bare = name.startsWith("/") ? name.slice(1) : name;
  if (!NAME.test(bare)) {
    throw new InvalidParameter(
      `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
    );
  }
  return bare;
}
