"""Laws of the permutation model, and that it is transformers' with the same weights."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from foundling.data.batch import Batch
from foundling.models.hub import load_model
from foundling.models.hub.xlnet import Format
from foundling.models.xlnet import Config, XLNet
from foundling.optim.losses.linear_cross_entropy import linear_cross_entropy

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH, ROWS = 61, 12, 3
SIZES = yaml.safe_load(files("foundling.models").joinpath("sizes.yaml").read_text(encoding="utf-8"))["xlnet"]


def small(**keys: Any) -> XLNet:
    values = {"vocab_size": VOCAB, "layers": 2, "width": 24, "heads": 3, "mlp_width": 40, **keys}
    model = Config.model_validate(values).build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def hf_model(**keys: Any) -> Any:
    config = transformers.XLNetConfig(
        vocab_size=VOCAB, d_model=24, n_layer=2, n_head=3, d_inner=40, **{"dropout": 0.0, **keys}
    )
    torch.manual_seed(0)
    model = transformers.XLNetLMHeadModel(config).eval()
    with torch.no_grad():  # so that no bias is 0 and no norm's weight is 1
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def ordered(num_rows: int = ROWS, length: int = LENGTH, num_targets: int = 4, seed: int = 1, **fields: Any) -> Batch:
    """Rows of one length with random targets in random order, in three segments."""
    generator = torch.Generator().manual_seed(seed)
    ranks_RT = torch.zeros(num_rows, length, dtype=torch.int64)
    for ranks_T in ranks_RT:
        chosen = torch.randperm(length, generator=generator)[:num_targets]
        ranks_T[chosen] = torch.arange(1, num_targets + 1)
    tokens_RT = torch.randint(0, VOCAB, (num_rows, length), generator=generator)
    index_M = ranks_RT.flatten().nonzero()[:, 0]
    return Batch(
        tokens_N=tokens_RT.flatten(),
        positions_N=torch.arange(length).repeat(num_rows),
        bounds_R1=torch.arange(0, num_rows * length + 1, length, dtype=torch.int32),
        max_row_length=length,
        targets_M=tokens_RT.flatten()[index_M],
        target_index_M=index_M,
        segments_N=(torch.arange(length) // 5).repeat(num_rows),
        ranks_N=ranks_RT.flatten(),
        **fields,
    )


def as_hf(batch: Batch) -> dict[str, Tensor]:
    """The batch as transformers takes it: rows of one length and as many targets in each."""
    assert batch.target_index_M is not None
    num_rows, length = batch.num_rows, batch.max_row_length
    ranks_RT = torch.zeros(num_rows, length) if batch.ranks_N is None else batch.ranks_N.view(num_rows, length)
    unseen_RTT = (ranks_RT[:, None, :] >= ranks_RT[:, :, None]) & (ranks_RT[:, None, :] > 0)
    places_RQ = batch.target_index_M.view(num_rows, -1) % length
    mapping = torch.nn.functional.one_hot(places_RQ, length).float()
    found = {
        "input_ids": batch.tokens_N.view(num_rows, length),
        "perm_mask": unseen_RTT.float(),
        "target_mapping": mapping,
    }
    if batch.segments_N is not None:
        found["token_type_ids"] = batch.segments_N.view(num_rows, length)
    return found


def same_gradients(ours: XLNet, theirs: Any) -> None:
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for weight in Format().weights(ours.config):
        grad = ours.get_parameter(weight.ours).grad
        for name, part in zip(weight.theirs, weight.split(grad), strict=True):
            wanted = gradients.pop(name)
            torch.testing.assert_close(part, torch.zeros_like(part) if wanted is None else wanted, atol=1e-5, rtol=1e-5)
    assert not gradients, "transformers has parameters that we do not"


def same_function(ours: XLNet, theirs: Any, batch: Batch, **more: Any) -> None:
    """Logits, loss and every gradient agree to 1e-5."""
    memory = more.pop("memory", None)
    out = ours(batch, memory)
    answer = theirs(**as_hf(batch), **more)
    torch.testing.assert_close(out.logits(), answer.logits.flatten(0, 1), atol=1e-5, rtol=1e-5)
    loss = linear_cross_entropy(
        out.hidden_MD, out.head_weight_VD, batch.targets_M, 1 / batch.num_targets, False, out.head_bias_V
    )
    reference = torch.nn.functional.cross_entropy(answer.logits.flatten(0, 1), batch.targets_M)
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-5)
    loss.backward()
    reference.backward()
    same_gradients(ours, theirs)


HF: dict[str, dict[str, Any]] = {
    "base": {},
    "untied": {"tie_word_embeddings": False},
    "clamped": {"clamp_len": 3},
    "relu": {"ff_activation": "relu", "layer_norm_eps": 1e-5},
    "tanh": {"ff_activation": "gelu_new"},
}


@pytest.mark.parametrize("name", HF)
def test_a_folder_of_transformers_is_the_same_function_here(name: str, tmp_path: Path) -> None:
    theirs = hf_model(**HF[name])
    theirs.save_pretrained(tmp_path)
    same_function(load_model(tmp_path), theirs, ordered())


def test_without_segments_as_transformers_without_token_types(tmp_path: Path) -> None:
    theirs = hf_model()
    theirs.save_pretrained(tmp_path)
    ours: Any = load_model(tmp_path)
    batch = replace(ordered(), segments_N=None)
    torch.testing.assert_close(ours(batch).logits(), theirs(**as_hf(batch)).logits.flatten(0, 1), atol=1e-5, rtol=1e-5)
