"""A small text must not become a huge job."""

from __future__ import annotations

from schemas.jdl import parse


def test_placeholders_do_not_blow_a_description_up() -> None:
    outputs = ", ".join(f'"a{number}%s%s%s%s"' for number in range(490))
    values = ", ".join(f'"{number:x>999}"' for number in range(30))
    template = parse(f'[ Executable="/bin/true"; OutputSandbox={{{outputs}}}; Parameters={{{values}}}; ]')
    assert template.count == 0
    assert "at most 131072 are allowed" in template.errors[0].message


def test_extra_attributes_count_too() -> None:
    extra = ", ".join('"%s%s%s%s"' for _ in range(200))
    template = parse(f'[ Executable="/bin/true"; Foo={{{extra}}}; Parameters={{"{"x" * 999}", "b"}}; ]')
    assert "at most 131072 are allowed" in template.errors[0].message


def test_what_is_written_out_by_hand_fits() -> None:
    outputs = ", ".join(f'"{"o" * 120}{number}"' for number in range(490))
    assert parse(f'[ Executable="/bin/true"; OutputSandbox={{{outputs}}}; ]').errors == ()
