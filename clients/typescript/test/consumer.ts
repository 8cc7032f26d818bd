/** A consumer as a program of its own, which the tests start and kill: `run JSON` or `replay JSON`.
 * It says what happens in lines of JSON, and stops when its input ends. A message says what its
 * handler does: `{"effect": name, "acts": [...]}`. */

import { Client } from "onlyonce";
import { Inbox, Later, Never, Rabbit } from "onlyonce/rabbitmq";
import type { Handler } from "onlyonce/rabbitmq";

// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Any = any;

const [what, json] = process.argv.slice(2);
const given: Any = JSON.parse(json!);

function tell(told: string, why: string): void {
  process.stdout.write(`${JSON.stringify({ told, why })}\n`);
}

async function ask(asked: Any): Promise<void> {
  await (await fetch(given.control, { method: "POST", body: JSON.stringify(asked) })).text();
}

const handler: Handler = async (message, attempt) => {
  const said: Any = JSON.parse(new TextDecoder().decode(message.body));
  for (const act of said.acts) {
    if (act === "effect") await ask({ do: "effect", key: said.effect });
    else if ("world" in act) await ask(act.world);
    else if ("later_up_to" in act) {
      if (attempt.number <= act.later_up_to) throw new Later("not yet");
    } else if ("never" in act) throw new Never(act.never);
    else if ("raise" in act) throw new Error(act.raise);
    else if ("raise_up_to" in act) {
      if (attempt.number <= act.raise_up_to) throw new Error("not this time");
    }
    else return act.return;
  }
  throw new Error("the acts have no end");
};

const queues = { source: given.queue, pausesMs: given.pauses_ms };
let rabbit: Rabbit;
try {
  rabbit = new Rabbit(given.broker, queues, { prefetch: 4, pauseMs: 100 });
} catch (failure) {
  tell("refused", String(failure));
  process.exit(0);
}
if (what === "replay") {
  tell("moved", String(await rabbit.replay(100)));
} else {
  const client = new Client(given.service, { token: given.token, leaseMs: given.lease_ms });
  const inbox = new Inbox(client, given.queue, {
    attemptsMax: given.attempts_max,
    waitMs: given.wait_ms,
    patienceMs: given.patience_ms,
  });
  const over = new AbortController();
  process.stdin.on("end", () => over.abort()).resume();
  await rabbit.run(inbox, handler, over.signal, tell);
}
process.exit(0);
