/** Keys that carry their time (RFC 9562 section 5.7). */

import { randomInteger } from "./random.js";

/** Bits behind the time, of which the highest is 0 in a fresh draw: there is room to count on. */
const TAIL_BITS = 74n;
/** A clock that was set back further than this, in milliseconds, is believed. */
const BACK_MAX = 60_000;

let lastMs = 0;
let lastTail = 0n;

/**
 * A new UUIDv7. Later ones of this page or process are greater, also within a millisecond and when
 * the clock is set back by less than a minute. Its time lets the service refuse it however late it
 * comes back.
 */
export function uuid7(): string {
  const now = Date.now();
  if (now <= lastMs && lastMs <= now + BACK_MAX) {
    // By a random step: who has seen one key cannot tell the next.
    lastTail += 1n + randomInteger(4);
    if (lastTail >> TAIL_BITS !== 0n) [lastMs, lastTail] = [lastMs + 1, freshTail()];
  } else {
    [lastMs, lastTail] = [now, freshTail()];
  }
  const high = lastTail >> 62n;
  const low = lastTail & ((1n << 62n) - 1n);
  const bits = (BigInt(lastMs) << 80n) | (7n << 76n) | (high << 64n) | (2n << 62n) | low;
  const text = bits.toString(16).padStart(32, "0");
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function freshTail(): bigint {
  return randomInteger(10) & ((1n << (TAIL_BITS - 1n)) - 1n);
}
