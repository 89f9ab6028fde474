"""Reasons counted for people."""

from dsdi_ray.reasons import count_reasons


def test_the_most_frequent_come_first():
    counted = count_reasons([("cut off", 1), ("empty", 3), ("cut off", 1)])
    assert list(counted.items()) == [("empty", 3), ("cut off", 2)]


def test_reasons_that_differ_in_numbers_alone_are_one():
    counted = count_reasons([("3 of 1,200 frames", 1), ("7 of 90 frames", 2), ("frame 7", 5)])
    assert counted == {"frame 7": 5, "N of N frames": 3}


def test_numbers_stay_where_there_is_one_reason_of_the_kind():
    assert count_reasons([("the file is empty (0 bytes)", 2)]) == {"the file is empty (0 bytes)": 2}
