"""A GGUF file of a decoder with few random weights, in the form that real ones have."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

WIDTH, INNER, HEADS, KEY_HEADS, LAYERS, CONTEXT = 32, 64, 4, 2, 2, 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["a b", "ab c", "Ġ t", "1 2", "a Ġ"]
Kind = gguf.GGMLQuantizationType


def vocabulary() -> list[str]:
    merged = [merge.replace(" ", "") for merge in MERGES]
    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *merged]


def write_small_gguf(file: Path, *, pre: str = "smollm", architecture: str = "llama") -> Path:
    names = vocabulary()
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(names)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(names) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    for name, (shape, kind) in shapes(len(names)).items():
        draws = np.random.default_rng(len(name)).standard_normal(shape, np.float32)
        array = draws / 4 if len(shape) > 1 else 1 + draws / 8
        data = array if kind is Kind.F32 else gguf.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def shapes(tokens: int) -> dict[str, tuple[tuple[int, ...], Kind]]:
    keys = WIDTH // HEADS * KEY_HEADS
    found = {"token_embd.weight": ((tokens, WIDTH), Kind.Q8_0)}
    for k in range(LAYERS):
        layer = {
            "attn_norm": ((WIDTH,), Kind.F32),
            "attn_q": ((WIDTH, WIDTH), Kind.Q4_1),
            "attn_k": ((keys, WIDTH), Kind.Q4_1),
            "attn_v": ((keys, WIDTH), Kind.Q4_0),
            "attn_output": ((WIDTH, WIDTH), Kind.F16),
            "ffn_norm": ((WIDTH,), Kind.F32),
            "ffn_gate": ((INNER, WIDTH), Kind.Q4_1),
            "ffn_up": ((INNER, WIDTH), Kind.Q4_1),
            "ffn_down": ((WIDTH, INNER), Kind.Q8_0),
        }
        found |= {f"blk.{k}.{name}.weight": value for name, value in layer.items()}
    return found | {"output_norm.weight": ((WIDTH,), Kind.F32)}
