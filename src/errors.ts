/**
 * The errors services throw. Services know nothing of HTTP: src/engine-api maps each class to a status
 * code in one place. The message is what the user reads, so it is worded as Docker words it.
 */
export abstract class HullError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** The request cannot be understood or names an impossible value (400). */
export class InvalidParameter extends HullError {}
/** Credentials are missing or wrong (401). */
export class Unauthorized extends HullError {}
/** Access is refused whoever asks (403). */
export class Forbidden extends HullError {}
/** What was asked for does not exist (404). */
export class NotFound extends HullError {}
/** The state of things does not allow it now (409). */
export class Conflict extends HullError {}
/** Already so; nothing was changed (304). */
export class NotModified extends HullError {}
/** hull does not do this (yet) (501). */
export class NotImplemented extends HullError {}
/** Something hull depends on is not there or not ready (503). */
export class Unavailable extends HullError {}
/** Anything else that went wrong, with a message fit for the user (500). */
export class SystemError extends HullError {}

/** Does something, and puts words in front of the message of what it throws. */
export function inWords<T>(words: string, work: () => T): T {
  const worded = (error: unknown): never => {
    if (error instanceof HullError)
      error.message = `${words}: ${error.message}`;
    throw error;
  };
  try {
    const result = work();
    return result instanceof Promise ? (result.catch(worded) as T) : result;
  } catch (error) {
    return worded(error);
  }
}

/** What the Engine, being of Go, says of a text that is to be a whole number. */
export function notANumber(text: string): string {
  return `strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`;
}
