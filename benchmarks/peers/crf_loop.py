"""A linear-chain conditional random field as it is usually written: padded batches, a Python loop over the time steps,
logarithms added at each of them, autograd through all. The mathematics and the layout are those of torchcrf."""

# Shapes: T = time steps of the longest row, R = rows, C = tags.

import torch
from torch import Tensor, nn


class LoopCrf(nn.Module):
    """Scores of neighbouring tags, of first and of last ones. Rows are padded behind their end; mask_TR says where a
    row has a word, which it must at the first step."""

    def __init__(self, num_tags: int) -> None:
        super().__init__()
        self.start_C = nn.Parameter(torch.empty(num_tags))
        self.end_C = nn.Parameter(torch.empty(num_tags))
        self.between_CC = nn.Parameter(torch.empty(num_tags, num_tags))

    def forward(self, emissions_TRC: Tensor, tags_TR: Tensor, mask_TR: Tensor) -> Tensor:
        """-log of the probability of each row's tags, [R]."""
        return self._log_partition(emissions_TRC, mask_TR) - self._path_scores(emissions_TRC, tags_TR, mask_TR)

    def _path_scores(self, emissions_TRC: Tensor, tags_TR: Tensor, mask_TR: Tensor) -> Tensor:
        rows_R = torch.arange(tags_TR.shape[1])
        weight_TR = mask_TR.to(emissions_TRC.dtype)
        score_R = self.start_C[tags_TR[0]] + emissions_TRC[0, rows_R, tags_TR[0]]
        for step in range(1, len(tags_TR)):
            into_R = self.between_CC[tags_TR[step - 1], tags_TR[step]]
            score_R = score_R + (into_R + emissions_TRC[step, rows_R, tags_TR[step]]) * weight_TR[step]
        last_R = mask_TR.long().sum(0) - 1
        return score_R + self.end_C[tags_TR[last_R, rows_R]]

    def _log_partition(self, emissions_TRC: Tensor, mask_TR: Tensor) -> Tensor:
        score_RC = self.start_C + emissions_TRC[0]
        for step in range(1, len(emissions_TRC)):
            sums_RCC = score_RC[:, :, None] + self.between_CC + emissions_TRC[step][:, None, :]
            score_RC = torch.where(mask_TR[step][:, None], torch.logsumexp(sums_RCC, 1), score_RC)
        return torch.logsumexp(score_RC + self.end_C, 1)

    @torch.no_grad()
    def decode(self, emissions_TRC: Tensor, mask_TR: Tensor) -> list[list[int]]:
        """The likeliest tags of each row, traced back row by row as torchcrf does."""
        score_RC, history = self._best(emissions_TRC, mask_TR)
        lengths = mask_TR.long().sum(0).tolist()
        found = []
        for row, length in enumerate(lengths):
            tags = [int((score_RC[row] + self.end_C).argmax())]
            for came_RC in reversed(history[: length - 1]):
                tags.append(int(came_RC[row][tags[-1]]))
            found.append(tags[::-1])
        return found

    @torch.no_grad()
    def decode_together(self, emissions_TRC: Tensor, mask_TR: Tensor) -> list[list[int]]:
        """The same, all rows traced back at once: what a careful user makes of it."""
        score_RC, history = self._best(emissions_TRC, mask_TR)
        tags_R = (score_RC + self.end_C).argmax(1)
        steps = [tags_R]
        for step in range(len(history), 0, -1):
            came_R = history[step - 1].gather(1, tags_R[:, None])[:, 0]
            tags_R = torch.where(mask_TR[step], came_R, tags_R)
            steps.append(tags_R)
        tags_RT = torch.stack(steps[::-1], 1).tolist()
        return [tags[:length] for tags, length in zip(tags_RT, mask_TR.long().sum(0).tolist(), strict=True)]

    def _best(self, emissions_TRC: Tensor, mask_TR: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Score of the best path to each last tag, and which tag it came from at each step but the first."""
        score_RC, history = self.start_C + emissions_TRC[0], []
        for step in range(1, len(emissions_TRC)):
            sums_RCC = score_RC[:, :, None] + self.between_CC + emissions_TRC[step][:, None, :]
            best_RC, came_RC = sums_RCC.max(1)
            score_RC = torch.where(mask_TR[step][:, None], best_RC, score_RC)
            history.append(came_RC)
        return score_RC, history
