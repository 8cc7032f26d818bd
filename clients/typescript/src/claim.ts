/** A granted claim: what its holder says, and how it is renewed. */

import type { Desk, Document } from "./desk.js";
import { Fenced, OnceError } from "./errors.js";
import { monotonic, pause } from "./http.js";

/** How operations are claimed. */
export interface OnceOptions {
  /** Whose keys they are; needed where the caller's token has several scopes. */
  scope?: string | undefined;
  /** For how long a claim is exclusive without being renewed, in milliseconds; the scope's if
   * left out. */
  leaseMs?: number | undefined;
  /** For how long a reply is kept, in milliseconds; the scope's if left out. */
  retentionMs?: number | undefined;
  /** For how long to wait for another attempt's result before `InProgress`: 30 s. */
  waitMs?: number | undefined;
  /** For how long to ask again when the service or its store do not answer: 30 s. */
  patienceMs?: number | undefined;
  /** Who claims, for the log of the service. */
  holder?: string | undefined;
  /** When the operation was first wanted, in milliseconds since 1970, for keys that carry no
   * time. */
  firstSentMs?: number | undefined;
  /** Whether the operation says `commit` by itself, before the first byte that can take effect. */
  prepared?: boolean | undefined;
}

/** The options with what is left out. */
export type Chosen = OnceOptions & { readonly waitMs: number; readonly patienceMs: number };

/** What an operation may know and say of the attempt that it is. */
export class Attempt {
  /** The key. Send it to a receiver that drops duplicates. */
  readonly key: string;
  /** The number of the claim. Send it to a receiver that refuses older ones. */
  readonly fence: number;
  /** 1 for the first attempt of the key. */
  readonly number: number;
  /** Aborted when the claim is over although the operation runs. Begin nothing more then; what has
   * happened is still to be returned. */
  readonly signal: AbortSignal;
  readonly #claim: Claim;

  constructor(claim: Claim) {
    this.#claim = claim;
    this.key = claim.key;
    this.fence = claim.fence;
    this.number = claim.attempt;
    this.signal = claim.over.signal;
  }

  /** Says that the operation may happen from now on (for `prepared: true`). Throws an `OnceError`
   * where nothing may be sent. */
  async commit(): Promise<void> {
    await this.#claim.commit();
  }

  /** Keeps what was learnt, such as the id of a charge: at most 128 characters, for whoever has to
   * settle an unknown outcome. */
  async note(evidence: string): Promise<void> {
    await this.#claim.say("note", this.#claim.options.patienceMs, { evidence });
  }
}

/** What is said under one claim. */
export class Claim {
  readonly desk: Desk;
  readonly key: string;
  readonly options: Chosen;
  readonly fence: number;
  readonly attempt: number;
  readonly over = new AbortController();
  readonly #leaseMs: number;
  /** When the claim is over, unless it is renewed. */
  #ends: number;

  constructor(desk: Desk, key: string, options: Chosen, granted: Document) {
    [this.desk, this.key, this.options] = [desk, key, options];
    this.fence = Number(granted["fence"]);
    this.attempt = Number(granted["attempt"]);
    this.#leaseMs = Number(granted["lease_left_ms"]);
    this.#ends = monotonic() + this.#leaseMs;
  }

  say(name: string, patienceMs: number, more: Document = {}): Promise<Document> {
    return this.desk.asked(name, this.#about(more), patienceMs);
  }

  async commit(): Promise<void> {
    // Counted from before the question, which may have been asked more than once.
    const begun = monotonic();
    const done = await this.say("commit", this.options.patienceMs, leased(this.options));
    this.#ends = begun + Number(done["lease_left_ms"] ?? 0);
    if (this.#ends - monotonic() < this.#leaseMs / 3) {
      // The answer was long on its way: somebody else may soon be let in.
      throw new Fenced("too little of the claim's time is left to begin", this.key);
    }
  }

  /** Renews at a third of the lease until `ended`, or until the claim is over. */
  async renewals(ended: AbortSignal): Promise<void> {
    let ends = this.#ends;
    let wait = this.#leaseMs / 3;
    while (!this.over.signal.aborted) {
      try {
        await pause(wait, ended);
      } catch {
        return;
      }
      const begun = monotonic();
      try {
        const body = this.#about(leased(this.options));
        const done = await this.desk.once("renew", body, this.#leaseMs / 3);
        // Counted from before the question: the service counts from when it came.
        ends = begun + Number(done["lease_left_ms"] ?? 0);
        wait = this.#leaseMs / 3;
      } catch (error) {
        if (!(error instanceof OnceError && error.retryable)) this.over.abort(error);
        wait = this.#leaseMs / 10;
      }
      if (ends <= monotonic()) this.over.abort(new Error("the lease is over"));
    }
  }

  #about(more: Document): Document {
    return { ...scoped(this.options), key: this.key, fence: this.fence, ...more };
  }
}

/** The member that says whose key it is. */
export function scoped({ scope }: OnceOptions): Document {
  return scope === undefined ? {} : { scope };
}

/** The member that says for how long a claim is exclusive. */
export function leased({ leaseMs }: OnceOptions): Document {
  return leaseMs === undefined ? {} : { lease_ms: Math.round(leaseMs) };
}
