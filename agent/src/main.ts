/** PID 1 of the guest. */
import { Agent } from "./agent.js";
import { mountSystem, openPort } from "./boot.js";

mountSystem();
new Agent(openPort()).run();
