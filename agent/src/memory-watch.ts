/** Tells the host of processes that the kernel killed for want of memory. */
import { countOomKills, openMemoryEvents } from "./cgroup.js";
import type { Channel } from "./channel.js";
import { EPOLLET, EPOLLPRI } from "./constants.js";
import type { EventLoop } from "./loop.js";

export class MemoryWatch {
  private events = -1;
  private kills = 0;

  constructor(
    private readonly loop: EventLoop,
    private readonly channel: Channel,
  ) {}

  /** Watches the container's cgroup, which may be another one than the last time. */
  begin(): void {
    if (this.events >= 0) {
      this.loop.remove(this.events);
      sys.close(this.events);
    }
    // Edge-triggered: the file says "changed" until it is read, and the counters are read elsewhere.
    this.events = openMemoryEvents();
    this.loop.add(this.events, EPOLLPRI | EPOLLET, () => this.check());
  }

  /** The next container's begin at none. */
  forget(): void {
    this.kills = 0;
  }

  /** Tells of those killed since the last look; gives their count in all. */
  check(): number {
    const kills = countOomKills();
    if (kills > this.kills) this.channel.event({ event: "oom" });
    this.kills = kills;
    return kills;
  }
}
