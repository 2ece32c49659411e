#!/usr/bin/env python3
"""Shapes and validation of every route, over the bundled model."""
import concurrent.futures
import json
import unittest

from harness import STORYTELLER, Server, dummy

MANY = 1 << 40


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(STORYTELLER, "--served-model-name", "storyteller", "alias", "--max-model-len", "1K")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def assert_error(self, path, body, status=400, param=None, text=None):
        got, answer = self.server.post(path, body)
        self.assertEqual(got, status, answer)
        error = answer["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["code"], status)
        if param:
            self.assertEqual(error["param"], param, error)
        if text:
            self.assertIn(text, error["message"])

    # ---- small routes ----

    def test_models(self):
        status, models = self.server.get("/v1/models")
        self.assertEqual(status, 200)
        self.assertEqual(models["object"], "list")
        self.assertEqual([m["id"] for m in models["data"]], ["storyteller", "alias"])
        for m in models["data"]:
            self.assertEqual(m["object"], "model")
            self.assertEqual(m["root"], STORYTELLER)
            self.assertEqual(m["max_model_len"], 1024)
        self.assertEqual(self.server.get("/v1/models/alias")[1]["id"], "alias")
        self.assertEqual(self.server.get("/v1/models/other")[0], 404)

    def test_health_and_version(self):
        for path in ("/health", "/ping"):
            self.assertEqual(self.server.request("GET", path)[::2], (200, b""))
        self.assertEqual(self.server.request("POST", "/ping", "")[0], 200)
        self.assertEqual(self.server.request("HEAD", "/health")[::2], (200, b""))
        self.assertRegex(self.server.get("/version")[1]["version"], r"^\d+\.\d+")

    def test_unknown_routes_and_methods(self):
        for method, path, status in [("GET", "/nope", 404), ("POST", "/v1", 404), ("GET", "/v1/completions", 405),
                                     ("POST", "/v1/models", 405), ("DELETE", "/health", 405), ("PUT", "/tokenize", 405),
                                     ("GET", "/", 404), ("GET", "/v1/models/", 404), ("GET", "//health", 404)]:
            got, _, data = self.server.request(method, path, "" if method != "GET" else None)
            self.assertEqual(got, status, (method, path))
            self.assertEqual(json.loads(data)["error"]["code"], status)

    def test_cors(self):
        status, headers, _ = self.server.request("OPTIONS", "/v1/chat/completions", headers={
            "Origin": "http://example.org", "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type"})
        self.assertEqual(status, 200)
        self.assertEqual(headers["Access-Control-Allow-Origin"], "*")
        self.assertIn("POST", headers["Access-Control-Allow-Methods"])
        self.assertEqual(headers["Access-Control-Allow-Headers"], "authorization,content-type")
        _, headers, _ = self.server.request("GET", "/v1/models", headers={"Origin": "http://example.org"})
        self.assertEqual(headers["Access-Control-Allow-Origin"], "*")

    def test_tokenize_round_trip(self):
        for text in ("Once upon a time", "Zażółć gęślą jaźń 日本語 🎉", "a\u0000b", ""):
            status, t = self.server.post("/tokenize", {"prompt": text, "return_token_strs": True})
            self.assertEqual(status, 200, t)
            self.assertEqual(t["count"], len(t["tokens"]))
            self.assertEqual(t["max_model_len"], 1024)
            self.assertEqual(len(t["token_strs"]), t["count"])
            self.assertEqual(self.server.post("/detokenize", {"tokens": t["tokens"]})[1]["prompt"], text)
        self.assertIsNone(self.server.post("/tokenize", {"prompt": "x"})[1]["token_strs"])

    def test_tokenize_messages(self):
        messages = [{"role": "user", "content": "Hello"}]
        status, t = self.server.post("/tokenize", {"messages": messages})
        self.assertEqual(status, 200, t)
        text = self.server.post("/detokenize", {"tokens": t["tokens"]})[1]["prompt"]
        self.assertEqual(text, "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
        _, t = self.server.post("/tokenize", {"messages": messages, "add_generation_prompt": False})
        text = self.server.post("/detokenize", {"tokens": t["tokens"]})[1]["prompt"]
        self.assertEqual(text, "<|im_start|>user\nHello<|im_end|>\n")
        # the prompt that chat uses is the one that tokenize shows
        answer = self.server.chat("Hello", max_tokens=1, return_token_ids=True)
        self.assertEqual(answer["prompt_token_ids"], self.server.post("/tokenize", {"messages": messages})[1]["tokens"])

    def test_tokenize_errors(self):
        for body in ({}, {"prompt": 3}, {"prompt": ["a"]}, {"prompt": "x", "messages": []}, {"messages": []},
                     {"messages": "x"}, {"prompt": "x", "add_special_tokens": 1}):
            self.assert_error("/tokenize", body)
        for body in ({}, {"tokens": "x"}, {"tokens": [1.5]}, {"tokens": [-1]}, {"tokens": [MANY]}, {"tokens": [True]},
                     {"tokens": None}):
            self.assert_error("/detokenize", body)
        self.assert_error("/tokenize", {"model": "other", "prompt": "x"}, 404, "model")

    # ---- completions ----

    def test_completion_shape(self):
        a = self.server.complete(model="alias", prompt="Once upon a time", max_tokens=5, temperature=0)
        self.assertTrue(a["id"].startswith("cmpl-"))
        self.assertEqual((a["object"], a["model"]), ("text_completion", "alias"))
        self.assertIsInstance(a["created"], int)
        (c,) = a["choices"]
        self.assertEqual((c["index"], c["logprobs"], c["finish_reason"], c["stop_reason"]), (0, None, "length", None))
        self.assertTrue(c["text"])
        u = a["usage"]
        self.assertEqual((u["prompt_tokens"], u["completion_tokens"], u["total_tokens"]), (5, 5, 10))
        self.assertIn("cached_tokens", u["prompt_tokens_details"])

    def test_default_max_tokens(self):
        a = self.server.complete(prompt="Once upon a time", ignore_eos=True)
        self.assertEqual(a["usage"]["completion_tokens"], 16)

    def test_prompt_forms_agree(self):
        text = "Once upon a time"
        ids = self.server.post("/tokenize", {"prompt": text})[1]["tokens"]
        forms = [text, [text], ids, [ids]]
        texts = {self.server.complete(prompt=p, max_tokens=8, temperature=0)["choices"][0]["text"] for p in forms}
        self.assertEqual(len(texts), 1, texts)

    def test_many_prompts_and_n(self):
        prompts = ["Once upon a time", "The king", "In the forest"]
        a = self.server.complete(prompt=prompts, n=2, max_tokens=6, seed=3, temperature=1)
        self.assertEqual([c["index"] for c in a["choices"]], list(range(6)))
        # sample j of a prompt is what the prompt gives by itself with seed + j
        for i, prompt in enumerate(prompts):
            for j in range(2):
                one = self.server.complete(prompt=prompt, max_tokens=6, seed=3 + j, temperature=1)
                self.assertEqual(a["choices"][2 * i + j]["text"], one["choices"][0]["text"])
        counts = [self.server.complete(prompt=p, max_tokens=1)["usage"]["prompt_tokens"] for p in prompts]
        self.assertEqual(a["usage"]["prompt_tokens"], sum(counts))

    def test_logprobs(self):
        a = self.server.complete(prompt="Once upon a time", max_tokens=6, temperature=0, logprobs=3)
        c = a["choices"][0]
        lp = c["logprobs"]
        self.assertEqual({len(v) for v in lp.values()}, {6})
        self.assertEqual("".join(lp["tokens"]), c["text"])
        self.assertEqual(lp["text_offset"][0], 0)
        for token, value, top, offset in zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"], lp["text_offset"]):
            self.assertTrue(3 <= len(top) <= 4, top)
            self.assertLessEqual(value, 0)
            self.assertEqual(top[token], value)
            self.assertEqual(c["text"][offset:offset + len(token)], token)
        zero = self.server.complete(prompt="Once", max_tokens=2, temperature=0, logprobs=0)["choices"][0]["logprobs"]
        self.assertEqual([len(t) for t in zero["top_logprobs"]], [1, 1])
        ids = self.server.complete(prompt="Once", max_tokens=2, logprobs=1, return_tokens_as_token_ids=True)
        for t in ids["choices"][0]["logprobs"]["tokens"]:
            self.assertRegex(t, r"^token_id:\d+$")

    def test_echo_and_prompt_logprobs(self):
        prompt = "Once upon a time"
        a = self.server.complete(prompt=prompt, max_tokens=0, echo=True, logprobs=2)
        c = a["choices"][0]
        self.assertEqual(c["text"], prompt)
        lp = c["logprobs"]
        self.assertEqual("".join(lp["tokens"]), prompt)
        self.assertIsNone(lp["token_logprobs"][0])
        self.assertIsNone(lp["top_logprobs"][0])
        self.assertTrue(all(v <= 0 for v in lp["token_logprobs"][1:]))
        self.assertEqual(a["usage"]["completion_tokens"], 0)
        self.assertEqual(c["finish_reason"], "length")
        both = self.server.complete(prompt=prompt, max_tokens=4, echo=True, logprobs=2, temperature=0)["choices"][0]
        plain = self.server.complete(prompt=prompt, max_tokens=4, logprobs=2, temperature=0)["choices"][0]
        self.assertEqual(both["text"], prompt + plain["text"])
        self.assertEqual(both["logprobs"]["token_logprobs"],
                         lp["token_logprobs"] + plain["logprobs"]["token_logprobs"])
        self.assertEqual("".join(both["logprobs"]["tokens"]), both["text"])
        self.assertEqual(self.server.complete(prompt=prompt, max_tokens=0, echo=True)["choices"][0]["text"], prompt)
        one = self.server.complete(prompt=[5], max_tokens=0, echo=True, logprobs=1)["choices"][0]
        self.assertEqual(one["logprobs"]["token_logprobs"], [None])

        p = self.server.complete(prompt=prompt, max_tokens=1, prompt_logprobs=2)["choices"][0]["prompt_logprobs"]
        self.assertIsNone(p[0])
        ids = self.server.post("/tokenize", {"prompt": prompt})[1]["tokens"]
        self.assertEqual(len(p), len(ids))
        for entry, token, value in zip(p[1:], ids[1:], lp["token_logprobs"][1:]):
            self.assertEqual(next(iter(entry)), str(token))
            self.assertEqual(entry[str(token)]["logprob"], value)
            self.assertTrue(2 <= len(entry) <= 3)
            self.assertEqual(set(entry[str(token)]), {"logprob", "rank", "decoded_token"})
            self.assertEqual({1, 2} - {e["rank"] for e in entry.values()}, set())

    def test_stop(self):
        greedy = {"prompt": "Once upon a time", "max_tokens": 30, "temperature": 0}
        full = self.server.complete(**greedy)["choices"][0]["text"]
        for start, end in ((3, 12), (5, 6), (10, 31), (0, 4)):
            stop = full[start:end]
            at = full.index(stop)
            c = self.server.complete(**greedy, stop=[stop, "never in there"])["choices"][0]
            self.assertEqual((c["text"], c["finish_reason"], c["stop_reason"]), (full[:at], "stop", stop))
            c = self.server.complete(**greedy, stop=stop, include_stop_str_in_output=True)["choices"][0]
            self.assertEqual(c["text"], full[:at] + stop)
        c = self.server.complete(**greedy, stop=full[:4], min_tokens=10)["choices"][0]
        self.assertTrue(c["text"].startswith(full[:4]))
        self.assertEqual(self.server.complete(**greedy, stop=["zzzz", "qqqq"])["choices"][0]["text"], full)

    def test_stop_token_ids(self):
        a = self.server.complete(prompt="Once upon a time", max_tokens=8, temperature=0, return_token_ids=True)
        ids = a["choices"][0]["token_ids"]
        self.assertEqual(a["choices"][0]["prompt_token_ids"],
                         self.server.post("/tokenize", {"prompt": "Once upon a time"})[1]["tokens"])
        c = self.server.complete(prompt="Once upon a time", max_tokens=8, temperature=0, stop_token_ids=[ids[4]],
                                 return_token_ids=True)["choices"][0]
        at = ids.index(ids[4])
        self.assertEqual((c["finish_reason"], c["stop_reason"], c["token_ids"]), ("stop", ids[4], ids[:at + 1]))
        self.assertEqual(c["text"], self.server.post("/detokenize", {"tokens": ids[:at]})[1]["prompt"])

    def test_eos(self):
        # the model's EOS, forced: it is no text, and no stop_reason
        eos = 2
        c = self.server.complete(prompt="Once", max_tokens=5, logit_bias={str(eos): 100})["choices"][0]
        self.assertEqual((c["text"], c["finish_reason"], c["stop_reason"]), ("", "stop", None))
        c = self.server.complete(prompt="Once", max_tokens=5, logit_bias={str(eos): 100}, ignore_eos=True,
                                 skip_special_tokens=False)["choices"][0]
        self.assertEqual((c["finish_reason"], c["text"]), ("length", "<|im_end|>" * 5))
        c = self.server.complete(prompt="Once", max_tokens=5, min_tokens=3, logit_bias={str(eos): 100})
        self.assertGreaterEqual(c["usage"]["completion_tokens"], 4)

    def test_seed(self):
        ask = {"prompt": "The old", "max_tokens": 12, "temperature": 1.0}
        one, two = (self.server.complete(**ask, seed=11)["choices"][0]["text"] for _ in range(2))
        self.assertEqual(one, two)
        self.assertGreater(len({self.server.complete(**ask, seed=s)["choices"][0]["text"] for s in range(5)}), 1)
        self.assertGreater(len({self.server.complete(**ask)["choices"][0]["text"] for _ in range(5)}), 1)
        self.server.complete(**ask, seed=-1)
        self.server.complete(**ask, seed=-(1 << 63))
        self.server.complete(**ask, seed=(1 << 63) - 1, n=3)

    def test_same_bytes_alone_or_in_company(self):
        asks = [{"prompt": p, "max_tokens": 24, "temperature": 1.0, "seed": i, "logprobs": 2}
                for i, p in enumerate(["Once upon a time", "The king said", "A" * 300, "In the dark wood " * 30] * 3)]
        alone = [self.server.complete(**a)["choices"] for a in asks]
        with concurrent.futures.ThreadPoolExecutor(len(asks)) as pool:
            together = list(pool.map(lambda a: self.server.complete(**a)["choices"], asks))
        self.assertEqual(alone, together)

    def test_context_length(self):
        ids = [5] * 1024
        self.assert_error("/v1/completions", {"prompt": ids}, param="prompt", text="maximum context length is 1024")
        self.assert_error("/v1/completions", {"prompt": ids[:1000], "max_tokens": 25}, param="max_tokens")
        self.assert_error("/v1/completions", {"prompt": "word " * 200000}, text="maximum context length")
        self.assert_error("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 9000}]},
                          param="messages", text="maximum context length")
        a = self.server.complete(prompt=ids[:1023], ignore_eos=True)
        self.assertEqual(a["usage"]["completion_tokens"], 1)
        a = self.server.complete(prompt=ids, truncate_prompt_tokens=3, max_tokens=1)
        self.assertEqual(a["usage"]["prompt_tokens"], 3)
        a = self.server.complete(prompt=ids, truncate_prompt_tokens=-1, max_tokens=2, ignore_eos=True)
        self.assertEqual(a["usage"]["total_tokens"], 1024)

    def test_wrong_fields(self):
        for path, base in (("/v1/completions", {"prompt": "x"}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
            for param, value in [
                    ("temperature", -1), ("temperature", "hot"), ("temperature", 2.1), ("temperature", True),
                    ("top_p", 0), ("top_p", 1.1), ("top_p", -0.5), ("top_p", 1e-60), ("top_k", -2), ("top_k", 1.5),
                    ("top_k", MANY), ("min_p", -0.1), ("min_p", 1.1), ("presence_penalty", 3),
                    ("frequency_penalty", -3), ("repetition_penalty", 0), ("repetition_penalty", -1),
                    ("repetition_penalty", 1e30), ("seed", "x"), ("seed", 1.5), ("n", 0), ("n", 129), ("n", MANY),
                    ("n", "2"), ("n", [1]), ("max_tokens", -1), ("max_tokens", 0), ("max_tokens", 1.5),
                    ("max_tokens", MANY), ("max_tokens", 1025), ("min_tokens", -1), ("stop", ""), ("stop", ["a", ""]),
                    ("stop", 3), ("stop", [3]), ("stop", ["x"] * 65), ("stop", "x" * 1025), ("stop", {"a": 1}),
                    ("stop_token_ids", "x"), ("stop_token_ids", ["x"]), ("stop_token_ids", [-1]),
                    ("stop_token_ids", [MANY]), ("stop_token_ids", [1] * 2000), ("logit_bias", []),
                    ("logit_bias", {"x": 1}), ("logit_bias", {"99999999": 1}), ("logit_bias", {"-1": 1}),
                    ("logit_bias", {"1": "x"}), ("logit_bias", {"1x": 1}), ("logit_bias", {"": 1}),
                    ("stream", "yes"), ("stream", 1), ("ignore_eos", 1), ("skip_special_tokens", "no"),
                    ("stream_options", {"include_usage": True}), ("stream_options", 3), ("prompt_logprobs", 21),
                    ("prompt_logprobs", -1), ("prompt_logprobs", "x"), ("model", 3), ("model", ["storyteller"]),
                    ("model", "story\u0000teller"), ("request_id", 5), ("truncate_prompt_tokens", -2),
                    # known, but not done here
                    ("best_of", 2), ("use_beam_search", True), ("bad_words", ["x"]), ("priority", 1),
                    ("response_format", {"type": "json_object"}), ("structured_outputs", {"regex": "a"}),
                    ("guided_json", {}), ("guided_choice", ["a"]), ("allowed_token_ids", [1]), ("prompt_embeds", "x"),
                    ("logits_processors", ["x"])]:
                with self.subTest(path=path, param=param, value=value):
                    self.assert_error(path, {**base, param: value}, param=param)
            self.assert_error(path, {**base, "model": "other"}, 404, "model", "does not exist")
            self.assert_error(path, {**base, "min_tokens": 5, "max_tokens": 4}, param="min_tokens")
            self.assert_error(path, {**base, "n": 2, "temperature": 0}, param="n")
            self.assert_error(path, {**base, "stream": True, "prompt_logprobs": 1}, param="prompt_logprobs")

    def test_wrong_prompts(self):
        for prompt in (None, 3, {}, [], "", [""], [[]], ["a", 1], [1, "a"], [[1], 2], [1.5], [[1.5]], [True], [None],
                       [-1], [[MANY]], [99999], ["x", None], [["a"]]):
            with self.subTest(prompt=prompt):
                self.assert_error("/v1/completions", {"prompt": prompt}, param="prompt")
        self.assert_error("/v1/completions", {}, param="prompt")
        self.assert_error("/v1/completions", {"prompt": ["x"] * 2049}, param="prompt")
        self.assert_error("/v1/completions", {"prompt": ["x"] * 100, "n": 100}, param="prompt")
        self.assert_error("/v1/completions", {"prompt": "x", "logprobs": 21}, param="logprobs", text="max allowed: 20")
        self.assert_error("/v1/completions", {"prompt": "x", "logprobs": -1}, param="logprobs")
        self.assert_error("/v1/completions", {"prompt": "x", "logprobs": True}, param="logprobs")
        self.assert_error("/v1/completions", {"prompt": "x", "suffix": "y"}, param="suffix")

    def test_harmless_fields(self):
        a = self.server.complete(
            prompt="Once", max_tokens=2, best_of=1, suffix=None, user="me", response_format={"type": "text"},
            priority=0, use_beam_search=False, spaces_between_special_tokens=True, n=None, stop=[], stop_token_ids=[],
            logit_bias={}, stream=False, unknown_field={"deep": [1]}, bad_words=[], temperature=None,
            repetition_penalty=1.0, length_penalty=1.0, add_special_tokens=False, logprobs=None)
        self.assertEqual(a["usage"]["completion_tokens"], 2)
        self.server.wait_for("without effect: unknown_field", 5)

    def test_request_id(self):
        _, _, data = self.server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1},
                                         headers={"X-Request-Id": 'a"b 1'})
        self.assertEqual(json.loads(data)["id"], 'cmpl-a"b_1')
        self.assertEqual(self.server.complete(prompt="x", max_tokens=1, request_id="mine")["id"], "cmpl-mine")

    # ---- chat ----

    def test_chat_shape(self):
        a = self.server.chat(max_tokens=6, seed=1)
        self.assertTrue(a["id"].startswith("chatcmpl-"))
        self.assertEqual(a["object"], "chat.completion")
        (c,) = a["choices"]
        self.assertEqual(c["message"]["role"], "assistant")
        self.assertTrue(c["message"]["content"])
        self.assertEqual(c["message"]["tool_calls"], [])
        self.assertEqual((c["logprobs"], c["finish_reason"], c["stop_reason"]), (None, "length", None))
        self.assertEqual(self.server.chat(max_completion_tokens=3, max_tokens=9, ignore_eos=True)["usage"]["completion_tokens"], 3)
        a = self.server.chat(n=3, max_tokens=4, seed=1, temperature=1)
        self.assertEqual([c["index"] for c in a["choices"]], [0, 1, 2])

    def test_chat_logprobs(self):
        c = self.server.chat(max_tokens=5, temperature=0, logprobs=True, top_logprobs=4)["choices"][0]
        content = c["logprobs"]["content"]
        self.assertEqual(len(content), 5)
        self.assertEqual("".join(t["token"] for t in content), c["message"]["content"])
        for t in content:
            self.assertEqual(set(t), {"token", "logprob", "bytes", "top_logprobs"})
            self.assertEqual(bytes(t["bytes"]).decode(), t["token"])
            self.assertEqual(len(t["top_logprobs"]), 4)
            values = [p["logprob"] for p in t["top_logprobs"]]
            self.assertEqual(values, sorted(values, reverse=True))
        c = self.server.chat(max_tokens=2, logprobs=True)["choices"][0]
        self.assertEqual([t["top_logprobs"] for t in c["logprobs"]["content"]], [[], []])
        self.assertIsNone(self.server.chat(max_tokens=2, logprobs=False)["choices"][0]["logprobs"])
        messages = [{"role": "user", "content": "x"}]
        self.assert_error("/v1/chat/completions", {"messages": messages, "top_logprobs": 2}, param="top_logprobs")
        self.assert_error("/v1/chat/completions", {"messages": messages, "logprobs": True, "top_logprobs": 21},
                          param="top_logprobs")
        self.assert_error("/v1/chat/completions", {"messages": messages, "logprobs": 2}, param="logprobs")

    def test_chat_messages(self):
        parts = [{"type": "text", "text": "Tell me"}, {"type": "text", "text": "a tale."}]
        ask = {"max_tokens": 6, "temperature": 0, "return_token_ids": True}
        joined = self.server.chat("Tell me\na tale.", **ask)
        self.assertEqual(self.server.chat(parts, **ask)["prompt_token_ids"], joined["prompt_token_ids"])
        calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]
        status, a = self.server.post("/v1/chat/completions", {"max_tokens": 2, "messages": [
            {"role": "system", "content": "s"}, {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "content": "r", "tool_call_id": "1"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"})
        self.assertEqual(status, 200, a)

        def bad(messages, **more):
            self.assert_error("/v1/chat/completions", {"messages": messages, **more})
        user = {"role": "user", "content": "x"}
        for messages in (None, "x", [], {}, [3], ["x"], [{}], [{"content": "x"}], [{"role": "user"}], [{"role": 3, "content": "x"}],
                         [{"role": "user", "content": None}], [{"role": "user", "content": 3}],
                         [{"role": "user", "content": {"a": 1}}], [{"role": "user", "content": [3]}],
                         [{"role": "user", "content": [{"type": "text"}]}],
                         [{"role": "user", "content": [{"type": "text", "text": 3}]}],
                         [{"role": "assistant", "tool_calls": 3}], [{"role": "assistant", "tool_calls": [3]}],
                         [{"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}],
                         [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]):
            with self.subTest(messages=messages):
                bad(messages)
        self.assert_error("/v1/chat/completions", {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://x"}}]}]}, text="image_url")
        bad([user], tools=3)
        bad([user], tools=[{"type": "function"}])
        bad([user], tools=[{"type": "function", "function": {"name": ""}}])
        bad([user], chat_template_kwargs=3)
        bad([user], chat_template="{{ x }}")
        bad([user], continue_final_message=True, add_generation_prompt=True)
        for choice in ("required", {"type": "function", "function": {"name": "f"}}, "x", 3):
            self.assert_error("/v1/chat/completions", {"messages": [user], "tool_choice": choice}, param="tool_choice")

    def test_chat_continue_final_message(self):
        messages = [{"role": "user", "content": "Tell."}, {"role": "assistant", "content": "Once upon"}]
        body = {"messages": messages, "continue_final_message": True, "max_tokens": 4, "return_token_ids": True}
        status, a = self.server.post("/v1/chat/completions", body)
        self.assertEqual(status, 200, a)
        text = self.server.post("/detokenize", {"tokens": a["prompt_token_ids"]})[1]["prompt"]
        self.assertTrue(text.endswith("<|im_start|>assistant\nOnce upon"), text)
        status, a = self.server.post("/v1/chat/completions", {**body, "echo": True})
        self.assertTrue(a["choices"][0]["message"]["content"].startswith("Once upon"))


class WithoutTokenizer(unittest.TestCase):
    def test_ids_only(self):
        with Server(*dummy("tiny"), "--max-logprobs", "-1", "--api-key", "one", "two", "--api-key", "three",
                    env={"OCTAVO_API_KEY": "four"}) as s:
            key = {"Authorization": "Bearer three"}
            status, a = s.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 4, "return_token_ids": True,
                                                   "ignore_eos": True, "logprobs": -1}, headers=key)
            self.assertEqual(status, 200, a)
            c = a["choices"][0]
            self.assertEqual((c["text"], len(c["token_ids"]), c["prompt_token_ids"]), ("", 4, [1, 2, 3]))
            self.assertEqual([len(t) for t in c["logprobs"]["top_logprobs"]], [512] * 4)
            for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/completions", {"prompt": [1], "stop": "x"}),
                               ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
                               ("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
                status, a = s.post(path, body, headers=key)
                self.assertEqual(status, 400, a)
                self.assertIn("--skip-tokenizer-init", a["error"]["message"])
            for good in ("one", "two", "three", "four"):
                self.assertEqual(s.get("/v1/models", headers={"Authorization": "Bearer " + good})[0], 200)
            for wrong in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer on"}, {"Authorization": "one"},
                          {"Authorization": "Bearer onetwo"}, {"Authorization": "Bearer oneone"}, {"Authorization": "Basic one"}):
                for path in ("/v1/models", "/version", "/nope", "/tokenize"):
                    status, a = s.get(path, headers=wrong)
                    self.assertEqual((status, a["error"]["code"]), (401, 401), (path, wrong))
            self.assertEqual(s.get("/health", headers={})[0], 200)
            self.assertEqual(s.get("/ping", headers={})[0], 200)


if __name__ == "__main__":
    unittest.main()
