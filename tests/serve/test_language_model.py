"""`load` and what a loaded model answers."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import foundling
from foundling.core.errors import UserError
from foundling.models.hub import save_model
from foundling.serve.language_model import LanguageModel
from foundling.serve.load import load
from foundling.tokenizers.base import Tokenizer
from tests.decoding.test_generate import greedy, logits_of
from tests.serve.conftest import small_model


def test_a_run_folder_and_a_model_folder_load_the_same(model_folder: Path) -> None:
    one, other = foundling.load(model_folder), load(model_folder.parent)
    assert one.config == other.config
    assert torch.equal(one.logits([1, 2, 3]), other.logits([1, 2, 3]))
    assert one.tokenizer.sha256 == other.tokenizer.sha256


def test_logits_are_the_models(model_folder: Path) -> None:
    lm = load(model_folder)
    logits = lm.logits(torch.tensor([4, 5, 6]))
    assert logits.shape == (3, 300)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, logits_of(small_model(), [4, 5, 6]), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="at most 40 ids"):
        lm.logits([1] * 41)
    with pytest.raises(UserError, match="got 300"):
        lm.logits([300])


def test_text_goes_on_as_tokens_do(model_folder: Path) -> None:
    lm = load(model_folder)
    ids = lm.tokenizer.encode("The old man")
    expected = greedy(lm.model, ids, 12)
    if lm.tokenizer.eos_id in expected:
        expected = expected[: expected.index(lm.tokenizer.eos_id)]
    whole = lm.tokenizer.decode(ids + expected)
    assert "The old man" + lm.generate("The old man", max_tokens=12, temperature=0) == whole
    pieces = list(lm.stream("The old man", max_tokens=12, temperature=0))
    assert "".join(pieces) == whole.removeprefix("The old man")
    assert len(pieces) > 1
    assert lm.generate("The", max_tokens=9, seed=3) == lm.generate("The", max_tokens=9, seed=3)


def test_an_empty_prompt_is_the_beginning_of_a_document(model_folder: Path) -> None:
    lm = load(model_folder)
    assert lm.prompt_ids("") == [lm.tokenizer.eos_id]
    assert lm.prompt_ids("The") == lm.tokenizer.encode("The")
    assert isinstance(lm.generate("", max_tokens=3, seed=0), str)


def test_a_bos_that_the_tokenizer_adds_is_added(model_folder: Path) -> None:
    """As Llama's tokenizer does; the ids are those of transformers for the same folder."""
    transformers = pytest.importorskip("transformers")
    path = model_folder / "tokenizer.json"
    data = json.loads(path.read_text())
    bos = "<|endoftext|>"
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}},
    }
    path.write_text(json.dumps(data))
    (model_folder / "manifest.json").unlink()
    lm = load(model_folder)
    theirs = transformers.AutoTokenizer.from_pretrained(model_folder)
    assert lm.prompt_ids("The sea") == theirs("The sea")["input_ids"]
    assert lm.prompt_ids("The sea")[0] == lm.tokenizer.bos_id
    assert lm.prompt_ids("") == theirs("")["input_ids"]


def test_it_stops_at_the_ids_that_the_folder_names(model_folder: Path) -> None:
    lm = load(model_folder)
    assert lm.stop_ids == {lm.tokenizer.eos_id}
    stop = greedy(lm.model, lm.tokenizer.encode("The"), 5)[3]
    path = model_folder / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [stop, 9]}))
    lm = load(model_folder)
    assert lm.stop_ids == {stop, 9, lm.tokenizer.eos_id}


def test_bits_per_byte_is_that_of_the_text(model_folder: Path) -> None:
    lm = load(model_folder)
    ids = [lm.tokenizer.eos_id, *lm.tokenizer.encode("Öl, why?"), lm.tokenizer.eos_id]
    losses = torch.nn.functional.cross_entropy(lm.logits(ids)[:-1], torch.tensor(ids[1:]), reduction="sum")
    expected = float(losses) / torch.log(torch.tensor(2.0)).item() / len("Öl, why?".encode())
    assert lm.bits_per_byte("Öl, why?") == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="text to score"):
        lm.bits_per_byte("")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(model_folder: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="at most as many; got 300"):
        LanguageModel(small_model(vocab_size=299), tokenizer)
    with pytest.raises(UserError, match="at most as many"):
        save_model(small_model(vocab_size=299), model_folder.parent / "other", tokenizer=tokenizer)
    assert not (model_folder.parent / "other").exists()


def test_transformers_reads_the_whole_folder(model_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    lm = load(model_folder)
    ids = tokenizer("The old man")["input_ids"]
    assert ids == lm.prompt_ids("The old man")
    assert model.generation_config.eos_token_id == lm.tokenizer.eos_id
    assert model.get_input_embeddings().padding_idx is None, "eos pads too, and its embedding must be trained"
    answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
    text = tokenizer.decode(answer, skip_special_tokens=True)
    assert text == lm.generate("The old man", max_tokens=12, temperature=0)


def test_what_is_no_model_is_told(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"hold a config\.json"):
        load(tmp_path / "empty")
    (tmp_path / "empty" / "recipe.yaml").write_text("name: x")
    with pytest.raises(UserError, match="finish the run"):
        load(tmp_path / "empty")
    shutil.copytree(model_folder, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load(tmp_path / "bare")
