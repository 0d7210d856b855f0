/** What each machine has room for: nothing can be plugged in later. */

/** Places for NICs. */
export const NIC_SLOTS = 4;
/** Places for disks: the first is for a read-only one, the second for a writable one. */
export const DISK_SLOTS = 2;
