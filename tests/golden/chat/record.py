"""Records what Jinja2, as transformers sets it up, makes of the templates here: expr.json (small cases) and chats.json
(conversations through the templates of real models). Run with a Python that has transformers and jinja2.

The templates qwen3, qwen2_5 and mistral_nemo are those of the Qwen and Mistral teams' checkpoints (Apache-2.0),
deepseek_v3 is DeepSeek's (MIT). blocks and parts are our own, for constructs that others use."""
import itertools
import json
import pathlib

from transformers.utils import chat_template_utils as u

from cases import CTX, cases

HERE = pathlib.Path(__file__).parent
SKIP = ("object at 0x", "<generator", "<built-in", "<bound", "<Loop", "<class", "<method", "<function")


def small():
    out = []
    for text, ctx in cases():
        case = {"t": text}
        try:
            case["o"] = u._cached_compile_jinja_template(text).render(**ctx)
            if any(s in case["o"] for s in SKIP):
                continue
        except Exception as e:
            case["e"] = f"{type(e).__name__}: {e}"[:200]
        out.append(case)
    return {"context": CTX, "cases": out}


TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather of a <city> & \"more\"", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Ville é"}, "days": {"type": "integer", "default": 1.5}},
        "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}}},
]
U, A, S = ({"role": r} for r in ("user", "assistant", "system"))
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "call00001", "type": "function", "function": {
    "name": "get_weather", "arguments": "{\"city\": \"Köln\", \"days\": 2}"}}]}
CALL2 = {"role": "assistant", "content": "Let me see.", "tool_calls": [
    {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}},
    {"id": "call00002", "type": "function", "function": {"name": "now", "arguments": ""}}]}
RES = {"role": "tool", "tool_call_id": "call00001", "content": "{\"t\": 20}"}
RES2 = {"role": "tool", "tool_call_id": "call00002", "content": "12:00"}
CHATS = [
    [{**U, "content": "Hi"}],
    [{**S, "content": "Be brief."}, {**U, "content": "Hi\n"}],
    [{**U, "content": "Hi"}, {**A, "content": "Hello!"}, {**U, "content": " How are you? "}],
    [{**S, "content": "S"}, {**U, "content": "a"}, {**A, "content": "b"}, {**U, "content": "c"}, {**A, "content": "d"}],
    [{**U, "content": "q"}, {**A, "content": "<think>\nhm\n</think>\n\nanswer"}, {**U, "content": "more"}],
    [{**U, "content": "q"}, {**A, "content": "answer", "reasoning_content": "hm\n"}, {**U, "content": "more"}, {**A, "content": "x", "reasoning": "why"}],
    [{**U, "content": "weather?"}, CALL, RES],
    [{**S, "content": "T"}, {**U, "content": "weather?"}, CALL2, RES, RES2],
    [{**U, "content": "weather?"}, CALL, RES, {**A, "content": "20 degrees"}, {**U, "content": "thanks"}],
    [{**U, "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
    [{**S, "content": "x"}], [], [{**A, "content": "start"}], [{**U, "content": ""}, {**A, "content": ""}],
    [{**U, "content": "日本語 🎉 <|im_start|> \u0000 é"}],
    [{**U, "content": "a"}, {**U, "content": "b"}],
]


def prepare(messages, lists):
    """What vLLM does before rendering."""
    out = []
    for m in json.loads(json.dumps(messages)):
        c = m.get("content")
        parts = [] if c is None else [{"type": "text", "text": c}] if isinstance(c, str) else c
        m["content"] = parts if lists else "\n".join(p["text"] for p in parts)
        for call in m.get("tool_calls", []):
            f = call["function"]
            f["arguments"] = json.loads(f["arguments"]) if f["arguments"] else {}
        out.append(m)
    return out


TEMPLATES = {
    "qwen3": ({"eos_token": "<|im_end|>"}, [{}, {"enable_thinking": False}]),
    "qwen2_5": ({"eos_token": "<|im_end|>"}, [{}]),
    "mistral_nemo": ({"bos_token": "<s>", "eos_token": "</s>"}, [{}]),
    "deepseek_v3": ({"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}, [{}]),
    "blocks": ({"bos_token": "<|begin|>"}, [{}, {"date_string": "26 Jul 2024", "tools_in_user_message": False}]),
    "parts": ({"bos_token": "<bos>"}, [{}]),
}


def chats():
    out = []
    for name, (tokens, kwargs) in TEMPLATES.items():
        text = (HERE / f"{name}.jinja").read_text()
        for kw, chat, tools, (gen, cont) in itertools.product(kwargs, CHATS, (None, TOOLS), ((True, False), (False, False), (False, True))):
            if cont and not (chat and chat[-1]["role"] == "assistant" and chat[-1]["content"] is not None):
                continue
            case = {"template": name, "tokens": tokens, "messages": chat, "tools": tools, "kwargs": kw, "gen": gen, "cont": cont}
            try:
                r, _ = u.render_jinja_template([prepare(chat, name == "parts")], tools=tools, chat_template=text,
                                               add_generation_prompt=gen, continue_final_message=cont, **tokens, **kw)
                case["o"] = r[0]
            except Exception as e:
                case["e"] = f"{type(e).__name__}: {e}"[:200]
            out.append(case)
    return out


for name, value in (("expr", small()), ("chats", chats())):
    rows = value["cases"] if name == "expr" else value
    print(name, len(rows), "cases,", sum("e" in r for r in rows), "errors")
    text = ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    head = '{"context": ' + json.dumps(CTX, ensure_ascii=False) + ',\n"cases": [\n' if name == "expr" else '{"cases": [\n'
    (HERE / f"{name}.json").write_text(head + text + "\n]}\n")
