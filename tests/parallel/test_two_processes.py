"""Two processes are one: gradients, steps, tensor parallel, checkpoints. What they assert stands in script_two.py."""

from pathlib import Path

import pytest
import torch

from foundling.parallel.checkpoint import load_pieces, piece_of, read_state, save_pieces
from foundling.parallel.world import World
from tests.parallel.small import reference
from tests.processes import together

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.slow]

SCRIPT = str(Path(__file__).with_name("script_two.py"))
ALONE = World(0, 1, torch.device("cpu"), None)


@pytest.mark.parametrize(("what", "written"), [("shard", "by-two"), ("tensor", "by-tensor")])
def test_two_processes_are_one_and_read_each_others_checkpoints(what: str, written: str, tmp_path: Path) -> None:
    weights = reference("gpt2")[3]
    save_pieces(tmp_path / "by-one", {n: piece_of(w, w) for n, w in weights.items()}, {"step": 3}, ALONE)
    (tmp_path / "disk").mkdir()
    together(2, SCRIPT, what, str(tmp_path))
    assert read_state(tmp_path / written)["step"] == 3
    assert len(list((tmp_path / written).glob("state-*"))) == 2
    empty = {n: torch.full_like(w, -1.0) for n, w in weights.items()}
    load_pieces(tmp_path / written, {n: piece_of(w, w) for n, w in empty.items()})
    for name, weight in weights.items():
        assert torch.equal(empty[name], weight), name
