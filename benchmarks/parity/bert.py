"""Our BERT against transformers' BertForPreTraining with the same weights on the same pairs, there padded."""

import tempfile
from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers import BertForPreTraining

from benchmarks.parity._gradients import apart, worst_gradient
from foundling.models.hub import save_model
from foundling.models.hub.bert import Format
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
    loss = torch.stack(list(ours.trainee(batch, scale).parts.values())).sum()
    loss.backward()
    gradients = {slot.name: slot.gradient.clone() for slot in ours.optimizer.slots}
    with tempfile.TemporaryDirectory() as folder:
        save_model(whole_model(ours), folder)
        peer = BertForPreTraining.from_pretrained(folder, attn_implementation="eager")
    peer.eval()
    lengths = batch.bounds_R1.diff()
    mask = torch.arange(batch.max_row_length)[None] < lengths[:, None]
    assert batch.segments_N is not None
    assert batch.labels_R is not None
    ids, segments = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(mask.shape, dtype=torch.long)
    ids[mask], segments[mask] = batch.tokens_N, batch.segments_N
    answer = peer(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    chosen = answer.prediction_logits[mask][batch.target_index_M]
    peer_loss = F.cross_entropy(chosen, batch.targets_M)
    peer_loss = peer_loss + F.cross_entropy(answer.seq_relationship_logits, batch.labels_R)
    peer_loss.backward()
    unread = peer.get_input_embeddings().weight.grad
    assert unread is not None
    gradients["embedding.weight"][0] = unread[0]  # transformers leaves the padding token's embedding untrained
    losses = {"loss": loss}
    if bf16:
        losses["bf16 loss"] = torch.stack(list(make("bf16").trainee(batch, scale).parts.values())).sum()
    worst = worst_gradient(Format().weights(ours.model.config), gradients, peer)
    return apart(losses, peer_loss) | worst
