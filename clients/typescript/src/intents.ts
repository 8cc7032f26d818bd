/** Where the key of an intent is kept, from before it is sent for the first time. */

/** Keeps one key for each intent. All of it may be called many times at once. */
export interface IntentStore {
  /** The key that is kept for the intent; else one that `make` makes, once it is kept durably. All
   * who ask at once get the same. */
  take(intent: string, make: () => string): Promise<string>;
  /** Puts a new key in the place of `old`, and gives it; another's, if that was first. */
  replace(intent: string, old: string, make: () => string): Promise<string>;
  /** The intent is over: its name means a new one from now on. */
  forget(intent: string): Promise<void>;
}

/** The most intents that one store keeps. */
export const INTENTS_MAX = 100_000;
/** The longest name of an intent, in bytes. */
const NAME_MAX = 1024;

/** Keeps keys as long as the page or process lives: a reload does not find them again. */
export class MemoryIntents implements IntentStore {
  readonly #keys = new Map<string, string>();

  async take(intent: string, make: () => string): Promise<string> {
    checked(intent);
    let key = this.#keys.get(intent);
    if (key === undefined) {
      room(this.#keys.size);
      key = make();
      this.#keys.set(intent, key);
    }
    return key;
  }

  async replace(intent: string, old: string, make: () => string): Promise<string> {
    const found = this.#keys.get(intent);
    if (found !== undefined && found !== old) return found;
    const key = make();
    this.#keys.set(intent, key);
    return key;
  }

  async forget(intent: string): Promise<void> {
    this.#keys.delete(intent);
  }
}

/** What is needed of a browser's `Storage`. */
export interface StorageLike {
  readonly length: number;
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
  removeItem(name: string): void;
}

/**
 * Keeps keys in a browser's `localStorage`: all pages and tabs of the origin share them, and they
 * outlive a reload and a restart of the browser. A power cut may take what was written in the last
 * moments, since browsers write behind.
 *
 * Throws where the browser keeps nothing (a full or forbidden storage): a key that is not kept is
 * not sent.
 */
export class StorageIntents implements IntentStore {
  readonly #storage: StorageLike;
  readonly #prefix: string;

  constructor(storage: StorageLike = localStorage, prefix = "onlyonce intent: ") {
    this.#storage = storage;
    this.#prefix = prefix;
  }

  async take(intent: string, make: () => string): Promise<string> {
    checked(intent);
    return await this.#alone(() => {
      const found = this.#storage.getItem(this.#prefix + intent);
      if (found !== null) return found;
      room(this.#storage.length);
      return this.#keep(intent, make());
    });
  }

  async replace(intent: string, old: string, make: () => string): Promise<string> {
    return await this.#alone(() => {
      const found = this.#storage.getItem(this.#prefix + intent);
      return found !== null && found !== old ? found : this.#keep(intent, make());
    });
  }

  async forget(intent: string): Promise<void> {
    this.#storage.removeItem(this.#prefix + intent);
  }

  #keep(intent: string, key: string): string {
    this.#storage.setItem(this.#prefix + intent, key);
    if (this.#storage.getItem(this.#prefix + intent) !== key) {
      throw new Error("the browser did not keep the key");
    }
    return key;
  }

  /** Two tabs must not make two keys. Within a tab nothing comes between; pages that are not
   * secure have no locks, and their tabs are only as careful as the browser. */
  async #alone(work: () => string): Promise<string> {
    const locks = (globalThis as { navigator?: { locks?: Locks } }).navigator?.locks;
    return locks === undefined ? work() : await locks.request(`${this.#prefix}lock`, work);
  }
}

interface Locks {
  request(name: string, work: () => string): Promise<string>;
}

/** Throws `TypeError` for a name that is none. */
export function checked(intent: string): void {
  if (typeof intent !== "string" || intent.trim() === "") {
    throw new TypeError("an intent has a name that is not blank");
  }
  if (NAME_MAX < new TextEncoder().encode(intent).length) {
    throw new TypeError(`the name of an intent has at most ${NAME_MAX} bytes`);
  }
}

/** Throws `RangeError` if there is no room for one more. */
export function room(taken: number): void {
  if (INTENTS_MAX <= taken) {
    throw new RangeError(`${INTENTS_MAX} intents are kept: forget those that are over`);
  }
}
