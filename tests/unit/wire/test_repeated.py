from wire.repeated import MAX_BYTES, MAX_KEPT, Repeated


def test_what_came_twice_is_kept() -> None:
    heads: Repeated[int] = Repeated()
    assert not heads.has_come(b"a")
    assert not heads.has_come(b"b")
    assert heads.has_come(b"a")
    heads.keep(b"a", 1)
    assert heads.known == {b"a": 1}


def test_long_bytes_are_never_kept_and_the_number_is_bounded() -> None:
    heads: Repeated[int] = Repeated()
    assert not any(heads.has_come(b"x" * (MAX_BYTES + 1)) for _ in range(3))
    for number in range(MAX_KEPT + 1):
        heads.keep(b"%d" % number, number)
    assert heads.known == {b"%d" % MAX_KEPT: MAX_KEPT}
