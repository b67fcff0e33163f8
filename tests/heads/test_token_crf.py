"""The head of a conditional random field: a linear head, and scores of the order of tags that learn faster."""

from dataclasses import replace
from pathlib import Path

import torch

from foundling.data.batch import rows_batch
from foundling.heads import token
from foundling.heads.token_crf import Config, TokenCrf
from foundling.objectives.base import Scale
from foundling.optim.optimizer import Optimizer
from foundling.tasks.folder import load_task, save_task
from foundling.tasks.model import TaskModel, TaskShape
from foundling.tasks.ner import Config as NerConfig
from foundling.tasks.ner import Ner
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.layers import lr_factors
from tests.tiny import tiny_model, tiny_tokenizer

TAGS = ["O", "B-x", "I-x"]


def ner() -> tuple[Ner, TaskModel]:
    body = tiny_model("bert").config
    task = NerConfig(train=("x",), crf=True).build(tiny_tokenizer(), body, {"tags": TAGS})
    model = TaskShape(family="bert", body=body.bare(), head=task.head()).build()
    model.initialize(torch.Generator().manual_seed(0))
    return task, model


def test_at_first_no_order_is_preferred_and_logits_are_those_of_a_linear_head() -> None:
    heads = [config.build(8) for config in (Config(num_classes=3), token.Config(num_classes=3))]
    for head in heads:
        head.initialize(torch.Generator().manual_seed(0))
    assert isinstance(heads[0], TokenCrf)
    chain = heads[0].chain()
    assert not any(part.any() for part in (chain.between_CC, chain.start_C, chain.end_C))
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    hidden, batch = torch.randn(4, 8), rows_batch(tokens, tokens)
    torch.testing.assert_close(heads[0](hidden, batch), heads[1](hidden, batch))


def test_the_loss_is_that_of_whole_sequences_and_reaches_every_parameter() -> None:
    """Packed rows of several lengths give what each gives alone; the order of tags is learnt from them."""
    task, model = ner()
    given = [
        {"tokens": ["w7", "w8", "w9"], "tags": ["B-x", "I-x", "O"]},
        {"tokens": ["w7"], "tags": ["O"]},
        {"tokens": ["w9", "w8"], "tags": ["O", "B-x"]},
    ]
    rows = task.rows([task.config.example(one, known=True) for one in given])
    losses_M = task.scores(model, task.collate(rows))["loss"]
    alone = [task.scores(model, task.collate([row]))["loss"] for row in rows]
    torch.testing.assert_close(losses_M, torch.cat(alone))
    logits_MC = model(task.collate(rows[2:])).detach()
    # Two words, no order preferred yet: O I-x alone of the nine sequences is forbidden (I-x may begin: see windows).
    both_CC = logits_MC[0][:, None] + logits_MC[1]
    allowed_CC = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    expected = both_CC[allowed_CC].logsumexp(0) - both_CC[0, 1]
    torch.testing.assert_close(alone[2].sum(), expected)
    task.loss(model, task.collate(rows), Scale(1 / 6, 1 / 3), compiled=False).parts["ner"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    head = model.head
    assert isinstance(head, TokenCrf)
    for parameter in (head.transitions, head.starts, head.ends, head.out.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_word_of_a_window_within_an_entity_has_a_finite_loss() -> None:
    """What a window answers may begin and end within an entity."""
    task, model = ner()
    (row,) = task.rows([task.config.example({"tokens": ["w7", "w8"], "tags": ["B-x", "I-x"]}, known=True)])
    cut = replace(row, places=row.places[1:], targets=row.targets[1:], words=row.words[1:])  # type: ignore[index]
    assert task.scores(model, task.collate([cut]))["loss"].isfinite().all()


def test_what_is_learnt_of_the_order_decides_where_words_say_nothing() -> None:
    task, model = ner()
    head = model.head
    assert isinstance(head, TokenCrf)
    with torch.no_grad():
        head.out.weight.zero_()
        head.out.bias.zero_()
        head.starts[1] = head.transitions[1, 2] = head.transitions[2, 1] = 1.0
    (answer,) = task.answers(model, [task.config.example({"tokens": ["w7", "w8", "w9"]}, known=False)])
    assert answer["tags"] == ["B-x", "I-x", "B-x"]


def test_scores_of_order_learn_at_a_multiple_of_the_rate_that_a_recipe_can_change() -> None:
    _, model = ner()
    data = {"name": "x", "base": "x", "task": {"kind": "ner", "train": "x"}, "optimizer": {"kind": "adamw", "lr": 0.5}}
    own = {"match": "head.starts", "lr": 0.25}
    recipe = FinetuneRecipe.model_validate({**data, "optimizer": {**data["optimizer"], "groups": [own]}})  # type: ignore[dict-item]
    optimizer = Optimizer(
        model.named_parameters(), recipe.optimizer, 0.5, compiled=False, lr_factors=lr_factors(model, 1.0)
    )  # fmt: skip
    rates = {slot.name: slot.lr for slot in optimizer.slots}
    assert (rates["head.transitions"], rates["head.starts"], rates["head.out.weight"]) == (50.0, 0.25, 0.5)


def test_a_saved_head_answers_the_same(tmp_path: Path) -> None:
    task, model = ner()
    with torch.no_grad():
        model.head.transitions.normal_(generator=torch.Generator().manual_seed(1))  # type: ignore[operator]
    save_task(model, task, tmp_path / "model", inputs={})
    again, loaded = load_task(tmp_path / "model")
    examples = [task.config.example({"tokens": ["w7", "w8", "w9", "w12"]}, known=False)]
    assert again.answers(loaded, examples) == task.answers(model.eval(), examples)
    torch.testing.assert_close(loaded.head.transitions, model.head.transitions)
