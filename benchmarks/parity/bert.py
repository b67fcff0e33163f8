"""Our BERT against transformers' BertForPreTraining with the same weights on the same pairs, there padded."""

import tempfile
from collections.abc import Callable

import torch
from torch.nn import functional as F
from transformers import BertForPreTraining

from foundling.models.hub import save_model
from foundling.objectives.base import Scale
from foundling.train.build import whole_model
from foundling.train.loop import micro_batches
from foundling.train.state import Training

_NAMES = {
    "embedding.weight": "bert.embeddings.word_embeddings.weight",
    "layers.0.mlp.up.weight": "bert.encoder.layer.0.intermediate.dense.weight",
    "layers.0.attention.out.weight": "bert.encoder.layer.0.attention.output.dense.weight",
    "head.bias": "cls.predictions.bias",
    "pooler.weight": "bert.pooler.dense.weight",
    "next.weight": "cls.seq_relationship.weight",
}


def parity(make: Callable[[str], Training]) -> dict[str, float]:
    """Largest relative difference of loss and gradients in fp32, and of our bf16 loss. make: a run, by precision."""
    ours = make("fp32")
    batch = micro_batches(ours)[0]
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)
    loss = torch.stack(list(ours.trainee(batch, scale).values())).sum()
    loss.backward()
    gradients = {slot.name: slot.gradient.clone() for slot in ours.optimizer.slots}
    with tempfile.TemporaryDirectory() as folder:
        save_model(whole_model(ours), folder)
        peer = BertForPreTraining.from_pretrained(folder, attn_implementation="eager")
    peer.eval()
    lengths = batch.bounds_R1.diff()
    mask = torch.arange(batch.max_row_length)[None] < lengths[:, None]
    assert batch.segments_N is not None
    ids, segments = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(mask.shape, dtype=torch.long)
    ids[mask], segments[mask] = batch.tokens_N, batch.segments_N
    answer = peer(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    chosen = answer.prediction_logits[mask][batch.target_index_M]
    peer_loss = F.cross_entropy(chosen, batch.targets_M)
    peer_loss = peer_loss + F.cross_entropy(answer.seq_relationship_logits, batch.labels_R)
    peer_loss.backward()
    theirs = dict(peer.named_parameters())
    found = {"loss": abs(loss.item() - peer_loss.item()) / peer_loss.item()}
    for name, its_name in _NAMES.items():
        grad = theirs[its_name].grad
        assert grad is not None
        if name == "embedding.weight":  # transformers leaves the padding token's embedding untrained
            gradients[name][0] = grad[0]
        found[name] = ((gradients[name] - grad).norm() / grad.norm()).item()
    lower = torch.stack(list(make("bf16").trainee(batch, scale).values())).sum()
    found["bf16 loss"] = abs(lower.item() - peer_loss.item()) / peer_loss.item()
    return found
