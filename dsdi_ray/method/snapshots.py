"""Snapshot ensembles (Huang et al. 2017; paper section 2.4, model C10)."""


def cycle_ends(num_epochs: int, num_cycles: int) -> tuple[int, ...]:
    """The epochs, from 1, after which a cycle of the learning rate ends and a snapshot is taken.

    Args:
        num_epochs: In all.
        num_cycles: Of equal length.

    Raises:
        ValueError: If the cycles are not whole epochs.
    """
    length, rest = divmod(num_epochs, num_cycles)
    if rest or length == 0:
        raise ValueError(f"num_epochs must be a multiple of {num_cycles} cycles, got {num_epochs}")
    return tuple(length * (i + 1) for i in range(num_cycles))
