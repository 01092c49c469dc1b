// OpenAI's SDK for Node and the Vercel AI SDK. See python_sdks.py for what it reads and prints.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const { BASE_URL, API_KEY, ONE_FUNCTION_KEY } = process.env;
const TEXT = "one two three";
const messages = [{ role: "user", content: TEXT }];

function sdk(more = {}) {
  return new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY, timeout: 60_000, ...more });
}

function counting() {
  const counted = async (...args) => {
    counted.requests += 1;
    return fetch(...args);
  };
  counted.requests = 0;
  return counted;
}

async function failure(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

function expect(condition, why) {
  if (!condition) throw new Error(String(why ?? "not as expected"));
}

const tried = {
  "openai (Node): a model name, from URL and key alone": async () => {
    const models = (await sdk().models.list()).data.map((model) => model.id);
    expect(models.includes("demo"), models);
    const whole = await sdk().chat.completions.create({ model: "demo", messages });
    expect(whole.choices[0].message.content === TEXT);
  },
  "openai (Node): a key for one function": async () => {
    const client = sdk({ apiKey: ONE_FUNCTION_KEY });
    const model = (await client.models.list()).data[0].id;
    const whole = await client.chat.completions.create({ model, messages });
    expect(whole.choices[0].message.content === TEXT);
  },
  "openai (Node): streaming": async () => {
    const stream = await sdk().chat.completions.create({ model: "demo", messages, stream: true });
    let text = "";
    for await (const event of stream) text += event.choices[0]?.delta?.content ?? "";
    expect(text.trim() === TEXT, text);
  },
  "openai (Node): a cut stream is an error": async () => {
    let events = 0;
    await failure(async () => {
      const body = { model: "demo", messages, stream: true, break_after: 2 };
      for await (const _ of await sdk().chat.completions.create(body)) events += 1;
    });
    expect(events > 0, "the stream broke before its first event");
  },
  "openai (Node): the reason is shown": async () => {
    const body = { model: "nothing", messages };
    const missing = await failure(() => sdk().chat.completions.create(body));
    expect(missing.message.includes("names no function"), missing.message);
    expect(missing.code === "model_not_found" && missing.requestID, missing.code);
    const wrong = await failure(() => sdk({ apiKey: "nvapi-wrong" }).models.list());
    expect(wrong.message.includes("no valid credential"), wrong.message);
  },
  "openai (Node): retries": async () => {
    for (const [path, headers, expected] of [
      ["/f/demo/slow?seconds=600", { "nvcf-poll-seconds": "1" }, 1],
      ["/f/demo/fail/503", {}, 3],
    ]) {
      const counted = counting();
      const client = sdk({ baseURL: BASE_URL, fetch: counted, maxRetries: 2 });
      await failure(() => client.get(path, { headers }));
      expect(counted.requests === expected, `${path} was sent ${counted.requests} times`);
    }
  },
  "Vercel AI SDK": async () => {
    const provider = createOpenAICompatible({
      name: "gateway",
      baseURL: `${BASE_URL}/v1`,
      apiKey: API_KEY,
    });
    const whole = await generateText({ model: provider("demo"), prompt: TEXT });
    expect(whole.text === TEXT, whole.text);
    let text = "";
    for await (const piece of streamText({ model: provider("demo"), prompt: TEXT }).textStream) {
      text += piece;
    }
    expect(text.trim() === TEXT, text);
    const missing = await failure(() =>
      generateText({ model: provider("nothing"), prompt: TEXT, maxRetries: 0 }),
    );
    expect(missing.message.includes("names no function"), missing.message);
  },
};

for (const [name, attempt] of Object.entries(tried)) {
  try {
    await attempt();
    console.log(`PASS ${name}`);
  } catch (error) {
    console.log(`FAIL ${name}: ${String(error?.message ?? error).replaceAll("\n", " ").slice(0, 400)}`);
  }
}
