"""Fine-tuning: the best weights are kept, a run ends early, layers are frozen as told, and a resume is exact."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from foundling.core.config import override, resolved, validate
from foundling.core.errors import UserError
from foundling.core.files import sha256_of
from foundling.models.hub import load_model, save_model
from foundling.train import finetune as module
from foundling.train.callbacks.judge import Judge
from foundling.train.callbacks.unfreeze import Unfreeze
from foundling.train.examples import prepare
from foundling.train.finetune import Finetuning, finetune
from foundling.train.finetune_recipe import FinetuneRecipe
from foundling.train.layers import height_of
from foundling.train.run import Run
from foundling.train.session import enter
from foundling.train.state import Training, checkpoints
from tests.processes import together
from tests.tasks.small import FAMILIES, base_folder, recipe, write_rows
from tests.tiny import tiny_tokenizer

ROWS = [{"text": f"w{7 + i} w{8 + (i * 3) % 9} w{20 + i}", "label": "abc"[i % 3]} for i in range(20)]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files to learn, to choose and to measure by; the last two hold texts of other labels than they were taught."""
    other = [{**row, "label": "abc"[(i + i // 3) % 3]} for i, row in enumerate(ROWS[:9])]
    return {
        "train": str(write_rows(tmp_path / "train.jsonl", ROWS)),
        "dev": str(write_rows(tmp_path / "dev.jsonl", other)),
        "test": str(write_rows(tmp_path / "test.jsonl", other[:5])),
    }


def test_a_writer_goes_on_from_the_body_of_a_classifier(tmp_path: Path, files: dict[str, str]) -> None:
    first = finetune(made(tmp_path, files, family="gpt", **{"train.length": "1 steps"}))
    talk = [{"role": "user", "content": "w7"}, {"role": "assistant", "content": "w8"}]
    path = write_rows(tmp_path / "talks.jsonl", [{"messages": talk}])
    data = prepare(recipe(tmp_path / "talks", first.folder, {"kind": "dialogue", "train": str(path)}), tmp_path)
    trained = load_file(first.model_dir / "model.safetensors")
    assert data.start is not None
    with torch.device("meta"):
        assert data.start.keys() == dict(data.model_config.build().named_parameters()).keys()
    assert any(torch.equal(data.start["embedding.weight"], found) for found in trained.values())


def test_a_base_with_fewer_rows_than_its_tokenizer_has_tokens_is_told(tmp_path: Path, files: dict[str, str]) -> None:
    wanted = made(tmp_path, files)
    tiny_tokenizer(tiny_tokenizer().vocab_size + 60).save(tmp_path / "larger")
    shutil.copy(tmp_path / "larger/tokenizer.json", tmp_path / "bert/tokenizer.json")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        finetune(wanted)
    (tmp_path / "bert/manifest.json").unlink()  # as of a folder that another program wrote
    with pytest.raises(UserError, match="the base's tokenizer must not have more tokens than its model"):
        finetune(wanted)


def made(
    tmp_path: Path, files: dict[str, str], name: str = "run", family: str = "bert", **changes: Any
) -> FinetuneRecipe:
    base = tmp_path / family
    if not base.exists():
        base_folder(tmp_path, family)
    plain = resolved(recipe(tmp_path / name, base, {"kind": "classification", **files}))
    found: FinetuneRecipe = validate(
        FinetuneRecipe, override(plain, [f"{key}={json.dumps(value)}" for key, value in changes.items()]), "recipe"
    )
    return found


def test_the_folder_has_the_weights_that_were_best_on_dev(tmp_path: Path, files: dict[str, str]) -> None:
    run = finetune(made(tmp_path, files, **{"evaluate.every": "2 steps", "evaluate.metric": "nll"}))
    on_dev = {line["step"]: line["dev/nll"] for line in run.metrics if "dev/nll" in line}
    assert len(on_dev) == 15
    best = min(on_dev, key=lambda step: on_dev[step])
    assert run.summary["best_step"] == best != 30
    assert run.summary["best_value"] == -on_dev[best]
    stopped = finetune(made(tmp_path, files, "stopped", **{"evaluate.metric": "nll", "train.length": f"{best} steps"}))
    ours, theirs = (load_file(one.model_dir / "model.safetensors") for one in (run, stopped))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_ends_when_dev_gets_no_better(tmp_path: Path, files: dict[str, str]) -> None:
    stop = {"metric": "nll", "patience": 3}
    run = finetune(
        made(tmp_path, files, **{"evaluate.every": "1 steps", "train.early_stop": stop, "train.length": "200 steps"})
    )
    assert run.summary["finished"]
    assert run.summary["steps"] == run.summary["best_step"] + 3 < 200


def test_of_equal_weights_the_last_are_kept_and_the_run_still_ends(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "_figure", lambda self, training, limit: ({"accuracy": 0.0}, 0.0))
    changes = {"evaluate.every": "2 steps", "train.early_stop": {"metric": "accuracy", "patience": 2}}
    run = finetune(made(tmp_path, files, "run", **changes))
    assert (run.summary["steps"], run.summary["best_step"]) == (6, 6)


def test_a_metric_that_there_is_not_is_told_before_the_first_step(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"metric must be one of .*; did you mean 'accuracy'"):
        finetune(made(tmp_path, files, **{"evaluate.metric": "acuracy"}))
    assert not checkpoints(tmp_path / "run")


def test_resumed_is_uninterrupted_to_the_bit(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, with weights that were best before the checkpoint."""
    changes = {"evaluate.every": "3 steps", "evaluate.metric": "nll", "checkpoint.every": "4 steps"}
    whole = finetune(made(tmp_path, files, "whole", **changes))
    run_of = Judge.on_step

    def killed(self: Judge, training: Training) -> None:
        run_of(self, training)
        if training.step == 14:
            raise KeyboardInterrupt

    monkeypatch.setattr(Judge, "on_step", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(made(tmp_path, files, "part", **changes))
    monkeypatch.setattr(Judge, "on_step", run_of)
    resumed = finetune(made(tmp_path, files, "part", **changes), resume=True)
    for key in ("steps", "best_step", "best_value", "dev", "test", "facts"):
        assert resumed.summary[key] == whole.summary[key], key
    ours, theirs = (load_file(one.model_dir / "model.safetensors") for one in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    kept = [
        [{k: v for k, v in line.items() if "second" not in k and "share" not in k} for line in one.metrics]
        for one in (resumed, whole)
    ]
    assert kept[0] == kept[1]


def test_what_is_told_to_stop_is_not_measured_until_it_is_at_its_end(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(made(tmp_path, files, "whole"))
    run_of = Judge.on_step

    def told(self: Judge, training: Training) -> None:
        run_of(self, training)
        if training.step == 5:
            training.stop_signal = 15

    monkeypatch.setattr(Judge, "on_step", told)
    part = finetune(made(tmp_path, files, "part"))
    monkeypatch.setattr(Judge, "on_step", run_of)
    assert part.stop_signal == 15
    assert not part.summary["finished"]
    assert not {"dev", "test"} & part.summary.keys()
    assert not list(part.folder.glob("answers-*"))
    assert "stopped after step 5" in (part.folder / "report.html").read_text(encoding="utf-8")
    resumed = finetune(made(tmp_path, files, "part"), resume=True)
    for key in ("finished", "steps", "best_step", "dev", "test", "facts"):
        assert resumed.summary[key] == whole.summary[key], key


def trained_names(tmp_path: Path, files: dict[str, str], **changes: Any) -> set[str]:
    """Weights that a run of a few steps changed."""
    run = finetune(
        made(tmp_path, files, f"run-{len(list(tmp_path.iterdir()))}", **changes, **{"train.length": "3 steps"})
    )
    before, after = load_file(tmp_path / "bert" / "model.safetensors"), load_file(run.model_dir / "model.safetensors")
    return {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}


def layers_in(names: set[str]) -> set[str]:
    return {
        name.split(".")[3] if ".layer." in name else name.split(".")[1] for name in names if name.startswith("bert.")
    }


def test_only_the_top_layers_learn(tmp_path: Path, files: dict[str, str]) -> None:
    assert layers_in(trained_names(tmp_path, files, **{"train.layers": "none"})) <= {"pooler"}
    assert layers_in(trained_names(tmp_path, files, **{"train.layers": 1})) <= {"1", "pooler"}
    assert {"0", "1", "embeddings"} <= layers_in(trained_names(tmp_path, files))
    with pytest.raises(UserError, match=r"train.layers must be at most 2"):
        trained_names(tmp_path, files, **{"train.layers": 3})


def test_layers_thaw_one_after_the_other(tmp_path: Path, files: dict[str, str]) -> None:
    found = [
        layers_in(trained_names(tmp_path, files, **{"train.unfreeze": f"{n} steps"})) - {"pooler"} for n in (3, 2, 1)
    ]
    assert found == [set(), {"1"}, {"1", "0"}]


@pytest.mark.parametrize(
    ("family", "changes", "learn"),
    [
        ("xlnet", {}, {0, 1}),  # even then: a task asks for no query states
        ("bert", {"train.layers": "none"}, set()),
        *((family, {"train.layers": 1}, {1}) for family in FAMILIES),
        ("bert", {"train.unfreeze": "2 steps"}, {1}),
    ],
)
def test_what_stands_still_is_bf16_like_the_rest_and_written_as_it_was(
    tmp_path: Path, files: dict[str, str], family: str, changes: dict[str, Any], learn: set[int]
) -> None:
    """Losses are fp32's but for rounding; layers that do not learn are the base's to the bit."""
    losses = []
    for precision in ("fp32", "bf16"):
        keys = {
            "train.precision": precision,
            "train.length": "3 steps",
            "train.log_every": 1,
            "task.dev": [],
            **changes,
        }
        run = finetune(made(tmp_path, files, precision, family, **keys))
        losses.append([line["train/loss"] for line in run.metrics if "train/loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / family, run.model_dir))
    changed = [name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])]
    assert {int(found[1]) for name in changed if (found := re.search(r"layers?\.(\d+)\.", name))} == learn


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_learn_what_one_does(tmp_path: Path, files: dict[str, str]) -> None:
    """Each seed after the other, and layers that thaw under way."""
    keys = {"train.unfreeze": "2 steps", "train.length": "6 steps", "train.log_every": 1, "task.dev": [], "seeds": 2}
    one, two = (made(tmp_path, files, name, **keys, **{"train.precision": "bf16"}) for name in ("one", "two"))
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(resolved(two)), encoding="utf-8")
    together(2, "-m", "foundling", "finetune", str(tmp_path / "two.yaml"))
    runs = finetune(one), Run(two.folder)
    assert runs[1].summary["seeds"]["test"].keys() == runs[0].summary["seeds"]["test"].keys()
    for seed in (0, 1):
        losses = [
            [line["train/loss"] for line in Run(run.folder / f"seed-{seed}").metrics if "train/loss" in line]
            for run in runs
        ]
        assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    weights = [load_file(run.model_dir / "model.safetensors") for run in runs]
    for name, weight in weights[0].items():
        # softmax takes no notice of a key's bias: its gradient is rounding alone, of which Adam takes the sign
        if not name.endswith("key.bias"):
            torch.testing.assert_close(weights[1][name], weight, atol=0.01, rtol=0, msg=name)


def test_rates_fall_with_depth(tmp_path: Path, files: dict[str, str]) -> None:
    given = made(tmp_path, files, **{"train.layer_decay": 0.5})
    kind = Finetuning()
    training = kind.build(given, kind.prepare(given, given.folder), given.folder, enter(given), None)
    rates = {slot.name: slot.lr for slot in training.optimizer.slots}
    assert rates["head.out.weight"] == 3e-3
    assert rates["body.layers.1.mlp.up.weight"] == 1.5e-3
    assert rates["body.layers.0.mlp.up.weight"] == 0.75e-3
    assert rates["body.embedding.weight"] == 0.375e-3


@pytest.mark.parametrize(
    ("name", "height"),
    [("body.embedding.weight", 0), ("body.layers.0.mlp.up.weight", 1), ("body.layers.11.attention.out.bias", 12),
     ("body.norm.weight", 13), ("body.embedding_norm.weight", 0), ("head.out.weight", 13),
     ("embedding.weight", 0), ("layers.3.mlp.up.weight", 4), ("norm.weight", 13), ("head.weight", 13)],
)  # fmt: skip
def test_heights(name: str, height: int) -> None:
    assert height_of(name, 12) == height


def test_seeds_come_with_mean_and_spread(tmp_path: Path, files: dict[str, str]) -> None:
    run = finetune(made(tmp_path, files, seeds=2, **{"train.length": "5 steps"}))
    singles = [json.loads((run.folder / f"seed-{seed}" / "summary.json").read_text()) for seed in (0, 1)]
    spread = run.summary["seeds"]["test"]["nll"]
    values = [single["test"]["nll"] for single in singles]
    assert values[0] != values[1]
    assert spread["mean"] == pytest.approx(sum(values) / 2)
    assert spread["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    best = max(singles, key=lambda single: single["best_value"])
    assert run.summary["best_seed"] == best["seed"]
    assert (run.model_dir / "task.json").is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"base": None}, "give base"),
        ({"train.early_stop": {}, "task.dev": []}, "early_stop needs task.dev"),
        ({"model": {"family": "bert", "size": "mini"}}, "either base or model"),
        ({"tokenizer": {"kind": "bpe"}}, "tokenizer comes with base"),
    ],
)
def test_recipes_that_say_too_much_or_too_little(
    tmp_path: Path, files: dict[str, str], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        made(tmp_path, files, **changes)


def test_what_was_left_out_is_counted_and_every_file_is_known_by_its_hash(
    tmp_path: Path, files: dict[str, str]
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, rows in (("a", ROWS[:12]), ("b", ROWS[12:])):
        write_rows(folder / f"{name}.jsonl", rows)
    with (folder / "b.jsonl").open("a") as file:
        file.write('{"text": \n{"label": "a"}\n')
    files = {**files, "train": str(folder)}
    with pytest.raises(UserError, match=r"2 of 22 rows make no example"):
        finetune(made(tmp_path, files, **{"train.length": "1 steps"}))
    run = finetune(made(tmp_path, files, **{"train.length": "1 steps", "task.bad_rows": "skip"}))
    counts = {"train_examples": 20, "train_left_out": 2, "dev_examples": 9, "test_examples": 5}
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert run.summary["counts"] == counts
    assert counts.items() < manifest["counts"].items()
    assert {"train/parts/a.jsonl", "train/parts/b.jsonl", "dev/dev.jsonl", "test/test.jsonl"} < manifest[
        "inputs"
    ].keys()
    assert manifest["inputs"]["train/parts/a.jsonl"] == sha256_of(folder / "a.jsonl")


def test_a_label_that_one_seed_alone_says_ends_nothing(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = module.judge, []

    def judged(measured: Any, **keys: Any) -> Any:
        found = real(measured, **keys)
        calls.append(found)
        if len(calls) == 2:
            found.figures["f1/z"], found.intervals["f1/z"] = 0.0, (0.0, 0.0)
        return found

    monkeypatch.setattr(module, "judge", judged)
    run = finetune(made(tmp_path, files, seeds=2, **{"train.length": "2 steps", "task.dev": []}))
    assert "nll" in run.summary["seeds"]["test"]
    assert "f1/z" not in run.summary["seeds"]["test"]


def test_seeds_of_other_data_are_not_taken_for_these(tmp_path: Path, files: dict[str, str]) -> None:
    given = made(tmp_path, files, seeds=2, **{"train.length": "2 steps", "task.dev": []})
    before = finetune(given).summary
    assert finetune(given).summary == before
    with Path(files["train"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "w9 w7", "label": "a"}) + "\n")
    with pytest.raises(UserError, match="inputs"):
        finetune(given)


def test_a_figure_that_the_first_examples_lack_may_choose(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"w{7 + i}", "label": "a"} for i in range(8)] + [{"text": "w20 w21", "label": "c"}]
    dev = str(write_rows(tmp_path / "sorted.jsonl", rows))
    changes = {"train.length": "2 steps", "task.dev": [dev], "task.test": [], "optimizer.lr": 1e-9}
    limits: list[int | None] = []
    real = Judge._figure

    def figure(self: Judge, training: Training, limit: int | None) -> Any:
        limits.append(limit)
        return real(self, training, limit)

    monkeypatch.setattr(Judge, "_figure", figure)
    run = finetune(made(tmp_path, files, **changes, **{"evaluate.metric": "f1/c"}))
    assert run.summary["finished"]
    assert limits[:2] == [4, None], "all of dev is looked at where the first ones do not do"
    with pytest.raises(UserError, match="acuracy"):
        finetune(made(tmp_path, files, "other", **changes, **{"evaluate.metric": "acuracy"}))


def test_what_chooses_is_one_figure_from_start_to_end(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"one figure, which chooses .*; got accuracy and nll"):
        made(tmp_path, files, **{"evaluate.metric": "accuracy", "train.early_stop": {"metric": "nll"}})
    keys = {"train.length": "4 steps", "checkpoint.every": "2 steps", "checkpoint.keep": 2}
    finetune(made(tmp_path, files, **keys))
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    (tmp_path / "run" / "summary.json").unlink()
    other = made(tmp_path, files, **keys, **{"evaluate.metric": "nll"})
    with pytest.raises(UserError, match=r"evaluate\.metric"):
        finetune(other, resume=True)


def test_a_base_of_other_weights_is_another_base(tmp_path: Path, files: dict[str, str]) -> None:
    given = made(tmp_path, files, **{"train.length": "2 steps", "train.layers": "none"})
    finetune(given)
    model = load_model(tmp_path / "bert")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    save_model(model, tmp_path / "bert", tokenizer=tiny_tokenizer())
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match="inputs"):
        finetune(given, resume=True)


def test_a_layer_that_thaws_steps_by_its_rate(tmp_path: Path, files: dict[str, str]) -> None:
    keys = {"train.unfreeze": "1000 steps", "train.length": "3000 steps", "optimizer.betas": [0.9, 0.999]}
    given = made(tmp_path, files, **keys)
    kind = Finetuning()
    training = kind.build(given, kind.prepare(given, given.folder), given.folder, enter(given), None)
    training.step = training.optimizer.steps = 1000
    Unfreeze().on_start(training)
    slot = next(slot for slot in training.optimizer.slots if slot.name == "body.layers.1.mlp.up.weight")
    before = slot.master.clone()
    for _ in range(10):
        for one in training.optimizer.slots:
            one.gradient.fill_(1.0)
        training.optimizer.step(1.0)
    assert (before - slot.master).abs().max().item() / 10 == pytest.approx(slot.lr, rel=0.01)


def test_what_a_recipe_says_of_the_optimizer_leaves_the_rest_as_it_is_in_a_finetuning(tmp_path: Path) -> None:
    data = {"name": "x", "base": "x", "task": {"kind": "classification", "train": "x"}}
    usual = FinetuneRecipe.model_validate(data)
    given = {"optimizer": {"lr": 1e-4}, "schedule": {"kind": "linear", "final": 0.1}}
    found = FinetuneRecipe.model_validate({**data, **given})
    assert found.optimizer == usual.optimizer.model_copy(update={"lr": 1e-4})
    assert found.schedule == usual.schedule.model_copy(update={"final": 0.1})
    assert usual.optimizer.weight_decay == 0.01
    other = FinetuneRecipe.model_validate({**data, "optimizer": "lion", "schedule": {"kind": "cosine"}})
    assert (other.optimizer.kind, other.optimizer.weight_decay, other.schedule.kind) == ("lion", 0.5, "cosine")


def test_rates_by_layer_are_of_what_trains_the_parameter(tmp_path: Path, files: dict[str, str]) -> None:
    muon = {"kind": "muon", "lr": 0.02, "scale": "shape", "adamw": {"lr": 1e-4}}
    given = made(tmp_path, files, **{"train.layer_decay": 0.5})
    plain = resolved(given)
    group = {"match": "body.embedding*", "weight_decay": 0.0}
    given = validate(FinetuneRecipe, {**plain, "optimizer": {**muon, "groups": [group]}}, "recipe")
    kind = Finetuning()
    training = kind.build(given, kind.prepare(given, given.folder), given.folder, enter(given), None)
    slots = {slot.name: slot for slot in training.optimizer.slots}
    assert slots["head.out.weight"].lr == pytest.approx(1e-4)
    assert slots["body.embedding.weight"].lr == pytest.approx(1e-4 * 0.125)
    assert slots["body.embedding.weight"].weight_decay == 0.0
    assert slots["body.layers.0.mlp.up.weight"].lr == pytest.approx(0.02 * 0.25)


def test_the_top_of_a_decoder_that_answers_by_itself_is_trained_alone(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "w7"}, {"role": "assistant", "content": "w8"}]
    path = write_rows(tmp_path / "chats.jsonl", [{"messages": turns}] * 4)
    base = base_folder(tmp_path, "gpt")
    run = finetune(recipe(tmp_path / "run", base, {"kind": "dialogue", "train": str(path)}, length="2 steps", layers=1))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, run.model_dir))
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert moved
    assert all(name.startswith(("model.layers.1.", "model.norm")) for name in moved)


def test_layers_of_two_stacks_cannot_thaw(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.jsonl", [{"source": "w7", "target": "w8"}] * 4)
    given = recipe(
        tmp_path / "run", base_folder(tmp_path, "seq2seq"), {"kind": "translation", "train": str(path)},
        unfreeze="1 epochs",
    )  # fmt: skip
    with pytest.raises(UserError, match="of models with one stack of layers; got a seq2seq model"):
        finetune(given)
