"""`save_model`: a live model to a Hugging Face model folder that transformers and vLLM read as it is."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundling.core.config import resolved
from foundling.core.errors import UserError
from foundling.core.files import whole_folder, write_json, write_manifest, write_text
from foundling.core.log import logger
from foundling.core.registry import load_part, part_names
from foundling.data.batch import rows_batch
from foundling.models.base import family_of
from foundling.models.hub._card import GENERATES, model_card
from foundling.models.hub._load import CONFIG_FILE, FOLDER, load_model
from foundling.models.hub._weights import write_weights
from foundling.models.hub.base import Format, Weight
from foundling.tokenizers.base import Tokenizer, load_tokenizer

MAX_SHARD_BYTES = 5 * 10**9
"""Largest weight file: what model hubs and file systems take without special care."""
_PROBE_ROWS, _PROBE_TOKENS = 2, 8
_PROBE_TOLERANCE = 1e-5
"""The same weights give the same answers to the bit; a kernel that is chosen by alignment may round otherwise."""
_WAY_OUT = "nothing was kept; write it to another disk, and report it if it happens again"


def format_for(config: Any) -> Format:
    """The format that a model of this config is written in."""
    for name in part_names(FOLDER):
        form: Format = load_part(FOLDER, name).Format()
        if form.writes(config):
            return form
    raise UserError(
        f"a model must be of a family that a format writes ({', '.join(part_names(FOLDER))})", got=repr(config)
    )


def save_model(
    model: nn.Module,
    folder: Path | str,
    *,
    tokenizer: Tokenizer | None = None,
    generation: Mapping[str, Any] | None = None,
    card: dict[str, Any] | str | None = None,
    dtype: torch.dtype | None = None,
    weights: Mapping[str, Tensor] | None = None,
    inputs: dict[str, str] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    form: Format | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model folder, whole or not at all: config, weights, generation defaults, tokenizer, card, manifest.

    tokenizer: its special tokens' ids go into config.json and generation_config.json. generation: further keys of
    generation_config.json (temperature, top_p, ...). card: see `model_card`. dtype: of the weights in the file; None:
    as they are. weights: whole tensors by our parameter names that stand for the model's own, such as fp32 masters or
    a sharded model's gathered parameters. inputs: name -> sha256 or key of what the model was made from. form: how it
    is written; None: the format of its config. beside: further JSON files, by name.
    UserError: no format writes this config, the tokenizer has more ids than the model, a weight is missing or not
    finite, the disk is full, or the written folder, loaded again, does not hold the same weights to the bit, answer
    random tokens as they do, and cut text by the same tokenizer.
    """
    folder = Path(folder)
    config: Any = model.config
    form = form or format_for(config)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"a model of {config.vocab_size} ids must have a tokenizer of at most as many",
            got=f"one of {tokenizer.vocab_size}",
        )
    if tokenizer is not None:
        _tell_frame(config, tokenizer)
    source = dict(weights) if weights is not None else {k: v.detach() for k, v in model.named_parameters()}
    tensors = {form.file_name(config, k): v for k, v in _theirs(form.weights(config), source, dtype).items()}
    written = dtype or next(iter(source.values())).dtype
    described = _described(form, config, tokenizer, written)
    num_parameters = sum(source[weight.ours].numel() for weight in form.weights(config))
    facts = {"architecture": form.architecture_of(config), "weights": described["dtype"]}
    facts |= {key: getattr(config, key) for key in ("layers", "width", "heads", "vocab_size", "max_positions")}
    with whole_folder(folder) as temporary:
        write_json(temporary / CONFIG_FILE, described)
        for name, value in (beside or {}).items():
            write_json(temporary / name, value)
        if form.pipeline in GENERATES:
            known_ids = {key: x for key, x in _token_ids(tokenizer, ("bos", "eos", "pad")).items() if x is not None}
            write_json(temporary / "generation_config.json", {**known_ids, **(generation or {})})
        write_weights(temporary, tensors, max_shard_bytes)
        _must_be_alike(temporary, folder, form, config, source, written)
        if tokenizer is not None:
            tokenizer.write_files(temporary, most=config.max_positions)
            _must_cut_alike(temporary, folder, tokenizer)
        page = model_card(
            card, name=folder.resolve().name, facts=facts, num_parameters=num_parameters,
            pipeline=form.pipeline, auto_class=form.auto_class_of(config),
            auto_arguments=form.auto_arguments_of(config),
        )  # fmt: skip
        write_text(temporary / "README.md", page)
        write_manifest(
            temporary,
            "model",
            settings=resolved(config),
            inputs={**({"tokenizer": tokenizer.sha256} if tokenizer else {}), **(inputs or {})},
            counts={"parameters": num_parameters},
        )


def _tell_frame(config: Any, tokenizer: Tokenizer) -> None:
    """Warns where other tools, which frame texts as the tokenizer says, would not feed a model what it learnt from."""
    family, is_task = (config.family, True) if hasattr(config, "head") else (family_of(config), False)
    if not (family == "bert" or (family == "xlnet" and is_task)) or tokenizer.cls_id is None:
        return
    text, framed = tokenizer.encode("a"), tokenizer.encode("a", special=True)
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    wanted = [*cls, *text, *sep] if family == "bert" else [*text, *sep, *cls]
    if framed != wanted:
        first, second = ("before", "behind") if family == "bert" else ("behind all", "behind each")
        logger.warning(
            "the tokenizer does not frame texts by itself: with transformers put %s %s a text and %s %s it",
            tokenizer.special.by_role["cls"], first, tokenizer.special.by_role.get("sep", "sep"), second,
        )  # fmt: skip


def _described(form: Format, config: Any, tokenizer: Tokenizer | None, written: torch.dtype) -> dict[str, Any]:
    """What config.json says."""
    ids = _token_ids(tokenizer, form.token_roles)
    if form.reads_row_end and ids.get("pad_token_id") == ids.get("eos_token_id"):
        ids["pad_token_id"] = None  # what ends a row would be passed over as padding
    return {
        "architectures": [form.architecture_of(config)],
        "model_type": form.model_type,
        "dtype": str(written).removeprefix("torch."),
        **form.write_config(config),
        **({"use_cache": True} if form.pipeline in GENERATES else {}),
        **ids,
    }


def _token_ids(tokenizer: Tokenizer | None, roles: Iterable[str]) -> dict[str, int | None]:
    """`eos_token_id` and such of a tokenizer; None where it has no such token."""
    return {f"{role}_token_id": getattr(tokenizer, f"{role}_id", None) for role in roles}


def _must_be_alike(
    written: Path, folder: Path, form: Format, config: Any, source: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Loads what was written and compares it with what it came from: the answers to a few random tokens, which also
    tell what the config loses, and every weight, for few tokens read few rows of embeddings."""
    with torch.device("meta"):
        live: nn.Module = config.build()
    state = {name: source[name].detach().to("cpu", dtype).float() for name, _ in live.named_parameters()}
    live.load_state_dict(state, assign=True)
    generator = torch.Generator().manual_seed(0)
    shape = (_PROBE_ROWS, min(_PROBE_TOKENS, config.max_positions))
    tokens_RT = torch.randint(0, config.vocab_size, shape, generator=generator)
    batch = rows_batch(tokens_RT, tokens_RT)
    loaded = load_model(written, form=form)
    with torch.inference_mode():
        ours, theirs = (form.probe(model.eval(), batch) for model in (live, loaded))
    worst = max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
    if not worst <= _PROBE_TOLERANCE:
        raise UserError(
            f"the model written to {folder} must answer as the model itself does",
            got=f"answers that differ by up to {worst:g}",
            do=_WAY_OUT,
        )
    back = dict(loaded.named_parameters())
    for name, weight in live.named_parameters():
        if not torch.equal(weight.view(torch.int32), back[name].view(torch.int32)):  # as bits: -0 is not 0
            raise UserError(
                f"the model written to {folder} must hold the model's own weights", got=f"another {name}", do=_WAY_OUT
            )


def _must_cut_alike(written: Path, folder: Path, tokenizer: Tokenizer) -> None:
    """Reads the tokenizer's files back."""
    back = load_tokenizer(written)
    if back.sha256 != tokenizer.sha256 or back.special != tokenizer.special:
        raise UserError(
            f"the tokenizer written to {folder} must be the model's own",
            got="another one" if back.sha256 != tokenizer.sha256 else "other special tokens",
            do=_WAY_OUT,
        )


def _theirs(
    weights: list[Weight], source: Mapping[str, Tensor], dtype: torch.dtype | None
) -> dict[str, tuple[int, Callable[[], Tensor]]]:
    """Their name -> (bytes, function that makes the tensor)."""
    missing = [weight.ours for weight in weights if weight.ours not in source]
    if missing:
        raise UserError("every parameter of the model must be given", got=f"nothing for {', '.join(missing)}")
    found: dict[str, tuple[int, Callable[[], Tensor]]] = {}
    for weight in weights:
        ours = source[weight.ours]
        if not torch.isfinite(ours).all():
            raise UserError(f"the weight {weight.ours} must be finite", got="NaN or infinity")
        shapes = weight.split(torch.empty_like(ours, device="meta", dtype=dtype or ours.dtype))
        for index, (name, shape) in enumerate(zip(weight.theirs, shapes, strict=True)):
            found[name] = (shape.numel() * shape.element_size(), _maker(weight, ours, index, dtype))
    return found


def _maker(weight: Weight, ours: Tensor, index: int, dtype: torch.dtype | None) -> Callable[[], Tensor]:
    def make() -> Tensor:
        part = weight.split(ours)[index]
        return part.detach().to("cpu", dtype or part.dtype).contiguous().clone()

    return make
