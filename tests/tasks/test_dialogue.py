"""Dialogue: the assistant's words alone are learnt, whatever form the conversations come in."""

from pathlib import Path
from typing import Any

import pytest
import torch

from foundling.core.errors import UserError
from foundling.serve.load import load
from foundling.tasks.base import RowFault
from foundling.tasks.dialogue import Config, Dialogue, Example
from foundling.train.finetune import finetune
from tests.tasks.small import base_folder, recipe, write_rows
from tests.tiny import END, tiny_model, tiny_tokenizer


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ROWS = [
    {"messages": [turn("user", f"w{7 + i} w{30 - i}"), turn("assistant", f"w{20 + i} w{31 + i} w8 w{9 + i}")]}
    for i in range(10)
]


def made(**changes: Any) -> Dialogue:
    model = tiny_model("gpt", max_positions=changes.pop("max_positions", 64))
    return Config(train=("x",), **changes).build(tiny_tokenizer(), model.config, {})


@pytest.mark.parametrize("name", ["gpt", "gpt2"])
def test_ten_answers_are_learnt_by_heart(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    task = {"kind": "dialogue", "train": str(path), "dev": str(path), "max_answer": 8}
    given = recipe(tmp_path / "run", base_folder(tmp_path, name), task, length="120 steps")
    run = finetune(
        given.model_copy(update={"evaluate": given.evaluate.model_copy(update={"every": given.train.length})})
    )
    assert run.summary["dev"]["perplexity"] < 1.1
    lm = load(run.folder)
    assert lm.tokenizer.chat_template
    expected = [row["messages"][-1]["content"] for row in ROWS]
    assert [a["text"] for a in lm.predict(ROWS)] == expected
    assert [a["text"] for a in lm.predict([row["messages"][0]["content"] for row in ROWS])] == expected


def test_only_the_assistant_is_learnt_in_every_turn() -> None:
    task = made()
    messages = (
        turn("system", "w9"),
        turn("user", "w10"),
        turn("assistant", "w11 w12"),
        turn("user", "w13"),
        turn("assistant", "w14"),
    )
    (row,) = task.rows([Example(messages)])
    assert row.tokens[row.learnt].tolist() == [11, 12, END, 14, END]
    assert "[[w11 w12 [EOS]]]" in task.shown(row)
    batch = task.collate([row, row])
    assert batch.targets_M.tolist() == [11, 12, END, 14, END] * 2
    before = batch.tokens_N[batch.target_index_M]
    assert before.tolist()[1:3] == [11, 12]
    assert batch.bounds_R1.tolist() == [0, len(row.tokens) - 1, 2 * (len(row.tokens) - 1)]


def test_the_loss_is_of_the_learnt_tokens_given_all_before() -> None:
    task, model = made(), tiny_model("gpt", max_positions=64, init_std=0.3)
    (row,) = task.rows([Example((turn("user", "w10 w9"), turn("assistant", "w11 w12")))])
    losses = task.scores(model, task.collate([row]))["loss"]
    from foundling.data.batch import rows_batch

    ids = torch.from_numpy(row.tokens)
    nll = -model(rows_batch(ids[None, :-1], ids[None, 1:])).logits().log_softmax(-1)[range(len(ids) - 1), ids[1:]]
    torch.testing.assert_close(losses, nll[torch.from_numpy(row.learnt[1:])].detach(), atol=1e-5, rtol=1e-5)


def test_long_conversations_lose_their_oldest_turns() -> None:
    task = made(max_length=24)
    turns = [one for i in range(8) for one in (turn("user", f"w{10 + i}"), turn("assistant", f"w{20 + i}"))]
    (row,) = task.rows([Example((turn("system", "w9"), *turns))])
    assert len(row.tokens) <= 24
    assert 9 in row.tokens
    assert row.tokens[row.learnt].tolist()[-2:] == [27, END]
    assert 20 not in row.tokens
    ids, is_whole = task._prompt([turn("user", " ".join(["w9"] * 60))])
    assert len(ids) < 24
    assert not is_whole


def test_a_prompt_leaves_room_for_the_answer() -> None:
    """24 of 64 positions, which a conversation of 50 tokens would leave 14 of."""
    task = made(max_answer=24)
    turns = [one for i in range(8) for one in (turn("user", f"w{10 + i}"), turn("assistant", f"w{20 + i}"))][:-1]
    whole, are_all = made(max_answer=2)._prompt(turns)
    assert are_all
    assert len(whole) > 64 - 24 + 1
    ids, is_whole = task._prompt(turns)
    assert not is_whole
    assert len(ids) <= 64 - 24 + 1
    assert 17 in ids
    assert 10 not in ids
    assert len(made(max_answer=1000)._prompt(turns)[0]) == pytest.approx(32, abs=6), "never more than half is kept free"


def test_a_template_s_refusal_is_told_when_an_answer_is_asked_for() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
        "{{ m.content }} {% endfor %}"
    )
    model = tiny_model("gpt")
    task = Config(train=("x",)).build(tokenizer, model.config, {})
    with pytest.raises(UserError, match="the chat template must take every conversation; got no system, please"):
        task.answers(model, [Example((turn("system", "w9"), turn("user", "w7")))])


@pytest.mark.parametrize(
    "data",
    [
        {"messages": [turn("user", "w7"), turn("assistant", "w8")]},
        {"conversations": [{"from": "human", "value": "w7"}, {"from": "gpt", "value": "w8"}]},
        {"instruction": "w7", "output": "w8"},
        {"instruction": "w7", "input": "", "output": "w8", "history": []},
    ],
)
def test_all_forms_are_one(data: dict[str, Any]) -> None:
    found = Config(train=("x",)).example(data, known=True)
    assert list(found.messages) == [turn("user", "w7"), turn("assistant", "w8")]


def test_further_fields_of_the_forms() -> None:
    data = {"instruction": "a", "input": "b", "output": "c", "system": "s", "history": [["x", "y"]]}
    found = Config(train=("x",)).example(data, known=True)
    assert [m["content"] for m in found.messages] == ["s", "x", "y", "a\nb", "c"]
    default = Config(train=("x",), system="be kind").example({"instruction": "a", "output": "c"}, known=True)
    assert default.messages[0] == turn("system", "be kind")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({"messages": []}, "must be a list with a message"),
        ({"messages": [turn("user", "w7")]}, "nothing would be learnt"),
        ({"messages": [turn("user", "w7"), turn("assistant", " ")]}, "nothing would be learnt"),
        ({"messages": [turn("oracle", "w7")]}, "must have a role"),
        ({"messages": [{"role": "user", "content": 3}]}, "must have a role"),
        ({"instruction": "a"}, "nothing would be learnt"),
        ({"question": "a"}, "it has no messages"),
        ({"instruction": " ", "output": "a"}, "must have a character to read"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, "character to read"),
    ],
)
def test_conversations_that_teach_nothing(data: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        Config(train=("x",)).example(data, known=True)


def test_an_end_mark_of_the_template_ends_an_answer() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + ' [SEP] ' }}{% endfor %}"
    task = Config(train=("x",)).build(tokenizer, tiny_model("gpt").config, {})
    assert task.stop_ids == {END, tokenizer.sep_id}


def test_an_empty_mask_is_an_error() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    task = Config(train=("x",)).build(tokenizer, tiny_model("gpt").config, {})
    with pytest.raises(UserError, match="words of the assistant to learn"):
        task.rows([Example((turn("user", "w7"), turn("assistant", "w8")))])


def test_conversations_that_teach_nothing_are_left_out_by_number(caplog: pytest.LogCaptureFixture) -> None:
    task = made(max_length=24)
    long = Example((turn("user", "w7 " * 34_000), turn("assistant", "w8")))
    short = Example((turn("user", "w7"), turn("assistant", "w8")))
    rows = task.rows([short, long, short])
    assert [row.start for row in rows] == [0, 2]
    assert "1 of 3 conversations have no word of the assistant among their first 24 tokens" in caplog.text
    assert "training examples 1" in caplog.text


def test_conversations_that_lose_turns_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    task = made(max_length=24)
    turns = [turn(role, "w7 w8 w9") for role in ("user", "assistant") * 8]
    long = [turn("user", "w7 " * 34_000), turn("assistant", "w8")]  # 100,000 characters
    with pytest.raises(UserError, match="words of the assistant to learn"):
        task.rows([task.config.example({"messages": long}, known=True)])
    caplog.clear()
    task = made(max_length=24)
    for _ in range(2):
        task.rows([task.config.example({"messages": turns}, known=True)])
    assert caplog.text.count("1 of 1 conversations have more than max_length = 24 tokens") == 1
