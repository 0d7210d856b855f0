/** Events of containers, with the attributes Docker gives them. */
import type { EventBus } from "../events.js";
import type { Container } from "./container.js";

/** Tells that something happened to a container. */
export type Tell = (
  container: Container,
  action: string,
  more?: Record<string, string>,
) => void;

export function teller(events: EventBus): Tell {
  return (container, action, more = {}) => {
    const { config, name } = container.record;
    events.publish({
      Type: "container",
      Action: action,
      Actor: {
        ID: container.id,
        Attributes: { ...config.Labels, image: config.Image, name, ...more },
      },
    });
  };
}
