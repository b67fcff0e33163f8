"""Hugging Face folders: the same function of the same weights as transformers, and no fault that stays silent."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from foundling.core.errors import UserError
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.models.gpt import Config, Gpt
from foundling.models.hub import format_for, load_config, load_model, save_model
from foundling.models.hub._weights import SAFETENSORS
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy
from foundling.tokenizers.base import Role
from foundling.tokenizers.char import Config as Char
from foundling.tokenizers.wordpiece import Config as WordPiece
from tests.tiny import tiny_model

transformers = pytest.importorskip("transformers")

VOCAB = 61
LENGTHS_R = torch.tensor([13, 5, 5, 9, 1])
HF: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 32}),
    "gpt2-untied": ("GPT2", {"n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 40, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3", {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10}),
    "qwen3-tied": ("Qwen3", {"num_attention_heads": 3, "num_key_value_heads": 3, "tie_word_embeddings": True}),
    "llama": ("Llama", {"num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
    "llama-tied": ("Llama", {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama-theta": (
        "Llama",
        {"num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    ),
}
SHARED = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 32}

OURS = {
    "gpt2": Config(vocab_size=VOCAB, layers=2, width=24, heads=3, math="gpt2", max_positions=32),
    "gpt2-untied": Config(vocab_size=VOCAB, layers=2, width=24, heads=4, math="gpt2", tied=False, mlp_width=40),
    "qwen3": Config(vocab_size=VOCAB, layers=2, width=24, heads=4, kv_heads=2, head_width=10, rope_theta=500.0),
    "qwen3-untied": Config(vocab_size=VOCAB, layers=1, width=24, heads=2, tied=False),
    "llama": Config(vocab_size=VOCAB, layers=2, width=24, heads=6, kv_heads=2, qk_norm=False),
    "llama-untied": Config(vocab_size=VOCAB, layers=2, width=24, heads=2, qk_norm=False, tied=False, norm_eps=1e-4),
}


def hf_model(name: str, seed: int = 0) -> Any:
    family, keys = HF[name]
    shared = {} if family == "GPT2" else SHARED
    config = getattr(transformers, f"{family}Config")(vocab_size=VOCAB, **shared, **keys)
    torch.manual_seed(seed)
    architecture = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():  # so that no bias is 0 and no norm's weight is 1
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def our_model(config: Config, seed: int = 0) -> Gpt:
    model = config.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return model


@pytest.fixture
def hf_folder(tmp_path: Path) -> Path:
    hf_model("qwen3").save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def edit_config(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def assert_same_function(ours: Gpt, theirs: Any) -> None:
    """Hidden states, logits, loss and every gradient agree to 1e-5, on rows that are packed here and padded there."""
    generator = torch.Generator().manual_seed(1)
    place_T = torch.arange(int(LENGTHS_R.max()))
    mask_RT = place_T < LENGTHS_R[:, None]
    tokens_RT, targets_RT = torch.randint(0, VOCAB, (2, *mask_RT.shape), generator=generator)
    batch = Batch(
        tokens_N=tokens_RT[mask_RT],
        positions_N=place_T.expand_as(mask_RT)[mask_RT],
        bounds_R1=torch.nn.functional.pad(LENGTHS_R.cumsum(0), (1, 0)).int(),
        max_row_length=len(place_T),
        targets_M=targets_RT[mask_RT],
    )
    out = ours(batch)
    answer = theirs(input_ids=tokens_RT, attention_mask=mask_RT.long(), output_hidden_states=True)
    logits = answer.logits[mask_RT]
    torch.testing.assert_close(ours.encode(batch), answer.hidden_states[-1][mask_RT], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.logits(), logits, atol=1e-5, rtol=1e-5)
    loss, _ = linear_cross_entropy(out.hidden_MD, out.head_weight_VD, batch.targets_M, 1 / batch.num_targets, False)
    reference = torch.nn.functional.cross_entropy(logits, batch.targets_M)
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-5)
    loss.backward()
    reference.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    form, config = format_for(ours.config), ours.config
    for weight in form.weights(config):
        grad = ours.get_parameter(weight.ours).grad
        assert grad is not None
        for name, part in zip(weight.theirs, weight.split(grad), strict=True):
            torch.testing.assert_close(part, gradients.pop(name), atol=1e-5, rtol=1e-5)
    assert not gradients, "transformers has parameters that we do not"


@pytest.mark.parametrize("name", HF)
def test_a_folder_of_transformers_is_the_same_function_here(name: str, tmp_path: Path) -> None:
    theirs = hf_model(name)
    theirs.save_pretrained(tmp_path)
    assert_same_function(load_model(tmp_path), theirs)


@pytest.mark.parametrize("name", OURS)
def test_our_folder_is_the_same_function_in_transformers(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    ours = our_model(OURS[name])
    save_model(ours, tmp_path / "model")
    transformers.utils.logging.enable_propagation()
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    assert not [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not [str(warning.message) for warning in recwarn if "transformers" in str(warning.filename)]
    assert theirs.dtype == torch.float32
    assert_same_function(ours, theirs.eval())


@pytest.mark.parametrize("name", OURS)
def test_save_and_load_give_the_same_bits(name: str, tmp_path: Path) -> None:
    ours = our_model(OURS[name])
    save_model(ours, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert back.state_dict().keys() == ours.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    resolved = {"mlp_width": ours.config.inner_width}
    if ours.config.math == "modern":
        resolved |= {"kv_heads": ours.config.groups, "head_width": ours.config.key_width}
    assert back.config == ours.config.model_copy(update=resolved)
    assert load_config(tmp_path / "model") == back.config
    assert all(parameter.requires_grad for parameter in back.parameters())


@pytest.mark.parametrize("name", HF)
def test_transformers_to_ours_to_transformers_gives_the_same_bits(name: str, tmp_path: Path) -> None:
    theirs = hf_model(name)
    theirs.save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    before, after = load_file(tmp_path / "theirs" / SAFETENSORS), load_file(tmp_path / "ours" / SAFETENSORS)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


def test_each_config_has_its_format() -> None:
    for name, config in OURS.items():
        assert format_for(config).model_type == name.split("-")[0]


def test_shards_are_read_and_written(tmp_path: Path) -> None:
    ours = our_model(OURS["qwen3"])
    save_model(ours, tmp_path / "ours", max_shard_bytes=8_000)
    assert len(list((tmp_path / "ours").glob("model-*-of-*.safetensors"))) > 2
    for key, value in load_model(tmp_path / "ours").state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")
    for key, value in load_model(tmp_path / "theirs").state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    shard = sorted((tmp_path / "theirs").glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        load_model(tmp_path / "theirs")


def test_old_files_are_read(tmp_path: Path) -> None:
    """The layout of the first GPT-2 on the hub: no prefix, the causal mask as a buffer, the head stored beside."""
    theirs = hf_model("gpt2")
    theirs.save_pretrained(tmp_path)
    state = {name.removeprefix("transformer."): value for name, value in theirs.state_dict().items()}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    (tmp_path / SAFETENSORS).unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_same_function(load_model(tmp_path), theirs)
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"lm_head\.weight must equal"):
        load_model(tmp_path)


def test_old_files_in_shards_are_read(tmp_path: Path) -> None:
    theirs = hf_model("gpt2")
    theirs.save_pretrained(tmp_path)
    (tmp_path / SAFETENSORS).unlink()
    state = theirs.transformer.state_dict()
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    where = {name: names[name.startswith("h.1.")] for name in state}
    for file in names:
        torch.save({name: value for name, value in state.items() if where[name] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert_same_function(load_model(tmp_path), theirs)  # type: ignore[arg-type]
    moved = {**where, "wpe.weight": names[1]}
    index.write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    with pytest.raises(UserError, match=r"must name the file of each weight; got wpe\.weight"):
        load_model(tmp_path)
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (tmp_path / names[1]).unlink()
    with pytest.raises(UserError, match=names[1]):
        load_model(tmp_path)


def test_a_torch_file_that_would_run_code_is_refused(hf_folder: Path) -> None:
    (hf_folder / SAFETENSORS).unlink()
    torch.save({"evil": Path("x")}, hf_folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="must hold weights and nothing else"):
        load_model(hf_folder)


def test_rope_theta_of_older_files_is_read(tmp_path: Path) -> None:
    hf_model("llama-theta").save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    del data["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps({**data, "rope_theta": 50.0, "rope_scaling": None}))
    assert load_config(tmp_path).rope_theta == 50.0


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}}, "rope_parameters"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "rope_parameters"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"num_hidden_layers": "two"}, "num_hidden_layers"),
        ("llama", {"num_key_value_heads": 4}, "kv_heads"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("llama", {"logit_scale": 2.0}, "logit_scale"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"activation_function": "relu"}, "activation_function"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
        ("gpt2", {"model_type": "bloom"}, "model_type must be one of bert, .*gpt2, llama"),
    ],
)
def test_a_config_that_is_not_computed_is_refused_by_name(
    name: str, keys: dict[str, Any], told: str, tmp_path: Path
) -> None:
    hf_model(name).save_pretrained(tmp_path)
    load_model(tmp_path)
    edit_config(tmp_path, **keys)
    with pytest.raises(UserError, match=told):
        load_model(tmp_path)


@pytest.mark.parametrize(("name", "other"), [("gpt2", "llama"), ("llama", "gpt2"), ("qwen3", "bert")])
def test_a_family_under_anothers_name_is_told_whose_keys_they_are(name: str, other: str, tmp_path: Path) -> None:
    hf_model(name).save_pretrained(tmp_path)
    named = load_part("models.hub", other).Format().architecture
    edit_config(tmp_path, model_type=other, architectures=[named])
    with pytest.raises(UserError, match=rf"model_type must be .* whose keys these are, .*{name}.*; got '{other}'"):
        load_model(tmp_path)


def test_all_faults_of_a_config_are_told_at_once(hf_folder: Path) -> None:
    edit_config(hf_folder, hidden_act="relu", attention_bias=True, logit_scale=2.0)
    with pytest.raises(UserError, match="3 faults") as caught:
        load_model(hf_folder)
    assert all(key in str(caught.value) for key in ("hidden_act", "attention_bias", "logit_scale"))


def test_missing_unexpected_and_misshapen_weights_are_named(hf_folder: Path) -> None:
    state = load_file(hf_folder / SAFETENSORS)
    del state["model.norm.weight"]
    state["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(19, 24)
    state["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(40)
    save_file(state, hf_folder / SAFETENSORS)
    with pytest.raises(UserError) as caught:
        load_model(hf_folder)
    told = str(caught.value)
    assert "missing: model.norm.weight" in told
    assert "unexpected: model.layers.0.self_attn.q_proj.bias" in told
    assert "misshapen: model.layers.0.self_attn.k_proj.weight [19, 24], not [20, 24]" in told


@pytest.mark.parametrize(
    ("bad", "told"), [(torch.full((24,), float("nan")), "finite"), (torch.ones(24, dtype=torch.int8), "floating")]
)
def test_weights_that_are_no_numbers_are_refused(bad: torch.Tensor, told: str, hf_folder: Path) -> None:
    state = load_file(hf_folder / SAFETENSORS)
    state["model.norm.weight"] = bad
    save_file(state, hf_folder / SAFETENSORS)
    with pytest.raises(UserError, match=rf"model\.norm\.weight must be .*{told}"):
        load_model(hf_folder)


def test_folders_that_are_not_whole_are_refused(hf_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold a config\.json"):
        load_model(tmp_path / "nowhere")
    data = (hf_folder / SAFETENSORS).read_bytes()
    (hf_folder / SAFETENSORS).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="whole safetensors file"):
        load_model(hf_folder)
    (hf_folder / SAFETENSORS).unlink()
    with pytest.raises(UserError, match=r"must hold model\.safetensors"):
        load_model(hf_folder)


def test_a_flipped_byte_in_our_folder_is_found(tmp_path: Path) -> None:
    save_model(our_model(OURS["llama"]), tmp_path / "model")
    path = tmp_path / "model" / SAFETENSORS
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        load_model(tmp_path / "model")


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    ours = our_model(OURS["llama"])
    with torch.no_grad():
        ours.norm.weight[3] = float("inf")
    with pytest.raises(UserError, match=r"norm\.weight must be finite"):
        save_model(ours, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    ours = our_model(OURS["llama"])
    save_model(ours, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    monkeypatch.setattr("foundling.models.hub._weights.save_file", full)
    with pytest.raises(UserError, match="could not be written: No space left"):
        save_model(our_model(OURS["llama"], seed=1), tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_width_that_llama_cannot_say_is_refused(tmp_path: Path) -> None:
    config = Config(vocab_size=VOCAB, layers=1, width=20, heads=3, head_width=8, qk_norm=False)
    with pytest.raises(UserError, match="multiple of its heads"):
        save_model(our_model(config), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_dtype_and_given_weights(tmp_path: Path) -> None:
    ours = our_model(OURS["qwen3"])
    masters = {name: value + 1 for name, value in ours.state_dict().items()}
    save_model(ours, tmp_path / "model", weights=masters, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    back = load_model(tmp_path / "model", dtype=torch.bfloat16)
    for name, value in back.state_dict().items():
        assert torch.equal(value, masters[name].bfloat16()), name


def test_the_card_has_front_matter(tmp_path: Path) -> None:
    ours = our_model(OURS["qwen3"])
    save_model(ours, tmp_path / "a", card={"language": ["de"], "license": "mit", "body": "# Mine"})
    text = (tmp_path / "a" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "license: mit" in text
    assert text.endswith("---\n\n# Mine\n")
    save_model(ours, tmp_path / "b")
    assert "| layers | 2 |" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "named", "arguments"),
    [
        ({"top": "masked"}, "AutoModelForMaskedLM", {}),
        ({"top": "pretraining"}, "AutoModelForPreTraining", {}),
        ({"top": "pooler"}, "AutoModel", {}),
        ({"top": "none"}, "AutoModel", {"add_pooling_layer": False}),
        ({"top": "none", "math": "modern"}, "AutoModel", {}),
        ({"top": "masked", "math": "modern"}, "AutoModelForMaskedLM", {}),
    ],
)
def test_the_card_names_the_class_that_reads_all_and_draws_nothing(
    tmp_path: Path, changes: dict[str, Any], named: str, arguments: dict[str, Any]
) -> None:
    save_model(tiny_model("bert", **changes), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    given = "".join(f", {key}={value}" for key, value in arguments.items())
    assert f'model = {named}.from_pretrained("PATH"{given})' in card
    _, told = getattr(transformers, named).from_pretrained(tmp_path / "model", output_loading_info=True, **arguments)
    assert not told["missing_keys"]


def test_a_tokenizer_that_frames_no_text_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    marks: dict[Role, str] = {"cls": "[CLS]", "sep": "[SEP]"}
    text = ["a b c d e f g h"] * 20
    framing = WordPiece(vocab_size=21).build().train(text)
    bare = Char(special_tokens=marks).build().train(text)
    for number, (family, tokenizer, told) in enumerate(
        [("bert", framing, ""), ("bert", bare, "put [CLS] before a text and [SEP] behind"), ("gpt", bare, "")]
    ):
        caplog.clear()
        save_model(tiny_model(family, tokenizer.vocab_size), tmp_path / str(number), tokenizer=tokenizer)
        assert (told in caplog.text) if told else not caplog.text, (family, caplog.text)
