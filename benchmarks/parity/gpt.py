"""Our GPT-2 mathematics against transformers' GPT2LMHeadModel with the same weights on the same rows."""

import tempfile
from collections.abc import Callable

import torch
from transformers import GPT2LMHeadModel

from benchmarks.parity._gradients import apart, worst_gradient
from foundling.models.hub import save_model
from foundling.models.hub.gpt2 import Format
from foundling.objectives.base import Scale
from foundling.train.build import whole_model
from foundling.train.loop import micro_batches
from foundling.train.state import Training


def parity(make: Callable[[str], Training], *, bf16: bool) -> dict[str, float]:
    """Largest relative difference of loss and gradients in fp32, and, where it is asked for, of our loss in bf16. make:
    a run, by precision."""
    ours = make("fp32")
    batch = micro_batches(ours)[0]
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)
    loss = ours.trainee(batch, scale).parts["causal"]
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
    losses = {"loss": loss}
    if bf16:
        losses["bf16 loss"] = make("bf16").trainee(batch, scale).parts["causal"]
    worst = worst_gradient(Format().weights(ours.model.config), gradients, peer)
    return apart(losses, peer_loss) | worst
