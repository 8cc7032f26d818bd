/** The client in a real browser: a shop's page behind `onlyonce proxy`. */

import assert from "node:assert/strict";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";
import type { BrowserContext, Page } from "playwright-core";

import { LIMIT_MS, World } from "./world.js";

const PAGE = `<!doctype html>
<title>Shop</title>
<button id="purchase">Purchase</button>
<ul id="said"></ul>
<script type="module">
  import { RetryingClient, StorageIntents } from "/client/index.js";
  const api = new RetryingClient(new StorageIntents(), { retryAfterMaxMs: 50 });
  const cart = new URLSearchParams(location.search).get("cart");
  const say = (text) => {
    const line = document.createElement("li");
    line.textContent = text;
    document.querySelector("#said").append(line);
  };
  document.querySelector("#purchase").addEventListener("click", async () => {
    try {
      const answer = await api.send("pay cart " + cart, "/orders", { json: { cart } });
      const { order } = await answer.json();
      say("order confirmed, " + order);
    } catch (error) {
      say(error.name);
    }
  });
  document.title = "ready";
</script>
`;

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

describe("in a browser", () => {
  let world: World;
  let folder: string;
  let browser: BrowserContext;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "onlyonce-browser-"));
    const pages = join(folder, "pages");
    const client = fileURLToPath(new URL("../dist", import.meta.url));
    await cp(client, join(pages, "client"), { recursive: true });
    await writeFile(join(pages, "index.html"), PAGE);
    world = await World.start([pages]);
    browser = await start();
  });
  after(async () => {
    await browser.close();
    await world.end();
    await rm(folder, { recursive: true });
  });
  beforeEach(async () => {
    await world.ask({ do: "reset" });
  });

  function start(): Promise<BrowserContext> {
    return chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath: process.env["ONLYONCE_CHROMIUM"] ?? "/usr/bin/chromium",
      args: FLAGS,
      headless: true,
      timeout: LIMIT_MS,
    });
  }

  async function open(cart: string): Promise<Page> {
    const page = await browser.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    await page.goto(`${world.where.proxy}/?cart=${cart}`);
    await page.waitForFunction(() => document.title === "ready");
    return page;
  }

  const purchase = (page: Page): Promise<void> => page.click("#purchase");

  async function said(page: Page, count: number): Promise<string[]> {
    const lines = page.locator("#said li");
    await lines.nth(count - 1).waitFor();
    return await lines.allTextContents();
  }

  // Case B93.
  test("three clicks on Purchase and a reload in the middle are one charge", async () => {
    await world.ask({ do: "next", words: ["hold"] });
    const page = await open("1");
    await purchase(page);
    await purchase(page);
    await world.ask({ do: "held" });
    await page.reload();
    await page.waitForFunction(() => document.title === "ready");
    await purchase(page);
    await world.ask({ do: "let_go" });
    assert.deepEqual(await said(page, 1), ["order confirmed, 1"]);
    await purchase(page);
    assert.deepEqual(await said(page, 2), ["order confirmed, 1", "order confirmed, 1"]);
    assert.equal((await world.ask({ do: "orders" })).count, 1);
    assert.equal((await world.ask({ do: "keys" })).different, 1);
  });

  test("answers that are lost on the way cost nothing", async () => {
    const lost = { do: "rule", at: "proxy", path: "/orders", then: "lose_answer", times: 3 };
    await world.ask(lost);
    const page = await open("2");
    await purchase(page);
    assert.deepEqual(await said(page, 1), ["order confirmed, 1"]);
    assert.equal((await world.ask({ do: "orders" })).count, 1);
    assert.equal((await world.ask({ do: "keys" })).different, 1);
  });

  test("two tabs at once share the key of their intent", async () => {
    const [one, other] = [await open("3"), await open("3")];
    await Promise.all([purchase(one), purchase(other)]);
    assert.deepEqual(await said(one, 1), ["order confirmed, 1"]);
    assert.deepEqual(await said(other, 1), ["order confirmed, 1"]);
    assert.equal((await world.ask({ do: "keys" })).different, 1);
  });

  test("a browser that is closed while the order runs finds it when it comes back", async () => {
    await world.ask({ do: "next", words: ["hold"] });
    await purchase(await open("4"));
    await world.ask({ do: "held" });
    await browser.close();
    await world.ask({ do: "let_go" });
    browser = await start();
    const page = await open("4");
    await purchase(page);
    assert.deepEqual(await said(page, 1), ["order confirmed, 1"]);
    assert.equal((await world.ask({ do: "orders" })).count, 1);
    assert.equal((await world.ask({ do: "keys" })).different, 1);
  });

  test("an outcome that nobody knows is said, and another click does not charge", async () => {
    await world.ask({ do: "next", words: ["lose"] });
    const page = await open("5");
    await purchase(page);
    await said(page, 1);
    await purchase(page);
    assert.deepEqual(await said(page, 2), ["OutcomeUnknown", "OutcomeUnknown"]);
    assert.equal((await world.ask({ do: "orders" })).count, 1);
  });
});
