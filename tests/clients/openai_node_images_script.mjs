// Draws and edits with openai-node and prints what it saw as JSON.
// Usage: node openai_node_images_script.mjs BASE_URL MODEL IMAGE_FILE

import fs from "node:fs";
import OpenAI from "openai";

const [, , baseURL, model, path] = process.argv;
const client = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: "none", maxRetries: 0 });
const draw = { model, prompt: "A red star", size: "32x32", seed: 7, num_inference_steps: 6 };

async function eventsOf(stream) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
  }
  return events;
}

async function errorOf(change) {
  try {
    await client.images.generate({ ...draw, ...change });
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param];
  }
  return [];
}

const streamed = { stream: true, partial_images: 2 };
const image = () => fs.createReadStream(path);
const edit = { model, prompt: "A star", size: "32x32", seed: 7, num_inference_steps: 6 };
console.log(
  JSON.stringify({
    picture: (await client.images.generate(draw)).data[0].b64_json,
    events: await eventsOf(await client.images.generate({ ...draw, ...streamed })),
    edited: (await client.images.edit({ ...edit, image: image(), strength: 0.5 })).data[0].b64_json,
    editEvents: await eventsOf(await client.images.edit({ ...edit, ...streamed, image: [image()] })),
    errors: [await errorOf({ model: "other" }), await errorOf({ size: "33x33" })],
  }),
);
