export * from "./defaults.js";
export * from "./frame.js";
export * from "./messages.js";
