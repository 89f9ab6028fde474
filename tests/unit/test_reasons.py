"""Reasons counted for people."""

from dsdi_ray.reasons import count_reasons


def test_the_most_frequent_come_first():
    counted = count_reasons([("cut off", 1), ("empty", 3), ("cut off", 1)])
    assert list(counted.items()) == [("empty", 3), ("cut off", 2)]


def test_many_reasons_that_differ_in_numbers_alone_are_one():
    of_numbers = [(f"{i} of 1,200 frames, {i}.5 s", i) for i in range(1, 5)]
    counted = count_reasons([*of_numbers, ("frame 7", 5)])
    assert counted == {"N of N frames, N s": 10, "frame 7": 5}


def test_a_few_keep_their_numbers():
    counts = {"HTTP status 404": 3, "HTTP status 410": 2, "the file is empty (0 bytes)": 1}
    assert count_reasons(counts.items()) == counts


def test_numbers_of_names_tell_reasons_apart():
    counts = {f"no decoder for h26{i}": 9 - i for i in range(6)}
    assert count_reasons(counts.items()) == counts
