"""What the step `privacy` takes for personal data, and what only looks like it."""

import json
import time
from pathlib import Path

import pytest

from foundling.corpus.document import Document, Drop
from foundling.corpus.steps import privacy

CORPORA = Path(__file__).parents[3] / "shared" / "data" / "corpora"
STEP = privacy.Config(kind="privacy").build()


def made(text: str) -> Document:
    return Document(id="a", text=text, source="s", domain="d")


def cleaned(text: str, **settings: object) -> Document:
    answer = privacy.Config(kind="privacy", **settings).build().apply(made(text))
    assert isinstance(answer, Document)
    return answer


# The checksums below hold; all numbers are made up or are the published examples of their standards.
PERSONAL = {
    "email": [
        "li.wei@example.com",
        "bob+news70@mail.example.co.uk",
        "o'brien_x@example.org",
        "jürgen@müller.example.de",
        "ann (at) example.org",
        "ann[at]example[dot]org",
        "A.B@EXAMPLE.COM",
        "ann.b AT mail DOT example DOT org",
        "o.petrov@почта.example",
    ],
    "phone": [
        "+1 (303) 555 0189",
        "+44 20 7946 0145",
        "+1-415-555-0180",
        "+49 30 901820",
        "+49 (0)30 9018-20",
        "+86 138 0013 8000",
        "+8613800138000",
        "+33 1 23 45 67 89",
        "0044 20 7946 0145",
        "(212) 555-0120",
        "212-555-0120",
        "212.555.0120",
        "1-800-555-0199",
        "020 7946 0178",
        "(0171) 946 0178",
        "01632 960123",
        "07700 900123",
        "07700900123",
        "030 / 901820-12",
        "0171/1234567",
        "089 1234567",
        "010-62511234",
        "138-0013-8000",
        "400-820-8820",
    ],
    "ip": [
        "192.0.2.47",
        "203.0.113.90",
        "198.51.100.7",
        "2001:db8::26a5",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "fe80::1",
    ],
    "card": ["4111 1111 1111 1111", "4111111111111111", "5500-0055-5555-5559", "3782 822463 10005", "6221260000000000"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO93 8601 1117 947"],
    "chinese_id": ["11010519491231002X", "11010519491231002x"],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "sk-proj-" + "x9Y8" * 10,
        "xoxb-123456789012-abcdefABCDEF",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nABCD==\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk cut short",
    ],
}
CHECKED = [(kind, text) for kind, texts in PERSONAL.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), CHECKED)
@pytest.mark.parametrize("around", ["{}", "Write to {}.", "（见 {}）", "see {}, or", "<{}>", "字{}字", 'x = "{}"\n'])
def test_personal_data_is_masked(kind: str, text: str, around: str) -> None:
    if "cut short" in text and around != "{}":
        return
    answer = cleaned(around.format(text))
    assert answer.text == around.format(f"<{kind.upper()}>")
    assert answer.found == {kind: 1}
    assert cleaned(answer.text).text == answer.text


@pytest.mark.parametrize(
    "text",
    [
        "Call 555-0184 between nine and five",
        "Tel.: 1234 5678",
        "phone us on 0123456789",
        "手机13800138000",
        "我的电话：62511234",
        "张三，13912345678，住在北京",
        "☎ 26 35 41",
        "Teléfono 13912345678",
        "tél. : 01 23 45 67 89",
        "Тел.: 495 123-45-67",
        "電話番号：03-1234-5678",
    ],
)
def test_phones_by_what_stands_before(text: str) -> None:
    answer = cleaned(text)
    assert answer.found == {"phone": 1}
    assert not any(digit * 1 in answer.text for digit in "0123456789")


ORDINARY = [
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISBN: 020161622X and ISSN 2049-3630",
    "from 1914-1918 and 1939-1945, on 2006-10-12 at 12:30:45, in 2019/2020, 12/10/2006 14:30",
    "It cost $1,234,567.89 or €12 345 678,90, some 100 000 000 people, 299 792 458 m/s",
    "version 1.2.3.4, v10.0.19041.1, Chrome/120.0.6099.109 Safari/537.36, release 7.61.1.22, firmware 4.19.0.128",
    "1.2.3.4 Scope\nSection 5.12.101.3 says that §4.33.22.101 holds",
    "localhost is 127.0.0.1 or ::1, bound to 0.0.0.0, with mask 255.255.255.0 and version 2.17.1.0",
    "3.141592653589793238 and 2.7182818284590 and 6.02214076e23 and +1.234567890",
    "| 1234 5678 9012 3456 | 123 456 7890 1234 |\n0120 3456 7890 1234 5678",
    "order 4111111111111112 and serial 1234567890123456, timestamp 1700000000, 1700000000000",
    "std::vector<int> a::b::c, x[1::2], add::dead, 00:1A:2B:3C:4D:5E, 12:30, Acts 2:38; 10:20:30",
    "@decorator def f(@x), image@2x.png, look at example.org, git@github.com:user/repo.git, a @ b.c",
    "https://example.com:8080/path?x=1@2, http://user@host/, mailto",
    "PL 0095/0081, 0034/0293, 0242/0189, part 37777777755, 14871501014 rows, 0o37777777755",
    "DE00 1234 5678 9012 3456 78 fails its checksum, as GB82WEST12345698765433 does",
    "110105194912310021 and 440524188001010014 fail theirs",
    "hash 1e4c9b93f3f0682250b6cf8331b7ee68fd8aa5d0, task-oriented desk-top, sk-learn, eyJ, UTC+08:00, C++11",
    "2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384 and 5551234567",
    "第1234567号，2008年8月8日，人口1339724852，价格13800元，共13912345679876条",
    "RFC 2119, PEP 3156, arXiv:1706.03762, doi:10.1000/182, No. 212-555-0120",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_numbers_stay(text: str) -> None:
    answer = cleaned(text)
    assert answer.text == text
    assert set(answer.found) <= {"url"}


def test_two_numbers_side_by_side() -> None:
    assert cleaned("电话 010-62511234/13800138000，").text == "电话 <PHONE>/<PHONE>，"
    assert cleaned("212-555-0120 / 212-555-0121").text == "<PHONE> / <PHONE>"
    assert cleaned("a@example.org,b@example.org;c@example.org").found == {"email": 3}
    assert cleaned("4111 1111 1111 1111 5500 0055 5555 5559").text == "<CARD> <CARD>"


def test_url_passwords() -> None:
    answer = cleaned("git clone https://ann:s3cr3t@git.example.org/x and ftp://u:p@[2001:db8::1]/")
    assert answer.text == "git clone https://<URL_PASSWORD>@git.example.org/x and ftp://<URL_PASSWORD>@[<IP>]/"
    assert answer.found == {"url": 2, "url_password": 2, "ip": 1}
    assert cleaned("see https://ann:s3cr3t@git.example.org/x", url="mask").text == "see <URL>"
    answer = privacy.Config(kind="privacy", url="mask", url_password="drop").build().apply(made("http://a:b@c.d/"))
    assert answer == Drop("has_url_password", "1 of url_password found")


URLS = [
    ("See {} for the rest.", "https://www.example.com/news/5479?utm_source=feed&id=83"),
    ("({})", "https://example.com/a_(b)#c"),
    ("[a page]({}).", "http://example.org/~lib/index.html"),
    ("[{}]", "HTTPS://EXAMPLE.ORG"),
    ("{}, or", "www.example.net/p/3607"),
    ("<{}>", "ftp://ftp.example.org/pub/readme.txt"),
    ("'{}'; **{}**", "http://localhost:8080/a/b.c"),
    ("见{}，然后访问{}。", "https://example.com/a?b=1"),
    ("打开{}查看", "www.example.com/b"),
    ("»{}«", "https://bücher.example/straße/é"),
    ("{}...", "http://[2001:db8::1]:80/x"),
    ("&lt;{}&gt; und „{}“", "http://example.org/x&y=1"),
]


@pytest.mark.parametrize(("around", "url"), URLS)
def test_urls_are_found_and_stay_unless_set(around: str, url: str) -> None:
    text = around.format(url, url)
    answer = cleaned(text, ip="keep")
    assert answer.text == text
    assert answer.found["url"] == around.count("{}")
    assert cleaned(text, url="mask").text == around.replace("{}", "<URL>")
    dropped = privacy.Config(kind="privacy", url="drop").build().apply(made(text))
    assert isinstance(dropped, Drop)
    assert dropped.reason == "has_url"


@pytest.mark.parametrize(
    "text",
    ["http:// and www. and ://x", '"http://" + host, https://{host}/x', "www.x, wwww.example.org, a.www.b.c", "WWW"],
)
def test_no_urls(text: str) -> None:
    assert cleaned(text, url="mask").text == text


def test_an_amazon_secret_keeps_its_name() -> None:
    text = 'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"'
    assert cleaned(text).text == 'aws_secret_access_key = "<SECRET>"'


def test_a_port_stays() -> None:
    assert cleaned("from 192.0.2.47:8080.").text == "from <IP>:8080."


def test_actions_and_masks() -> None:
    text = "ann@example.org, bob@example.org, ANN@example.org, 192.0.2.7"
    assert cleaned(text, email="keep").text == text.replace("192.0.2.7", "<IP>")
    answer = privacy.Config(kind="privacy", email="drop").build().apply(made(text))
    assert answer == Drop("has_email", "3 of email found")
    assert cleaned(text, numbered=True).text == "<EMAIL_1>, <EMAIL_2>, <EMAIL_1>, <IP_1>"
    assert cleaned(text, mask="|||{kind}|||", ip="keep").text == "|||EMAIL|||, |||EMAIL|||, |||EMAIL|||, 192.0.2.7"


def test_linear_in_hostile_text() -> None:
    start = time.process_time()
    for piece in (
        "http://",
        "www.a.",
        "http://x(",
        "a.",
        "1 ",
        "1.",
        "a@",
        "12:",
        "::",
        "AB12 ",
        "(at)",
        "+1(",
        "-----BEGIN PRIVATE KEY-----",
    ):
        cleaned(piece * (20_000 // len(piece)))
    assert time.process_time() - start < 4


@pytest.mark.skipif(not CORPORA.exists(), reason=f"needs {CORPORA}")
def test_dirty_crawl() -> None:
    for line in (CORPORA / "dirty.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        answer = cleaned(row["text"])
        if row["kind"].startswith("pii"):
            assert answer.found == {row["kind"].removeprefix("pii_"): len(row["pii"])}
            assert not any(text in answer.text for text in row["pii"])
        elif row["kind"] == "url":
            assert cleaned(row["text"], url="mask").found == {"url": len(row["pii"])}
        else:
            assert answer.text == row["text"], row["id"]
