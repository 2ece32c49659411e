"""The official Python client against a server (OPENAI_BASE_URL, OPENAI_API_KEY): run by run_client.py."""
import asyncio
import unittest

import openai


class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = openai.OpenAI(max_retries=0, timeout=60)

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual([m.id for m in models], ["storyteller"])
        self.assertEqual(models[0].max_model_len, 4096)
        self.assertEqual(self.client.models.retrieve("storyteller").id, "storyteller")

    def test_completion(self):
        ask = dict(model="storyteller", prompt="Once upon a time", max_tokens=12, temperature=0, logprobs=2)
        whole = self.client.completions.create(**ask)
        self.assertTrue(whole.choices[0].text)
        self.assertEqual(len(whole.choices[0].logprobs.tokens), 12)
        self.assertEqual(whole.usage.completion_tokens, 12)
        chunks = list(self.client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text)
        self.assertEqual(chunks[-1].usage, whole.usage)
        again = self.client.completions.create(**ask, extra_body={"top_k": 1, "min_p": 0.0, "ignore_eos": True})
        self.assertEqual(again.choices[0].text, whole.choices[0].text)

    def test_chat(self):
        ask = dict(model="storyteller", messages=[{"role": "user", "content": "Tell me a tale."}], seed=4,
                   max_completion_tokens=12, logprobs=True, top_logprobs=3)
        whole = self.client.chat.completions.create(**ask)
        message = whole.choices[0].message
        self.assertEqual(message.role, "assistant")
        self.assertTrue(message.content)
        self.assertFalse(message.tool_calls)
        self.assertEqual(len(whole.choices[0].logprobs.content), whole.usage.completion_tokens)
        self.assertEqual(whole.usage.prompt_tokens_details.cached_tokens, 0)
        text = ""
        with self.client.chat.completions.create(**ask, stream=True) as stream:
            for i, chunk in enumerate(stream):
                delta = chunk.choices[0].delta
                self.assertEqual(delta.role, "assistant" if i == 0 else None)
                text += delta.content
        self.assertEqual(text, message.content)
        self.assertIn(chunk.choices[0].finish_reason, ("stop", "length"))

    def test_stream_helper(self):
        # the helper wants an answer that ends by itself: after three tokens, EOS (2) it is
        with self.client.chat.completions.stream(model="storyteller", logit_bias={"2": 100},
                                                 extra_body={"min_tokens": 3}, messages=[{"role": "user", "content": "Hi"}]) as stream:
            for _ in stream:
                pass
            self.assertTrue(stream.get_final_completion().choices[0].message.content)

    def test_errors(self):
        messages = [{"role": "user", "content": "x"}]
        with self.assertRaises(openai.NotFoundError) as e:
            self.client.chat.completions.create(model="other", messages=messages)
        self.assertEqual(e.exception.param, "model")
        with self.assertRaises(openai.BadRequestError) as e:
            self.client.chat.completions.create(model="storyteller", messages=messages, temperature=9)
        self.assertEqual((e.exception.param, e.exception.body["code"]), ("temperature", 400))
        with self.assertRaises(openai.BadRequestError):
            list(self.client.completions.create(model="storyteller", prompt="x", max_tokens=9999, stream=True))
        with self.assertRaises(openai.AuthenticationError):
            self.client.with_options(api_key="wrong").models.list()

    def test_leaving_a_stream(self):
        for _ in range(3):
            stream = self.client.completions.create(model="storyteller", prompt="x", max_tokens=4000, stream=True,
                                                    extra_body={"ignore_eos": True})
            next(iter(stream))
            stream.close()
        self.assertTrue(self.client.completions.create(model="storyteller", prompt="x", max_tokens=2).choices)

    def test_async_concurrency(self):
        async def run():
            async with openai.AsyncOpenAI(max_retries=0, timeout=60) as client:
                asks = [client.completions.create(model="storyteller", prompt=f"Chapter {i % 4}", max_tokens=10, seed=1)
                        for i in range(24)]
                return await asyncio.gather(*asks)
        texts = [a.choices[0].text for a in asyncio.run(run())]
        for i, text in enumerate(texts):
            self.assertEqual(text, texts[i % 4])


if __name__ == "__main__":
    unittest.main()
