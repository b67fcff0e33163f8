"""Personal data and secrets: masked, or the document dropped, or kept, by kind.

What can be checked is checked, so that an ordinary number is seldom taken for one:

- e-mail addresses: RFC 5321, section 4.1.2, in the forms that people use, with `(at)` for `@` as well;
- telephone numbers: E.164 after a plus sign; North American, British, German and Chinese ways to write one; other
  groups of digits only after a word such as `phone`;
- IP addresses: RFC 791 and RFC 4291. No version, section or net mask, no loopback or unspecified address;
- payment cards: ISO/IEC 7812 issuer ranges and Luhn's checksum;
- IBAN: ISO 13616, length by country and checksum MOD 97-10;
- Chinese resident identity numbers: GB 11643-1999, with birth date and checksum MOD 11-2;
- passwords in URLs: RFC 3986, section 3.2.1;
- URLs of the web and of FTP: RFC 3986, with `www.` forms, without brackets and punctuation of the text around. They
  are kept unless set otherwise;
- keys and tokens that tell their issuer by their first letters, JSON web tokens, blocks of private keys.

Addresses of documentation (example.com, 192.0.2.1) are treated as any other. Rules and checks are in
`corpus/personal.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from foundling.core.config import PartConfig
from foundling.corpus.document import Document, Drop
from foundling.corpus.personal import Kind, replace_personal

REASONS = {
    "has_email": "holds an e-mail address, and `email` is set to drop",
    "has_phone": "holds a telephone number, and `phone` is set to drop",
    "has_ip": "holds an IP address, and `ip` is set to drop",
    "has_card": "holds a payment card number, and `card` is set to drop",
    "has_iban": "holds an international bank account number, and `iban` is set to drop",
    "has_chinese_id": "holds a Chinese resident identity number, and `chinese_id` is set to drop",
    "has_url_password": "holds a URL with user name and password, and `url_password` is set to drop",
    "has_secret": "holds a key or token that gives access to something, and `secret` is set to drop",
    "has_url": "holds a web or FTP address, and `url` is set to drop",
}

_CHARACTER = re.compile(r"[^\W_]")
_HIDDEN = "\u2022"

Action = Literal["mask", "drop", "keep"]


class Config(PartConfig):
    """What to do with each kind: `mask` it, `drop` the document, or `keep` it (it is counted all the same)."""

    email: Action = "mask"
    """E-mail addresses; masked as `<EMAIL>`."""
    phone: Action = "mask"
    """Telephone numbers; masked as `<PHONE>`."""
    ip: Action = "mask"
    """IPv4 and IPv6 addresses; masked as `<IP>`, a port after it stays."""
    card: Action = "mask"
    """Numbers of payment cards; masked as `<CARD>`."""
    iban: Action = "mask"
    """International bank account numbers; masked as `<IBAN>`."""
    chinese_id: Action = "mask"
    """Chinese resident identity numbers; masked as `<CHINESE_ID>`."""
    url_password: Action = "mask"
    """User name and password in a URL; masked as `<URL_PASSWORD>`, the rest of the URL stays."""
    secret: Action = "mask"
    """Keys, tokens and private keys; masked as `<SECRET>`."""
    url: Action = "keep"
    """Addresses of web pages and FTP files; masked as `<URL>`, with all that stands in them."""
    numbered: bool = False
    """Whether equal things of one document get one number, as in `<EMAIL_2>`: it stays clear who is who."""
    mask: str = "<{kind}>"
    """What stands instead; `{kind}` becomes the kind in capitals."""

    def build(self) -> "Privacy":
        actions: dict[Kind, Action] = {
            "email": self.email,
            "phone": self.phone,
            "ip": self.ip,
            "card": self.card,
            "iban": self.iban,
            "chinese_id": self.chinese_id,
            "url_password": self.url_password,
            "secret": self.secret,
            "url": self.url,
        }
        return Privacy(actions, self.numbered, self.mask)


@dataclass(frozen=True)
class Privacy:
    actions: dict[Kind, Action]
    numbered: bool
    mask: str

    def apply(self, document: Document) -> Document | Drop:
        found: dict[str, int] = {}
        text = replace_personal(document.text, self.actions.keys(), self._masker(found))
        for kind, num_found in found.items():
            if self.actions[kind] == "drop":  # type: ignore[index]
                return Drop(f"has_{kind}", f"{num_found} of {kind} found")
        return document.with_text(text, **found)

    def redact(self, text: str) -> str:
        """The text for people to see what kind of thing stands where: what is masked or dropped has `•` for characters.

        As long as before, whatever `mask` is.
        """
        sought = {kind for kind, action in self.actions.items() if action != "keep"}
        return replace_personal(text, sought, lambda kind, what: _CHARACTER.sub(_HIDDEN, what))

    def _masker(self, found: dict[str, int]) -> Callable[[Kind, str], str]:
        numbers: dict[tuple[Kind, str], int] = {}

        def masked(kind: Kind, what: str) -> str:
            found[kind] = found.get(kind, 0) + 1
            if self.actions[kind] == "keep":
                return what
            name = kind.upper()
            if self.numbered:
                before = sum(known == kind for known, _ in numbers)
                name += f"_{numbers.setdefault((kind, what.lower()), before + 1)}"
            return self.mask.replace("{kind}", name)

        return masked
