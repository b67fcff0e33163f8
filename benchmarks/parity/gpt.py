"""Our GPT-2 mathematics against transformers' GPT2LMHeadModel with the same weights on the same rows."""

import tempfile
from collections.abc import Callable

import torch
from transformers import GPT2LMHeadModel

from foundling.models.hub import save_model
from foundling.objectives.base import Scale
from foundling.train.build import whole_model
from foundling.train.loop import micro_batches
from foundling.train.state import Training


def parity(make: Callable[[str], Training]) -> dict[str, float]:
    """Largest relative difference of loss and gradients in fp32, and of our bf16 loss. make: a run, by precision."""
    ours = make("fp32")
    batch = micro_batches(ours)[0]
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)
    loss = ours.trainee(batch, scale)["causal"]
    loss.backward()
    gradients = {slot.name: slot.gradient.clone() for slot in ours.optimizer.slots}
    with tempfile.TemporaryDirectory() as folder:
        save_model(whole_model(ours), folder)
        peer = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    peer.eval()
    ids = batch.tokens_N.view(batch.num_rows, -1)
    logits = peer(ids).logits
    peer_loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets_M)
    peer_loss.backward()
    theirs = dict(peer.named_parameters())
    pairs = {
        "embedding.weight": theirs["transformer.wte.weight"],
        "layers.0.mlp.up.weight": theirs["transformer.h.0.mlp.c_fc.weight"],
        "layers.0.attention.out.weight": theirs["transformer.h.0.attn.c_proj.weight"],
    }
    found = {"loss": abs(loss.item() - peer_loss.item()) / peer_loss.item()}
    for name, parameter in pairs.items():
        assert parameter.grad is not None
        their = parameter.grad if name.startswith("embedding") else parameter.grad.t()
        found[name] = ((gradients[name] - their).norm() / their.norm()).item()
    found["bf16 loss"] = abs(make("bf16").trainee(batch, scale)["causal"].item() - peer_loss.item()) / peer_loss.item()
    return found
