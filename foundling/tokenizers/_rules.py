r"""Pre-tokenization rules that more than one module must agree on."""

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How a text is cut before byte pairs are merged; the rule published with Qwen2, which llama.cpp knows by that name.

One digit a token: groups of three would take 1,110 of a small vocabulary's tokens and hide place value. Letters of
any script run on, so a clause of Chinese (no spaces, ended by punctuation) is one piece and byte pairs find its words.
Line ends go with the punctuation before them, and indentation keeps its width, so source code stays short.
"""

NUMBERS_AND_LINES = r"[\r\n]+|\p{N}"
"""What is isolated before words are cut at spaces: line ends (else the last word of a line, the line end and the
first word of the next are one word) and digits, one by one."""

CHARACTER_PATTERN = r"[\s\S]"
"""Every character is a piece, line ends too."""
