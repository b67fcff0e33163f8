"""Chat templates: what the assistant says is found, by marks or without, as transformers finds it."""

import pytest
import tokenizers
import transformers

from foundling.core.errors import UserError
from foundling.tokenizers.chat import ChatTemplate, TemplateFault

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + '<end>' }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def said(template: ChatTemplate) -> list[str]:
    found = template.rendered(MESSAGES)
    return [found.text[first:end] for first, end in found.said]


def test_without_marks_messages_are_rendered_one_after_another() -> None:
    assert said(ChatTemplate(CHATML, {})) == ["Hi.<|im_end|>\n", "A model.<|im_end|>\n"]


def test_marks_say_it_exactly() -> None:
    template = ChatTemplate(MARKED, {})
    assert said(template) == ["Hi.<end>", "A model.<end>"]
    assert template.text(MESSAGES[:2]) == "<|system|>Be brief.<|user|>Hello?"


def test_our_own_template_ends_answers_with_eos() -> None:
    template = ChatTemplate(None, {"eos_token": "</s>"})
    assert said(template) == ["Hi.</s>", "A model.</s>"]
    assert template.text(MESSAGES[:2], asks=True) == "### system\nBe brief.\n### user\nHello?\n### assistant\n"
    assert template.text(MESSAGES[:3]).startswith(template.text(MESSAGES[:2], asks=True))


@pytest.mark.parametrize("source", [CHATML, MARKED, ChatTemplate(None, {}).source])
def test_transformers_renders_the_same(source: str) -> None:
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=source, eos_token="</s>")
    ours = ChatTemplate(source, {"eos_token": "</s>", "bos_token": ""})
    for asks in (False, True):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=asks)
        assert ours.text(MESSAGES, asks=asks) == expected


def test_a_template_that_rewrites_the_past_is_told() -> None:
    rewriting = "{% for m in messages %}{{ m.content if loop.last else m.content[:2] }}{% endfor %}"
    with pytest.raises(UserError, match="mark what the assistant says"):
        ChatTemplate(rewriting, {}).rendered(MESSAGES)


def test_what_a_template_refuses_is_its_own_word() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    with pytest.raises(TemplateFault, match="no system role"):
        ChatTemplate(refusing, {}).text(MESSAGES)
    with pytest.raises(UserError, match="must be Jinja"):
        ChatTemplate("{% for %}", {})


def test_a_template_cannot_reach_the_machine() -> None:
    with pytest.raises(TemplateFault):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}", {}).text(MESSAGES)


def test_marks_in_what_people_say_are_no_marks() -> None:
    template = ChatTemplate(MARKED, {})
    found = template.rendered([{"role": "user", "content": "\ue0f0x\ue0f1"}, {"role": "assistant", "content": "y"}])
    assert [found.text[a:b] for a, b in found.said] == ["y<end>"]
