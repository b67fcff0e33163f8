"""Binary cross entropy: every class is asked for by itself, as where an example has any number of labels."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from foundling.core.config import PartConfig
from foundling.optim.losses.base import weighted_mean


class Config(PartConfig):
    kind: str = "binary_cross_entropy"
    """Name of the part."""

    def build(self, class_weights: Tensor | None = None) -> "BinaryCrossEntropy":
        return BinaryCrossEntropy(class_weights)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over classes; `truth` is 0 or 1, fp32 [R, C]."""

    class_weights: Tensor | None

    def of_logits(self, logits_RC: Tensor, truth_RC: Tensor) -> Tensor:
        losses_RC = F.binary_cross_entropy_with_logits(logits_RC.float(), truth_RC, reduction="none")
        return weighted_mean(losses_RC, self.class_weights)
