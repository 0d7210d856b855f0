import { Filters } from "./filters.js";

/** What happened, as a service tells it. */
export interface EventInput {
  Type: EventType;
  /** "create", "start", "die", …; for execs and health checks "exec_start: sh", "health_status: healthy". */
  Action: string;
  Actor: {
    /** ID (or, for images and volumes, the name) of the object. */
    ID: string;
    Attributes: Record<string, string>;
  };
}

export type EventType =
  "builder" | "container" | "daemon" | "image" | "network" | "volume";

/** An event as the API shows it (EventMessage in the Engine API specification). */
export interface EventMessage extends EventInput {
  /** The older names of Action, Actor.ID and the image: containers and images only. */
  status?: string;
  id?: string;
  from?: string;
  scope: "local";
  /** Seconds since the epoch. */
  time: number;
  /** Nanoseconds since the epoch, exact to 256 ns; no two events have the same. */
  timeNano: number;
}

/** How many past events are kept for `since`. */
const HISTORY = 1000;
/** Two events of one millisecond are told apart by this many nanoseconds. */
const TICK = 1024;

/** Where services tell what they did, and clients of `/events` (and other services) hear it. */
export class EventBus {
  readonly #history: EventMessage[] = [];
  readonly #listeners = new Map<symbol, (event: EventMessage) => void>();
  #last = 0;

  /** Tells everyone. Never throws: a listener's failure is the listener's own. */
  publish(event: EventInput): EventMessage {
    const timeNano = Math.max(Date.now() * 1e6, this.#last + TICK);
    this.#last = timeNano;
    const message: EventMessage = {
      ...deprecatedFields(event),
      Type: event.Type,
      Action: event.Action,
      Actor: {
        ID: event.Actor.ID,
        Attributes: { ...event.Actor.Attributes },
      },
      scope: "local",
      time: Math.floor(timeNano / 1e9),
      timeNano,
    };
    this.#history.push(message);
    if (this.#history.length > HISTORY) this.#history.shift();
    for (const listener of [...this.#listeners.values()]) {
      try {
        listener(message);
      } catch {
        // The others still want to hear it.
      }
    }
    return message;
  }

  /**
   * Hears every later event that passes the filters. Listeners are called from within `publish`, so
   * they only take note.
   * @returns ends the subscription
   */
  subscribe(
    listener: (event: EventMessage) => void,
    filters: Filters = new Filters(),
  ): () => void {
    const key = Symbol("subscription");
    this.#listeners.set(key, (event) => {
      if (matches(event, filters)) listener(event);
    });
    return () => {
      this.#listeners.delete(key);
    };
  }

  /** How many subscriptions there are. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /** Past events between two times (nanoseconds since the epoch, both included), oldest first. */
  history(
    since: number,
    until = Number.POSITIVE_INFINITY,
    filters: Filters = new Filters(),
  ): EventMessage[] {
    return this.#history.filter(
      (event) =>
        event.timeNano >= since &&
        event.timeNano <= until &&
        matches(event, filters),
    );
  }
}

function deprecatedFields(event: EventInput): Partial<EventMessage> {
  const { Action: status, Actor } = event;
  if (event.Type === "image") return { status, id: Actor.ID };
  if (event.Type !== "container") return {};
  const from = Actor.Attributes["image"];
  return { status, id: Actor.ID, ...(from === undefined ? {} : { from }) };
}

/** Names that match an object's ID or name by prefix, whatever the event's type. */
const NAMES = [
  "daemon",
  "container",
  "plugin",
  "volume",
  "network",
  "node",
  "service",
  "secret",
  "config",
];
/** Actions that carry more after a colon: filtering by the part before it is enough. */
const OPEN_ACTIONS = ["health_status", "exec_create", "exec_start"];

/** Whether an event passes the filters of `GET /events`. */
export function matches(event: EventMessage, filters: Filters): boolean {
  if (filters.size === 0) return true;
  const { ID, Attributes } = event.Actor;
  const open = filters
    .get("event")
    .some((action) => OPEN_ACTIONS.includes(action));
  const image = Attributes[event.Type === "image" ? "name" : "image"] ?? "";
  return (
    (open
      ? filters.fuzzyMatch("event", event.Action)
      : filters.exactMatch("event", event.Action)) &&
    filters.exactMatch("type", event.Type) &&
    filters.exactMatch("scope", event.scope) &&
    NAMES.every(
      (name) =>
        filters.fuzzyMatch(name, ID) ||
        filters.fuzzyMatch(name, Attributes["name"] ?? ""),
    ) &&
    [ID, image, withoutTag(ID), withoutTag(image)].some((name) =>
      filters.exactMatch("image", name),
    ) &&
    filters.matchPairs("label", Attributes)
  );
}

/** The repository of an image reference, without tag and digest. */
function withoutTag(reference: string): string {
  const name = reference.split("@", 1)[0] ?? "";
  const colon = name.lastIndexOf(":");
  return colon > name.lastIndexOf("/") ? name.slice(0, colon) : name;
}
