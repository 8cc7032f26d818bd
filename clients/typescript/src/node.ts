/** What Node.js gets: all of it, and files for the keys of intents. */

import { webcrypto } from "node:crypto";

import { randomFrom } from "./random.js";

// Before version 19 there is none that is global.
randomFrom(webcrypto as { getRandomValues(into: Uint8Array<ArrayBuffer>): unknown });

export * from "./index.js";
export { FileIntents } from "./files.js";
