/**
 * The event loop: epoll for descriptors, a short list of timers, promise callbacks run before each
 * wait. An exception of a handler ends that handler only.
 */
import {
  CLOCK_MONOTONIC,
  EPOLL_ADD,
  EPOLL_DEL,
  EPOLL_MOD,
} from "./constants.js";

/** Called with the epoll events of a descriptor. */
export type Handler = (events: number) => void;

const MAX_EVENTS = 64;
/** Without an event for so long, nobody is in a hurry. */
const QUIET_MS = 100;

interface Timer {
  at: number;
  run: () => void;
}

export class EventLoop {
  private readonly epoll = sys.epollCreate();
  private readonly handlers = new Map<number, Handler>();
  private readonly events = new Uint32Array(MAX_EVENTS * 2);
  private timers: Timer[] = [];
  /** To be run in the next round. */
  private readonly next: (() => void)[] = [];
  /** To be run when it is quiet. */
  private readonly leisure: (() => void)[] = [];
  /** No timer is due before. */
  private nextTimer = Infinity;
  private readonly tasks: (() => void)[] = [];

  /**
   * @param onError hears what a handler threw
   */
  constructor(private readonly onError: (error: unknown) => void) {}

  add(fd: number, events: number, handler: Handler): void {
    sys.epollControl(this.epoll, EPOLL_ADD, fd, events);
    this.handlers.set(fd, handler);
  }

  change(fd: number, events: number): void {
    sys.epollControl(this.epoll, EPOLL_MOD, fd, events);
  }

  /** To be called before the descriptor is closed. */
  remove(fd: number): void {
    if (this.handlers.delete(fd))
      sys.epollControl(this.epoll, EPOLL_DEL, fd, 0);
  }

  /** Runs once after so many milliseconds; gives a function that cancels it. */
  after(milliseconds: number, run: () => void): () => void {
    const timer = { at: sys.clock(CLOCK_MONOTONIC) + milliseconds, run };
    this.timers.push(timer);
    this.nextTimer = Math.min(this.nextTimer, timer.at);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  /** Runs once in the next round, after its handlers. */
  soon(run: () => void): void {
    this.next.push(run);
  }

  /** Runs once, when nothing has happened for a while. */
  whenQuiet(run: () => void): void {
    this.leisure.push(run);
  }

  /** Runs in each round, after the handlers and before promise callbacks. */
  eachRound(task: () => void): void {
    this.tasks.push(task);
  }

  /** Resolves after so many milliseconds. */
  pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => this.after(milliseconds, resolve));
  }

  /** Runs for ever. `busy` says whether there is work that needs no event to go on. */
  run(busy: () => boolean): never {
    for (;;) {
      for (const task of this.tasks) this.guard(task, 0);
      let count = 0;
      let quiet = false;
      try {
        // Last, so that nothing is left that only these would do before the wait.
        sys.runJobs();
        const now = this.next.length > 0 || busy();
        const wait = now ? 0 : this.longestWait();
        count = sys.epollWait(this.epoll, this.events.buffer, wait);
        quiet = count === 0 && wait === QUIET_MS;
      } catch (error) {
        this.onError(error);
      }
      for (let i = 0; i < count; i++) {
        const handler = this.handlers.get(this.events[2 * i] as number);
        const events = this.events[2 * i + 1] as number;
        if (handler) this.guard(handler, events);
      }
      this.runTimers();
      if (this.next.length > 0) this.runAll(this.next);
      if (quiet) this.runAll(this.leisure);
    }
  }

  /** What these put off comes later. */
  private runAll(tasks: (() => void)[]): void {
    for (const run of tasks.splice(0)) this.guard(run, 0);
  }

  private guard(run: Handler, events: number): void {
    try {
      run(events);
    } catch (error) {
      this.onError(error);
    }
  }

  /** In milliseconds; -1: for ever. */
  private longestWait(): number {
    const quiet = this.leisure.length > 0;
    if (this.nextTimer === Infinity) return quiet ? QUIET_MS : -1;
    const left = this.nextTimer - sys.clock(CLOCK_MONOTONIC);
    const untilTimer = Math.max(0, Math.ceil(left));
    return quiet ? Math.min(untilTimer, QUIET_MS) : untilTimer;
  }

  private runTimers(): void {
    if (this.nextTimer === Infinity) return;
    const now = sys.clock(CLOCK_MONOTONIC);
    if (now < this.nextTimer) return;
    const due = this.timers.filter((timer) => timer.at <= now);
    this.timers = this.timers.filter((timer) => timer.at > now);
    this.nextTimer = Math.min(...this.timers.map((timer) => timer.at));
    for (const timer of due) this.guard(timer.run, 0);
  }
}
