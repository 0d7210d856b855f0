/** The container's network: names, addresses and routes of the machine's NICs. */
import type {
  InterfaceSetup,
  NetworkChange,
  NetworkSetup,
} from "../../protocol/index.js";
import {
  AF_NETLINK,
  AT_FDCWD,
  CLONE_NEWNET,
  MNT_DETACH,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  NETLINK_ROUTE,
  O_RDONLY,
  SOCK_RAW,
} from "./constants.js";
import { Failure, step } from "./failure.js";
import { makeFolder, readText, writeText } from "./files.js";
import { broadcastOf, parseCidr, parseIp, parseMac } from "./ip-address.js";
import { NetlinkBatch, type LinkChange } from "./netlink.js";
import { unless } from "./sys.js";

const LOOPBACK_INDEX = 1;
/** The first NIC's in the container; the others' follow. */
const FIRST_INDEX = 2;
/** What the engine calls it, unless it was asked to call it otherwise. */
const FIRST_NAME = "eth0";
/** On a network for documentation (RFC 5737). */
const NOBODYS: InterfaceSetup = {
  index: 0,
  name: FIRST_NAME,
  mac: "02:00:00:00:00:01",
  mtu: 1500,
  addresses: ["192.0.2.2/24"],
  gateways: ["192.0.2.1"],
};
const SYSFS = "/run/sysfs";
const SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const DRIVER = "/sys/bus/virtio/drivers/virtio_net";

interface Nic {
  /** Its name on the bus, e.g. "virtio3". */
  device: string;
  /** The kernel's index of it in `space`. */
  index: number;
  space: Space;
  /** It is, or was, in one of the container's. */
  used: boolean;
}

/** A network namespace. */
interface Space {
  namespace: number;
  /** An rtnetlink socket in it. */
  route: number;
  /** Where a read-only /sys with its network devices is mounted; "" for the machine's own. */
  sysfs: string;
}

/**
 * The machine has more NICs than its container has networks. All of them begin in the kernel's first
 * network namespace. The container (and the agent) is in one of two others, made before it is known which
 * container it is: one with the first NIC, already up, and one without NICs. Further ones are moved there.
 */
export class GuestNetwork {
  private readonly machine: Space;
  private readonly bare: Space;
  private readonly connected: Space;
  /** The container's. */
  private space: Space;
  private readonly nics: Nic[];
  /** For all that a container asks for: made ahead, and what it is made of as well. */
  private readonly batch = new NetlinkBatch();

  constructor() {
    this.machine = openSpace("");
    this.nics = listNics(this.machine);
    this.bare = makeSpace("bare");
    this.connected = makeSpace("connected");
    this.space = this.connected;
    const [first] = this.nics;
    if (!first) return;
    this.move(first, 0, FIRST_NAME, false);
    changeLink(this.connected, "up", first.index, { up: true });
  }

  /** Where the container's /sys is mounted, read-only, to be moved to its place. */
  get sysfs(): string {
    return this.space.sysfs;
  }

  /**
   * Undoes everything, but for new namespaces: the driver finds each NIC that was in one as at boot, with
   * its own MAC address and nothing counted. The object is of no use afterwards.
   */
  close(): void {
    for (const { device, used } of this.nics) {
      if (!used) continue;
      step(`find ${device} anew`, () => {
        writeText(`${DRIVER}/unbind`, device);
        writeText(`${DRIVER}/bind`, device);
      });
    }
    sys.setns(this.machine.namespace, CLONE_NEWNET);
    for (const space of [this.machine, this.bare, this.connected]) {
      // The container's is not there any more.
      if (space.sysfs !== "")
        unless(["EINVAL"], () => sys.unmount(space.sysfs, MNT_DETACH));
      sys.close(space.route);
      sys.close(space.namespace);
    }
  }

  /** Does what `setUp` will do, and undoes it but for the MAC address. @throws {Failure} naming the step that failed */
  rehearse(): void {
    if (this.nics.length === 0) return;
    const batch = this.batch.clear();
    this.add(batch, NOBODYS);
    send(this.space.route, batch);
    const undoing = this.batch.clear();
    // The route goes with it.
    removeAddresses(undoing, "address", FIRST_INDEX, NOBODYS.addresses);
    send(this.space.route, undoing);
  }

  /** Gives the container its addresses. @throws {Failure} naming the step that failed */
  setUp({ interfaces }: NetworkSetup): void {
    if (!interfaces.some(isFirst)) this.enter(this.bare);
    const batch = this.batch.clear();
    for (const wanted of interfaces) this.add(batch, wanted);
    send(this.space.route, batch);
  }

  /** Puts NICs on and off networks. @throws {Failure} naming the step that failed */
  change({ add, remove, routes }: NetworkChange): void {
    const leaving = this.batch.clear();
    for (const { index, addresses } of remove) {
      const nic = this.find(index);
      // Before the link is down: that alone takes its IPv6 addresses.
      removeAddresses(leaving, `NIC ${index}: address`, nic.index, addresses);
      leaving.link(`NIC ${index}: down`, nic.index, { up: false });
      // By a name that none of those has that are there.
      leaving.link(`NIC ${index}: away`, nic.index, {
        name: `hull${index}`,
        namespace: this.machine.namespace,
      });
    }
    send(this.space.route, leaving);
    for (const { index } of remove) this.find(index).space = this.machine;
    const batch = this.batch.clear();
    for (const wanted of add) this.add(batch, { ...wanted, gateways: [] });
    for (const { index, gateway } of routes)
      batch.defaultRoute(
        `route by ${gateway}`,
        this.find(index).index,
        parseIp(gateway),
      );
    send(this.space.route, batch);
  }

  private enter(space: Space): void {
    sys.setns(space.namespace, CLONE_NEWNET);
    this.space = space;
  }

  /**
   * Adds what is to be done to the batch, and takes a NIC that is not there yet into the container's namespace.
   * @throws {Failure} an address is none; nothing was done then
   */
  private add(batch: NetlinkBatch, wanted: InterfaceSetup): void {
    const { index, name, mac, mtu } = wanted;
    const nic = this.find(index);
    const link = FIRST_INDEX + index;
    let v6 = false;
    const change = { mac: parseMac(mac), mtu, up: true };
    batch.link(name + ": MAC address, MTU, up", link, change);
    for (const text of wanted.addresses) {
      const { address, prefix } = parseCidr(text);
      const { length } = address;
      if (length > 1) v6 = true;
      const broadcast =
        length > 1 || prefix > 30 ? undefined : broadcastOf(address, prefix);
      batch.address(name + ": address", link, address, prefix, broadcast);
    }
    for (const gateway of wanted.gateways)
      batch.defaultRoute(name + ": route", link, parseIp(gateway));
    if (nic.space !== this.space) this.move(nic, index, name, v6);
    else if (v6) {
      // It makes up its link-local address from the MAC address that it has then.
      changeLink(this.space, `${name}: MAC address`, link, {
        mac: change.mac,
      });
      setIpv6(name, v6);
    }
  }

  /** Takes a NIC into the container's namespace, where it is down. */
  private move(nic: Nic, index: number, name: string, v6: boolean): void {
    const newIndex = FIRST_INDEX + index;
    const { namespace } = this.space;
    const change = { name, namespace, newIndex };
    changeLink(nic.space, `${name}: name`, nic.index, change);
    Object.assign(nic, { index: newIndex, space: this.space, used: true });
    setIpv6(name, v6);
  }

  private find(index: number): Nic {
    const nic = this.nics[index];
    if (nic === undefined)
      throw new Failure("invalid", `no network device ${index}`);
    return nic;
  }
}

/** The NICs of the machine's namespace, in the order of the bus. */
function listNics(space: Space): Nic[] {
  const base = "/sys/class/net";
  const nics: Nic[] = [];
  for (const name of sys.list(base)) {
    const link = unless(["ENOENT"], () =>
      sys.readlink(AT_FDCWD, `${base}/${name}/device`),
    );
    if (link === undefined) continue;
    const device = link.slice(link.lastIndexOf("/") + 1);
    const index = Number(readText(`${base}/${name}/ifindex`));
    nics.push({ device, index, space, used: false });
  }
  const place = ({ device }: Nic) => Number(device.slice("virtio".length));
  return nics.sort((a, b) => place(a) - place(b));
}

/** It is what the first NIC was made ahead. */
function isFirst({ index, name }: InterfaceSetup): boolean {
  return index === 0 && name === FIRST_NAME;
}

/** The network namespace that the agent is in. */
function openSpace(sysfs: string): Space {
  return {
    namespace: sys.open(AT_FDCWD, "/proc/self/ns/net", O_RDONLY, 0),
    route: sys.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE),
    sysfs,
  };
}

/** A new network namespace, which the agent enters. */
function makeSpace(name: string): Space {
  const sysfs = `${SYSFS}/${name}`;
  for (const folder of [SYSFS, sysfs]) makeFolder(folder, 0o700);
  sys.unshare(CLONE_NEWNET);
  const space = openSpace(sysfs);
  changeLink(space, "lo: up", LOOPBACK_INDEX, { up: true });
  sys.mount("sysfs", sysfs, "sysfs", SAFE | MS_RDONLY, null);
  return space;
}

/** As Docker has it: IPv6 only on networks that have it, and never by router advertisement. */
function setIpv6(name: string, on: boolean): void {
  const conf = `/proc/sys/net/ipv6/conf/${name}`;
  unless(["ENOENT"], () => {
    if (on) writeText(`${conf}/accept_ra`, "0");
    writeText(`${conf}/disable_ipv6`, on ? "0" : "1");
  });
}

function removeAddresses(
  batch: NetlinkBatch,
  what: string,
  link: number,
  addresses: readonly string[],
): void {
  for (const text of addresses) {
    const { address, prefix } = parseCidr(text);
    batch.removeAddress(what, link, address, prefix);
  }
}

function changeLink(
  space: Space,
  what: string,
  index: number,
  change: LinkChange,
): void {
  const batch = new NetlinkBatch();
  batch.link(what, index, change);
  send(space.route, batch);
}

/** @throws {Failure} naming the first step that failed; those after it may have been done */
function send(socket: number, batch: NetlinkBatch): void {
  const { buffer } = batch;
  if (batch.length === 0) return;
  batch.close();
  sys.send(socket, buffer, 0, batch.length);
  // To the last one, or they would be taken for answers to what comes next.
  for (let read = false; !read;)
    read = batch.read(sys.receive(socket, buffer, 0, buffer.byteLength));
  if (batch.failure !== undefined)
    throw new Failure("system", `network: ${batch.failure}`);
}
