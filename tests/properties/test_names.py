"""What must hold for any name, any FQAN and any DER."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from broker.identity import IdentityError, der
from broker.identity.proxy_info import ProxyCertInfo
from schemas.errors import InvalidInputError
from schemas.identity import ATTRIBUTE_NAMES, Fqan, format_dn, parse_dn

kinds = st.sampled_from([*ATTRIBUTE_NAMES.values(), "1.2.3.4"])
values = st.text(max_size=12) | st.text(alphabet="/+=\\CNO1.u{}", max_size=12)
names = st.lists(st.lists(st.tuples(kinds, values), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5).map(
    tuple
)


@given(names)
@example(((("CN", "a/"),), (("CN", "b"),)))
def test_names_round_trip(name: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    text = format_dn(name)
    assert parse_dn(text) == name


@given(names, names)
def test_different_names_look_different(one: tuple, other: tuple) -> None:  # type: ignore[type-arg]  # as above
    assert (format_dn(one) == format_dn(other)) == (one == other)


@given(st.text(max_size=40) | st.text(alphabet="/CN=O\\+u{}1.", max_size=20).map(lambda text: "/CN=" + text))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse_dn(text)
    except InvalidInputError:
        return
    assert parse_dn(format_dn(name)) == name


@given(st.text(alphabet="/lhcbRole=NULCapity. ", max_size=40))
def test_any_text_is_an_fqan_or_refused(text: str) -> None:
    try:
        fqan = Fqan.parse(text)
    except InvalidInputError:
        return
    assert Fqan.parse(str(fqan)) == fqan
    assert fqan.belongs_to(fqan.vo)


@given(st.binary(max_size=200))
def test_any_bytes_are_der_or_refused(data: bytes) -> None:
    for read in (der.read_all, lambda item: der.read_exactly(item, der.SEQUENCE).children(), ProxyCertInfo.decode):
        try:
            read(data)
        except IdentityError:
            continue


@given(st.integers(min_value=0, max_value=2**70))
def test_integers_round_trip(value: int) -> None:
    assert der.integer(der.read_exactly(der.encode_integer(value), der.INTEGER)) == value
