// The official Node client against a server (OPENAI_BASE_URL, OPENAI_API_KEY): run by run_client.py.
import assert from 'node:assert/strict';
import test from 'node:test';
import OpenAI from 'openai';

const client = new OpenAI({ maxRetries: 0, timeout: 60000 });
const model = 'storyteller';
const messages = [{ role: 'user', content: 'Tell me a tale.' }];

test('models', async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.deepEqual(ids, [model]);
});

test('completion, whole and streamed', async () => {
  const ask = { model, prompt: 'Once upon a time', max_tokens: 12, temperature: 0 };
  const whole = await client.completions.create(ask);
  assert.equal(whole.usage.completion_tokens, 12);
  let text = '';
  let usage = null;
  for await (const chunk of await client.completions.create({
    ...ask, stream: true, stream_options: { include_usage: true },
  })) {
    text += chunk.choices[0]?.text ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].text);
  assert.deepEqual(usage, whole.usage);
});

test('chat, whole and streamed', async () => {
  const ask = { model, messages, max_completion_tokens: 12, seed: 4 };
  const whole = await client.chat.completions.create(ask);
  assert.equal(whole.choices[0].message.role, 'assistant');
  let text = '';
  let roles = 0;
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    text += chunk.choices[0].delta.content;
    roles += chunk.choices[0].delta.role ? 1 : 0;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(roles, 1);
  const helper = client.chat.completions.stream(ask);
  assert.equal((await helper.finalMessage()).content, text);
});

test('errors', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'other', messages }), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: 9 }), (e) => {
    assert.ok(e instanceof OpenAI.BadRequestError);
    assert.equal(e.param, 'temperature');
    return true;
  });
  await assert.rejects(new OpenAI({ apiKey: 'wrong', maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
});

test('a client that aborts its stream', async () => {
  const stream = await client.completions.create({ model, prompt: 'x', max_tokens: 4000, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    break; // closes the connection
  }
  const after = await client.completions.create({ model, prompt: 'x', max_tokens: 2 });
  assert.ok(after.choices.length);
});
