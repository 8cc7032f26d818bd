/** Keys of intents in files, for Node.js. The client for Python reads and writes the same files. */

import { createHash, randomBytes } from "node:crypto";
import { access, link, mkdir, open, readFile, readdir, unlink } from "node:fs/promises";
import { join } from "node:path";

import { checked, room } from "./intents.js";
import type { IntentStore } from "./intents.js";

/**
 * Keeps keys in files of a folder, for any number of processes: each key is on the disk before it
 * is sent.
 *
 * A file is never written again: a key that takes another's place is in a file of its own, and the
 * one with the highest number counts.
 */
export class FileIntents implements IntentStore {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async take(intent: string, make: () => string): Promise<string> {
    checked(intent);
    await mkdir(this.#folder, { mode: 0o700, recursive: true });
    const found = await this.#latest(intent);
    if (found !== undefined) {
      // Whoever made the file may not have come so far.
      await this.#sync();
      return found.key;
    }
    room((await readdir(this.#folder)).length);
    return await this.#keep(intent, 0, make());
  }

  async replace(intent: string, old: string, make: () => string): Promise<string> {
    const found = await this.#latest(intent);
    if (found === undefined) return await this.#keep(intent, 0, make());
    if (found.key !== old) return found.key;
    return await this.#keep(intent, found.number + 1, make());
  }

  async forget(intent: string): Promise<void> {
    // The highest first: should the rest be left behind, it is a key that was refused, and will be
    // again.
    for (let number = (await this.#count(intent)) - 1; 0 <= number; number--) {
      await unlink(this.#path(intent, number)).catch(unless("ENOENT"));
    }
    await this.#sync();
  }

  #path(intent: string, number: number): string {
    const name = createHash("sha256").update(intent, "utf8").digest("hex");
    return join(this.#folder, `${name}.${number}.json`);
  }

  async #count(intent: string): Promise<number> {
    for (let number = 0; ; number++) {
      try {
        await access(this.#path(intent, number));
      } catch (failure) {
        unless("ENOENT")(failure);
        return number;
      }
    }
  }

  async #latest(intent: string): Promise<{ number: number; key: string } | undefined> {
    const number = (await this.#count(intent)) - 1;
    return number < 0 ? undefined : { number, key: await this.#read(intent, number) };
  }

  async #read(intent: string, number: number): Promise<string> {
    const path = this.#path(intent, number);
    const document = JSON.parse(await readFile(path, "utf8")) as { intent?: string; key?: string };
    if (document.intent !== intent) throw new Error(`${path} is not of the intent ${intent}`);
    if (typeof document.key !== "string" || document.key === "") {
      throw new Error(`${path} has no key`);
    }
    return document.key;
  }

  /** Makes a file that is whole from its first moment; whoever is second reads the first's. */
  async #keep(intent: string, number: number, key: string): Promise<string> {
    const draft = join(this.#folder, `${randomBytes(8).toString("hex")}.draft`);
    const file = await open(draft, "wx", 0o600);
    try {
      try {
        await file.writeFile(JSON.stringify({ intent, key }));
        await file.sync();
      } finally {
        await file.close();
      }
      try {
        await link(draft, this.#path(intent, number));
      } catch (failure) {
        unless("EEXIST")(failure);
        key = await this.#read(intent, number);
      }
      await this.#sync();
    } finally {
      await unlink(draft);
    }
    return key;
  }

  /** A name in a folder is durable once the folder is. */
  async #sync(): Promise<void> {
    if (process.platform === "win32") return;
    const folder = await open(this.#folder, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

function unless(code: string): (failure: unknown) => void {
  return (failure) => {
    if ((failure as NodeJS.ErrnoException).code !== code) throw failure;
  };
}
