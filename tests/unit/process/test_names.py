from headwater.process.names import column_name


def test_names_that_look_like_our_own_end_somewhere() -> None:
    taken: set[str] = set()
    for path in (("properties", "_hw_a"), ("properties", "_HW_a"), ("_hw_a",), ("properties", "_hw_a ")):
        name = column_name(path, taken)
        assert name not in taken and not name.startswith("_hw_")
        taken.add(name)


def test_many_paths_of_one_name_get_numbers() -> None:
    taken: set[str] = set()
    for number in range(2000):
        name = column_name(("properties", "A" * 80 if number % 2 else "x"), taken)
        assert name not in taken and len(name) <= 63
        taken.add(name)
