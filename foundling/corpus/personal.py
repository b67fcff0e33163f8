"""Personal data in text: where it is, and how it is told from ordinary numbers. The step `privacy` has the sources.

Patterns begin with the characters that they may begin with, and look behind after the first: the regular expression
engine then skips other text tenfold as fast.
"""

import re
from collections.abc import Callable, Set
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from foundling.corpus.scripts import HAN, UNSPACED

Kind = Literal["email", "phone", "ip", "card", "iban", "chinese_id", "url_password", "secret", "url"]
Mask = Callable[[Kind, str], str]

_SECRET = re.compile(
    r"-----BEGIN (?P<key>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----.{0,20000}?(?:-----END (?P=key)-----|\Z)"
    r"|(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}"  # Google
    r"|(?:sk|rk)_live_[A-Za-z0-9]{16,255}"  # Stripe
    r"|sk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{32,255}"
    r"|(?:hf|npm)_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_-]{50,255}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"  # RFC 7519
    r")(?![A-Za-z0-9_-])"
    r"|(?i:aws_?secret_?(?:access_?)?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<value>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    re.DOTALL,
)
_SECRET_SIGNS = (
    *("PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat", "glpat-", "xox", "AIza"),
    *("_live_", "sk-", "hf_", "npm_", "pypi-", "eyJ", "secret_", "SECRET_", "secretAcc", "SecretAcc"),
)

_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@\"'<>()]{1,100}:[^\s/@\"'<>]{1,200}(?=@[\w\[])")

_URL_SIGN = re.compile(r"[:wW](?:(?<=:)//|[wW]{2}\.)")
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])(?:https?|ftps?)\Z", re.IGNORECASE)
_BEFORE_WWW = re.compile(r"(?<![\w.@/-])\Z", re.ASCII)
# Unicode letters may stand in it (RFC 3987), but where no spaces stand between words it ends with ASCII.
_NO_URL = f'\\s<>"{{}}|\\\\^`\u00ab\u00bb\u2013\u2014\u2018-\u201f\u2026\u3000-\u303f\uff00-\uffef{UNSPACED}'
_AFTER_SCHEME = re.compile(rf"(?=[^\W_]|\[[0-9A-Fa-f:])[^{_NO_URL}]{{1,2000}}")
_AFTER_WWW = re.compile(rf"(?=[^\W_][^\W_-]{{0,62}}(?:-[^\W_-]{{0,62}}){{0,9}}\.[^\W\d_])[^{_NO_URL}]{{1,2000}}")
_URL_END = re.compile(r"&(?:lt|gt|quot|apos|#39|nbsp);.*", re.DOTALL)
_URL_BRACKETS = re.compile(r"[()\[\]]")

_AT = re.compile(r"[@(\[{](?:(?<=@)| ?[aA][tT] ?[)\]}] ?)")
_LOCAL_PART = re.compile(r"(?<![A-Za-z0-9À-ɏ._%+@-])[A-Za-z0-9À-ɏ_](?:[A-Za-z0-9À-ɏ._%+'-]{0,62}[A-Za-z0-9À-ɏ_+-])?\Z")
_MAX_LOCAL_CHARACTERS = 64
_EMAIL_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9À-ɏͰ-ӿ](?:[A-Za-z0-9À-ɏͰ-ӿ-]{0,61}[A-Za-z0-9À-ɏͰ-ӿ])?(?:\.| ?[(\[{] ?[dD][oO][tT] ?[)\]}] ?)){1,8}"
    r"(?P<top>[A-Za-z]{2,24}|xn--[a-z0-9-]{2,59})(?![A-Za-z0-9-])"
)
_SPELT_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._-])[A-Za-z0-9][A-Za-z0-9._-]{0,63} AT [A-Za-z0-9-]{1,63}(?: DOT [A-Za-z0-9-]{1,63}){0,4}"
    r" DOT [A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_FILE_ENDINGS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "htm", "html", "xml", "py", "service")
)

_NUMBER = re.compile(
    r"[+(0-9](?<![A-Za-z0-9_.+][+(0-9])(?:\(?[0-9])?(?:[ \u00a0()./\u2010-\u2013-]{0,3}[0-9]){5,}[Xx]?(?![A-Za-z0-9_])"
)
"""Six digits or more with little between them, as a whole: a row of a table is one and no telephone number."""
_WHITE = re.compile("[ \u00a0]+")

_PHONE = re.compile(
    r"\+(?!1\D?[01])[1-9][0-9]{0,2}(?:[ .\-/]{0,2}\(?[0-9]{1,5}\)?){2,6}"  # E.164
    r"|00[1-9][0-9]{1,2}[ -](?=(?:\D*[0-9]){7})(?:\(?[0-9]{1,5}\)?[ \-/]?){2,5}"
    r"|(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}(?P<us>[.-]))[2-9][0-9]{2}[ .-][0-9]{4}"  # North America
    r"|\(?0(?:20\)?[ -]?[0-9]{4}[ -]?[0-9]{4}"  # Britain
    r"|1[0-9]{2}\)?[ -][0-9]{3}[ -][0-9]{4}|1[0-9]{3}\)?[ -][0-9]{5,6}|1[0-9]{3}\)?[ -][0-9]{3}[ -][0-9]{3}"
    r"|7[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}|[38][0-9]{2}[ -][0-9]{3}[ -][0-9]{4}|[38][0-9]{3}[ -][0-9]{6})"
    r"|\(?0(?:[2-9][0-9]{1,3}|1[5-7][0-9]{1,2})\)?(?: ?[/-] ?| )[1-9](?:[ -]?[0-9]){4,8}"  # Germany
    r"|(?:86[ -]?)?1[3-9][0-9](?P<cn>[ -])[0-9]{4}(?P=cn)[0-9]{4}"  # China
    r"|\(?0(?:10|2[0-9]|[3-9][0-9]{2})(?:-|\) ?-?)[2-9][0-9]{6,7}|[48]00-[0-9]{3}-[0-9]{4}"
)
_PHONE_IN_HAN = re.compile(r"(?:86-?)?1[3-9][0-9]{9}|0(?:10|2[0-9]|[3-9][0-9]{2})[2-9][0-9]{6,7}")
_HAN = re.compile(f"[{HAN}]")
_PHONE_AFTER_WORD = re.compile(r"\(?[0-9]{2,5}\)?(?:[ ./-]{0,3}[0-9]{2,5}){1,5}")
_PHONE_WORD = re.compile(
    r"(?:\b(?:phone|telephone|tele?|call|dial|ring|fax|cell|mobile|sms|whatsapp|telefon|telefax|handy|mobil|durchwahl|téléphone|tél"
    r"|tel[eé]fono|m[oó]vil|celular|telefone|cellulare|телефон|тел|моб)"
    r"(?: (?:us|me|him|her|them|now|number|no|on|at|is|free|toll|our|the|office|nummer|unter|line|hotline)\b){0,3}"
    r"|电话|電話|手机|手機|热线|熱線|传真|傳真|联系方式|電話番号|携帯|전화|휴대폰|☎|📞)[ :：.#-]{0,4}$",
    re.IGNORECASE,
)
_NO_PHONE_WORD = re.compile(
    r"(?:\b(?:isbn(?:-?1[03])?|issn|doi|arxiv|pep|rfc|id|no|nr|number|order|version|serial|patent|page|pages|pp|ticket)"
    r"|[#№$€£¥=])[ :.]{0,3}$",
    re.IGNORECASE,
)
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 8, 15

_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
_IPV4_SHORT = re.compile(r"[0-9](?<![A-Za-z0-9_.+-][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9]|-[0-9])")
_NUMBERING_WORD = re.compile(
    r"(?:\b(?:v|ver|vers|version|versions|release|rel|section|sections|sec|chapter|clause|part|step|table|figure|fig"
    r"|build|firmware|rev|revision|abschnitt|kapitel|item|appendix|rule|art|article|oid)|§|版本|[A-Za-z0-9_)]/)"
    r"[ :.(v=]{0,3}$",
    re.IGNORECASE,
)
_IP_WORD = re.compile(
    r"\b(?:ip|ips|ipv4|address|addresses|host|server|dns|ping|gateway|from|client|peer)\b|://|@", re.IGNORECASE
)
_MAX_NUMBERING_PART = 19
"""Three parts up to this, the first among them, make a version or section unless a word speaks of addresses."""
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])(?:[0-9A-Fa-f]{1,4}:|:(?=:)){1,8}:?(?:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6})?"
    r"(?:(?<=:)(?:[0-9]{1,3}\.){3}[0-9]{1,3})?(?![A-Za-z0-9_]|:[0-9A-Fa-f])"
)
_IPV6_SIGN = re.compile(r":[0-9A-Fa-f]{0,4}:(?:[0-9A-Fa-f]|(?<=::)(?![0-9A-Za-z_]))")

_CARD_GROUPS = re.compile(
    r"[0-9]{13,19}|[0-9]{4}(?P<by>[ -])[0-9]{4}(?P=by)[0-9]{4}(?P=by)[0-9]{4}(?:(?P=by)[0-9]{3})?"
    r"|[0-9]{4}(?P<amex>[ -])[0-9]{6}(?P=amex)[0-9]{4,5}"
)
_CARD_ISSUERS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}|35(?:2[89]|[3-8][0-9])[0-9]{12}"
    r"|62[0-9]{14,17}"
)
_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z][0-9]{2}(?: ?[A-Z0-9]){11,30}")
_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        *(
            (15, "NO"),
            (16, "BE"),
            (18, "DK FI FO GL NL"),
            (19, "MK SI"),
            (20, "AT BA EE KZ LT LU XK"),
            (21, "CH HR LI LV"),
        ),
        *((22, "BG BH CR DE GB GE IE ME RS VA"), (23, "AE GI IL IQ TL"), (24, "AD CZ ES MD PK RO SA SE SK TN VG")),
        *((25, "LY PT ST"), (26, "IS TR"), (27, "FR GR IT MC MR SM"), (28, "AL AZ BY CY DO GT HU LB PL SV")),
        *((29, "BR EG PS QA UA"), (30, "JO KW MU"), (31, "MT SC"), (32, "LC")),
    )
    for country in countries.split()
}
"""Characters of an IBAN by country (SWIFT, IBAN Registry)."""
_CHINESE_ID = re.compile(
    r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])[0-9]{4}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])"
    r"(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx]"
)
_STRONG = re.compile(
    r"(?<![0-9])(?:[0-9]{17}[0-9Xx]|1[3-9][0-9]{9}|[0-9]{3}-[0-9]{3}-[0-9]{4}|0[0-9]{2,3}-[0-9]{7,8}"
    r"|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4})(?![0-9])"
)
"""What is sought inside a number that is nothing as a whole: two numbers side by side."""
_CONTEXT_CHARACTERS = 40


def replace_personal(text: str, sought: Set[Kind], mask: Mask) -> str:
    """`text` with what `mask(kind, found)` gives for each thing of the kinds in `sought`, which may be found in it."""
    if "secret" in sought and any(sign in text for sign in _SECRET_SIGNS):
        text = _SECRET.sub(lambda match: _masked_secret(match, mask), text)
    if "url" in sought:
        text = _without_urls(text, sought, mask)
    if "url_password" in sought and "@" in text and "://" in text:
        text = _URL_PASSWORD.sub(lambda match: mask("url_password", match[0]), text)
    if "email" in sought:
        text = _without_emails(text, mask)
        if " AT " in text and " DOT " in text:
            text = _SPELT_EMAIL.sub(lambda match: mask("email", match[0]), text)
    if "iban" in sought:
        text = _IBAN.sub(lambda match: _masked_iban(match, mask), text)
    if "ip" in sought:
        if _IPV6_SIGN.search(text):
            text = _IPV6.sub(lambda match: mask("ip", match[0]) if _is_ipv6(match[0]) else match[0], text)
        text = _IPV4_SHORT.sub(lambda match: mask("ip", match[0]) if _is_ipv4(match) else match[0], text)
    if sought & {"chinese_id", "card", "phone"}:
        text = _NUMBER.sub(lambda match: _masked_number(match, sought, mask), text)
    return text


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - _CONTEXT_CHARACTERS) : match.start()]


def _masked_secret(match: re.Match[str], mask: Mask) -> str:
    value = match["value"]
    return match[0].replace(value, mask("secret", value)) if value else mask("secret", match[0])


def _without_urls(text: str, sought: Set[Kind], mask: Mask) -> str:
    """Goes from one sign of a URL to the next, which are few."""
    pieces, end = [], 0
    for sign in _URL_SIGN.finditer(text):
        if sign.start() < end:
            continue
        is_www = sign[0] != "://"
        before = (_BEFORE_WWW if is_www else _SCHEME).search(text, max(end, sign.start() - 8), sign.start())
        rest = (_AFTER_WWW if is_www else _AFTER_SCHEME).match(text, sign.end())
        if before is None or rest is None:
            continue
        url = text[before.start() : sign.end()] + _url_rest(rest[0])
        masked = mask("url", url)
        if masked != url:  # what it holds goes with it, but is found all the same
            replace_personal(url, sought - {"url"}, mask)
        pieces += [text[end : before.start()], masked]
        end = before.start() + len(url)
    return "".join([*pieces, text[end:]]) if pieces else text


def _url_rest(rest: str) -> str:
    """Without what belongs to the text around: a closing bracket that was never opened, and punctuation at the end."""
    rest = _URL_END.sub("", rest)
    opened: list[str] = []
    for bracket in _URL_BRACKETS.finditer(rest):
        if bracket[0] in "([":
            opened.append(bracket[0])
        elif opened and opened[-1] == ("(" if bracket[0] == ")" else "["):
            opened.pop()
        else:
            rest = rest[: bracket.start()]
            break
    return rest.rstrip(".,;:!?'*([")


def _without_emails(text: str, mask: Mask) -> str:
    """Goes from one at sign to the next, which are few, and looks to both sides."""
    pieces, end = [], 0
    for at in _AT.finditer(text):
        before = at.start() - (at[0] != "@" and text[at.start() - 1 : at.start()] == " ")
        local = _LOCAL_PART.search(text, max(end, before - _MAX_LOCAL_CHARACTERS), before)
        domain = _EMAIL_DOMAIN.match(text, at.end())
        if local is None or domain is None or domain["top"].lower() in _FILE_ENDINGS:
            continue
        if local[0].lower() == "git" and text[domain.end() : domain.end() + 1] == ":":
            continue  # a repository's address
        pieces += [text[end : local.start()], mask("email", text[local.start() : domain.end()])]
        end = domain.end()
    return "".join([*pieces, text[end:]]) if pieces else text


def _masked_iban(match: re.Match[str], mask: Mask) -> str:
    length = _IBAN_LENGTHS.get(match[0][:2])
    if length is None:
        return match[0]
    found = re.match(
        f"(?:[A-Z0-9] ?){{{length - 1}}}[A-Z0-9](?![A-Za-z0-9])", match.string[match.start() : match.end() + 1]
    )
    if found is None:
        return match[0]
    compact = found[0].replace(" ", "")
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return mask("iban", found[0]) + match[0][found.end() :] if int(number) % 97 == 1 else match[0]


def _is_ipv4(match: re.Match[str]) -> bool:
    try:
        address = IPv4Address(match[0])
    except AddressValueError:
        return False
    before = _before(match)
    parts = address.packed
    is_url = before.endswith("//")
    if address.is_loopback or parts[0] in (0, 255) or (_NUMBERING_WORD.search(before) and not is_url):
        return False
    looks_like_numbering = parts[0] <= _MAX_NUMBERING_PART and sorted(parts)[2] <= _MAX_NUMBERING_PART
    return not looks_like_numbering or _IP_WORD.search(before) is not None


def _is_ipv6(found: str) -> bool:
    groups = [group for group in found.split(":") if group]
    # `a::b` is a name in C++ and `1::2` a slice in Python: an address has more to it.
    if len(groups) < 2 or max(map(len, groups)) < 3 or not any(c.isdigit() for c in found):
        return False
    try:
        return not IPv6Address(found).is_loopback
    except AddressValueError:
        return False


def _masked_number(match: re.Match[str], sought: Set[Kind], mask: Mask) -> str:
    number, opening = match[0], ""
    if number.startswith("(") and ")" not in number:
        number, opening = number[1:], "("
    before = _before(match) + opening
    kind = _kind(number, before)
    if kind is not None:
        return opening + mask(kind, number) if kind in sought else match[0]

    def part(inside: re.Match[str]) -> str:
        kind = _kind(inside[0], before + number[: inside.start()])
        return mask(kind, inside[0]) if kind in sought and kind is not None else inside[0]

    return opening + _STRONG.sub(part, number)


def _kind(number: str, before: str) -> Kind | None:
    digits = "".join(filter(str.isdigit, number))
    if _CHINESE_ID.fullmatch(number) and _chinese_id_is_valid(number):
        return "chinese_id"
    if _CARD_GROUPS.fullmatch(number) and _CARD_ISSUERS.fullmatch(digits) and _luhn_is_valid(digits):
        return "card"
    if not (6 <= len(digits) <= _MAX_PHONE_DIGITS) or number[-1] in "Xx":
        return None
    return "phone" if _is_phone(_WHITE.sub(" ", re.sub("[\u2010-\u2013]", "-", number)), digits, before) else None


def _is_phone(number: str, digits: str, before: str) -> bool:
    if _PHONE_WORD.search(before):
        years = re.fullmatch(r"(?:1[5-9]|20)[0-9]{2}\D+(?:1[5-9]|20)[0-9]{2}(?:\D.*)?", number)
        return years is None and (_PHONE_AFTER_WORD.fullmatch(number) or _PHONE.fullmatch(number)) is not None
    if len(digits) < _MIN_PHONE_DIGITS or _NO_PHONE_WORD.search(before):
        return False
    if not _PHONE.fullmatch(number):
        return _PHONE_IN_HAN.fullmatch(number) is not None and _HAN.search(before) is not None
    if number.startswith("+"):  # +1.234567890 is a number, +12345678 an increment
        return len(digits) >= 9 and re.fullmatch(r"\+[0-9]+\.[0-9]+", number) is None
    return True


def _luhn_is_valid(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1


def _chinese_id_is_valid(number: str) -> bool:
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()
