from __future__ import annotations

from consumers.domain.bits import MAX_CHANGES, Bits, Journal, Remembered, Steps


def test_values() -> None:
    bits: Bits[str] = Bits()
    bits.put("a", 1)
    bits.put("a", 4)
    bits.drop("a", 1)
    assert bits == {"a": 4}
    bits.drop("a", 4)
    assert bits == {}


def test_amounts() -> None:
    steps = Steps()
    for number, value in enumerate((5, 1, 5, 9)):
        steps.put(value, 1 << number)
    assert [steps.within(amount) for amount in (0, 1, 5, 8.9, 9)] == [0, 0b10, 0b111, 0b111, 0b1111]
    steps.drop(5, 0b1)
    assert steps.within(5) == 0b110
    steps.drop(5, 0b100)
    assert steps.within(8) == 0b10
    steps.put(0, 0b1)
    assert [steps.within(amount) for amount in (0, 1, 9)] == [0b1, 0b11, 0b1011]


def remembered(most: int = 4096) -> tuple[Journal[int], dict[int, int], list[str], Remembered[int, int]]:
    """Classes are numbers; one passes a value that it divides."""
    journal: Journal[int] = Journal()
    classes: dict[int, int] = {}
    asked: list[str] = []

    def every(value: int) -> int:
        asked.append(f"all of {value}")
        return sum(bit for bit, number in classes.items() if value % number == 0)

    def one(value: int, number: int) -> bool:
        asked.append(f"{number} of {value}")
        return value % number == 0

    return journal, classes, asked, Remembered(journal, every, one, most)


def test_an_answer_is_put_right_class_by_class() -> None:
    journal, classes, asked, answers = remembered()
    assert answers.get(6) == 0
    for bit, number in ((1, 2), (2, 3), (4, 4)):
        classes[bit] = number
        journal.note(bit, number)
    assert answers.get(6) == 0b011
    assert asked == ["all of 6", "2 of 6", "3 of 6", "4 of 6"]
    journal.note(2, None)
    journal.note(1, 5)
    assert answers.get(6) == 0
    assert answers.get(6) == 0
    assert asked[4:] == ["5 of 6"]


def test_after_many_changes_it_is_worked_out_anew() -> None:
    journal, classes, asked, answers = remembered()
    answers.get(6)
    for _ in range(5 * MAX_CHANGES):
        classes[1] = 2
        journal.note(1, 2)
    assert answers.get(6) == 1
    assert asked == ["all of 6", "all of 6"]
    for _ in range(MAX_CHANGES):
        journal.note(2, 3)
    assert answers.get(6) == 0b11
    assert len(asked) == 2 + MAX_CHANGES


def test_what_is_remembered_is_bounded_and_can_be_forgotten() -> None:
    _, _, asked, answers = remembered(most=2)
    for value in (1, 2, 3, 3, 2, 1):
        answers.get(value)
    assert asked == ["all of 1", "all of 2", "all of 3", "all of 1"]
    answers.forget()
    answers.get(1)
    assert len(asked) == 5
