/** The guest broke the rules of the channel. Closes the channel; the message is its reason. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}
