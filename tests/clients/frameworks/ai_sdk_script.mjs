// Talks to a server with the AI SDK and prints what it saw as JSON.
// Usage: node ai_sdk_script.mjs BASE_URL

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "enginery",
  baseURL: `${process.argv[2]}/v1`,
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider("demo-chat");
const question = { model, prompt: "What is 3 + 4?", temperature: 0, maxRetries: 0 };
const tools = {
  get_weather: tool({
    description: "Tell the weather in a city",
    inputSchema: z.object({ city: z.string().max(12) }),
  }),
};

const whole = await generateText(question);
const streamed = streamText(question);
const pieces = [];
for await (const piece of streamed.textStream) {
  pieces.push(piece);
}
const forced = await generateText({ ...question, tools, toolChoice: "required" });
const streamedCall = streamText({
  ...question,
  tools,
  toolChoice: { type: "tool", toolName: "get_weather" },
});
const person = await generateObject({
  ...question,
  schema: z.object({ name: z.string().max(12), age: z.number().int().min(0).max(120) }),
});
const embedded = await embedMany({
  model: provider.textEmbeddingModel("tiny-embedding"),
  values: ["one", "two"],
});
let refusal = [];
try {
  await generateText({ ...question, model: provider("other") });
} catch (error) {
  refusal = [error.name, error.statusCode, error.data?.error?.code ?? null];
}
console.log(
  JSON.stringify({
    content: whole.text,
    pieces,
    usage: [whole.usage.totalTokens, (await streamed.usage).totalTokens],
    finishReasons: [forced.finishReason, await streamedCall.finishReason],
    calls: forced.toolCalls.map((call) => [call.toolName, call.input]),
    streamedCalls: (await streamedCall.toolCalls).map((call) => [call.toolName, call.input]),
    person: person.object,
    embeddings: embedded.embeddings.map((row) => row.length),
    refusal,
  }),
);
