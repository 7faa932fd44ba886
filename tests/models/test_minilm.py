"""The encoder and its texts, with a few random weights, against BERT written down in numpy."""

import json
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import ember_xcs as xcs
from ember_xcs.errors import ModelError
from ember_xcs.models import MiniLM
from tests.models.safetensors_files import write_safetensors

WIDTH, INNER, HEADS, LAYERS, LONGEST = 8, 16, 2, 2, 300
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]


def random_arrays():
    random = np.random.default_rng(0)

    def draw(*shape):
        return random.standard_normal(shape).astype(np.float32) / 3

    arrays = {
        "embeddings.word_embeddings.weight": draw(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": draw(LONGEST, WIDTH),
        "embeddings.token_type_embeddings.weight": draw(2, WIDTH),
    }
    norms, products = ["embeddings.LayerNorm"], {}
    for k in range(LAYERS):
        layer = f"encoder.layer.{k}"
        for part in ("query", "key", "value"):
            products[f"{layer}.attention.self.{part}"] = WIDTH, WIDTH
        products[f"{layer}.attention.output.dense"] = WIDTH, WIDTH
        products[f"{layer}.intermediate.dense"] = INNER, WIDTH
        products[f"{layer}.output.dense"] = WIDTH, INNER
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in norms:
        arrays |= {f"{name}.weight": 1 + draw(WIDTH), f"{name}.bias": draw(WIDTH)}
    for name, shape in products.items():
        arrays |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    return arrays


def embedding_by_hand(arrays, tokens):
    """BERT, its mean and its norm, in float64, for one text without padding."""

    def affine(x, name):
        return x @ arrays[f"{name}.weight"].T.astype(float) + arrays[f"{name}.bias"]

    def normed(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]

    x = arrays["embeddings.word_embeddings.weight"][tokens]
    x = x + arrays["embeddings.position_embeddings.weight"][: len(tokens)]
    x = normed(x + arrays["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for k in range(LAYERS):
        layer, parts = f"encoder.layer.{k}", []
        q, key, value = (
            affine(x, f"{layer}.attention.self.{p}") for p in ("query", "key", "value")
        )
        for head in np.split(np.arange(WIDTH), HEADS):
            scores = q[:, head] @ key[:, head].T / math.sqrt(WIDTH // HEADS)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(shares / shares.sum(-1, keepdims=True) @ value[:, head])
        attended = affine(np.concatenate(parts, -1), f"{layer}.attention.output.dense")
        x = normed(x + attended, f"{layer}.attention.output.LayerNorm")
        inner = affine(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = normed(x + affine(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("minilm")
    write_safetensors(where / "model.safetensors", random_arrays())
    (where / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    vocabulary = {word: k for k, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    words.enable_padding(length=16)
    words.enable_truncation(12)
    words.save(str(where / "tokenizer.json"))
    return where


@pytest.fixture(scope="module")
def small(folder):
    return MiniLM(folder)


TEXTS = ["a b", "c", "", "d e f g h a b c d e f g h a b c d e", "h h h zebra"]


def test_embeddings_are_those_by_hand(small):
    arrays = random_arrays()
    found = small.embed(TEXTS)
    for text, embedding in zip(TEXTS, found, strict=True):
        expected = embedding_by_hand(arrays, small.encode(text))
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_padding_changes_nothing(small):
    tokens = small.encode("a b c")
    np.testing.assert_allclose(small(tokens), small(small.encode("a b c", 40)), atol=1e-6)


def test_many_texts_keep_their_order(small):
    texts = [" ".join("abcdefgh"[k % 8] * (1 + k % 25)) for k in range(80)]
    together = small.embed(texts)
    for k in (0, 20, 40, 79):
        np.testing.assert_allclose(together[k], small.embed([texts[k]])[0], atol=1e-6)


def test_no_texts_have_no_embeddings(small):
    assert small.embed([]).shape == (0, WIDTH)


def test_an_empty_batch_of_token_ids_has_no_embeddings(small):
    width = small.embed(["one"]).shape[1]
    assert small(np.zeros((0, 8), np.int32)).shape == (0, width)


def test_one_text_alone_is_refused(small):
    with pytest.raises(TypeError, match=r"Give \[text\]"):
        small.embed("a b")


def test_a_text_that_is_too_long_is_cut_before_its_end(small):
    tokens = small.encode("a " * 400)
    assert len(tokens) == 256
    assert tokens[[0, -1]].tolist() == [2, 3]
    assert small.encode("a b c d", 4).tolist() == [2, 4, 5, 3]


def test_token_ids_beyond_the_positions_are_refused(small):
    with pytest.raises(ValueError, match="length of 1 to 300"):
        small(np.zeros((1, 301), np.int32))


@pytest.mark.parametrize("transform", [xcs.jit, xcs.vmap, xcs.pmap, jax.vmap])
def test_the_operator_is_transformed_like_any_other(small, transform):
    tokens = np.stack([small.encode(text, 24) for text in TEXTS])
    np.testing.assert_allclose(transform(small)(tokens), small.embed(TEXTS), atol=1e-5)


def test_gradients_reach_the_weights(small):
    tokens = small.encode("a b c")

    def first(model):
        return model(tokens)[0]

    slopes = xcs.grad(first)(small)
    step = jnp.zeros_like(small.weights.norm.bias).at[1].set(1e-2)
    moved = [
        small.replace(
            weights=small.weights._replace(
                norm=small.weights.norm._replace(bias=small.weights.norm.bias + sign * step)
            )
        )
        for sign in (1, -1)
    ]
    expected = (first(moved[0]) - first(moved[1])) / 2e-2
    np.testing.assert_allclose(slopes.weights.norm.bias[1], expected, rtol=1e-2, atol=1e-4)


def test_a_pickle_is_the_folder_and_not_the_weights(small):
    data = pickle.dumps(small)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).embed(TEXTS), small.embed(TEXTS))


def test_a_folder_without_all_weights_is_refused(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    arrays = random_arrays()
    del arrays["embeddings.LayerNorm.bias"]
    write_safetensors(tmp_path / "model.safetensors", arrays)
    with pytest.raises(ModelError, match=r"'embeddings\.LayerNorm\.bias' is missing"):
        MiniLM(tmp_path)


def test_it_prints_in_a_line(small):
    assert repr(small) == "MiniLM('minilm', float32)"
