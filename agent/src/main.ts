/** PID 1 of the guest. */
import { Agent } from "./agent.js";
import { mountSystem, openPort, protectSelf } from "./boot.js";

mountSystem();
protectSelf();
new Agent(openPort()).run();
