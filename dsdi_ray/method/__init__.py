"""The paper as pure functions over arrays and tensors: no I/O, no clock, no global randomness."""
