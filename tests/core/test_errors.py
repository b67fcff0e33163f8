"""A user's fault is one line: what must hold, what came, what to do."""

from foundling.core.errors import UserError


def test_the_three_parts() -> None:
    assert str(UserError("a must be b", got=0, do="set a to b")) == "a must be b; got 0; set a to b"
    assert str(UserError("a must be b", do="set a to b")) == "a must be b; set a to b"
    assert str(UserError("a must be b")) == "a must be b"
