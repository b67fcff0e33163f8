"""Small training texts for the tests: English, Chinese, code, numbers; the same every time."""

import random

WORDS = (
    "the quick brown fox jumps over the lazy dog while seven wizards quietly examine twelve boxes of jugs "
    "language models learn the next word from the words before it and tokens are pieces of words "
    "running runner runs walked walking walks higher highest lower lowest unhappy unkind undo redo"
)
ENGLISH = WORDS.split(" ")
CHINESE = list("我们学习语言模型天地玄黄宇宙洪荒日月盈昃今天气很好北京大学")


def texts(num_texts: int = 200, seed: int = 0) -> list[str]:
    """Documents of a few sentences, one in four Chinese, some with code and digits."""
    rng = random.Random(seed)
    return [_text(rng, i) for i in range(num_texts)]


def _text(rng: random.Random, i: int) -> str:
    if i % 4 == 3:
        return "，".join("".join(rng.choices(CHINESE, k=rng.randint(3, 9))) for _ in range(6)) + "。\n"
    words = " ".join(rng.choices(ENGLISH, k=40)).capitalize()
    if i % 4 == 1:
        words += f"\n\n    def f_{i}(x):\n        return x + {rng.randint(0, 9999)}\n"
    return words + ".\n"


ODD = [
    "",
    " ",
    "\n",
    "  two  spaces  ",
    "\n \n x",
    "tab\tand\r\nline",
    "emoji 👩‍👩‍👧 🎉",
    "中文，没有空格。English 混排",
    "nbsp\xa0 x\xa0\n\u3000 全角",
    "a\x1cb \x1f c",
    "<|endoftext|> [SEP] <unk> <0x0A>",
    "it's 2024'll\u2028next",
    "e\u0301 \u0301x",
    "x" * 300,
    "end.\n\n  \n\nnext  \n y",
]
