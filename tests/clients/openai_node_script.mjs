// Talks to a server with openai-node and prints what it saw as JSON.
// Usage: node openai_node_script.mjs BASE_URL

import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const chat = {
  model: "tiny",
  messages: [{ role: "user", content: "What is 3 + 4?" }],
  max_tokens: 12,
  temperature: 0,
};
const completion = { model: "tiny", prompt: "The quick", max_tokens: 6, temperature: 0 };

async function errorOf(change) {
  try {
    await client.chat.completions.create({ ...chat, ...change });
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param];
  }
  return [];
}

const answer = await client.chat.completions.create(chat);
const chunks = [];
const options = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create({ ...chat, ...options })) {
  chunks.push(chunk);
}
const whole = await client.completions.create({ ...completion, logprobs: 2 });
let pieces = "";
for await (const chunk of await client.completions.create({ ...completion, stream: true })) {
  pieces += chunk.choices[0].text;
}
const accumulated = await client.chat.completions.stream(chat).finalContent();
const models = [];
for await (const model of client.models.list()) {
  models.push(model.id);
}
console.log(
  JSON.stringify({
    content: answer.choices[0].message.content,
    usage: answer.usage,
    firstDelta: chunks[0].choices[0].delta,
    streamed: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    streamedUsage: chunks.at(-1).usage,
    accumulated,
    text: whole.choices[0].text,
    tokens: whole.choices[0].logprobs.tokens,
    pieces,
    models,
    errors: [await errorOf({ model: "other" }), await errorOf({ temperature: 9 })],
  }),
);
