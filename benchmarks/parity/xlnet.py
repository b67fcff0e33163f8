"""Our XLNet against transformers' XLNetLMHeadModel with the same weights, tokens, targets and order."""

import tempfile
from collections.abc import Callable

from torch.nn import functional as F
from transformers import XLNetLMHeadModel

from benchmarks.parity._gradients import apart, worst_gradient
from foundling.models.hub import save_model
from foundling.models.hub.xlnet import Format
from foundling.objectives.base import Scale
from foundling.train.build import whole_model
from foundling.train.loop import micro_batches
from foundling.train.state import Training


def parity(make: Callable[[str], Training], *, bf16: bool) -> dict[str, float]:
    """Largest relative difference of loss and gradients in fp32, and, where it is asked for, of our loss in bf16. make:
    a run, by precision."""
    ours = make("fp32")
    batch = micro_batches(ours)[0]
    assert batch.ranks_N is not None
    assert batch.target_index_M is not None
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)
    loss = ours.trainee(batch, scale).parts["permutation"]
    loss.backward()
    gradients = {slot.name: slot.gradient.clone() for slot in ours.optimizer.slots}
    with tempfile.TemporaryDirectory() as folder:
        save_model(whole_model(ours), folder)
        peer = XLNetLMHeadModel.from_pretrained(folder)
    peer.eval()
    num_rows, length = batch.num_rows, batch.max_row_length
    ranks = batch.ranks_N.view(num_rows, length)
    unseen = (ranks[:, None, :] >= ranks[:, :, None]) & (ranks[:, None, :] > 0)
    places = batch.target_index_M.view(num_rows, -1) % length
    answer = peer(
        input_ids=batch.tokens_N.view(num_rows, length),
        perm_mask=unseen.float(),
        target_mapping=F.one_hot(places, length).float(),
        token_type_ids=None if batch.segments_N is None else batch.segments_N.view(num_rows, length),
    )
    peer_loss = F.cross_entropy(answer.logits.flatten(0, 1), batch.targets_M)
    peer_loss.backward()
    losses = {"loss": loss}
    if bf16:
        losses["bf16 loss"] = make("bf16").trainee(batch, scale).parts["permutation"]
    worst = worst_gradient(Format().weights(ours.model.config), gradients, peer)
    return apart(losses, peer_loss) | worst
