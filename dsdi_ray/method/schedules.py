"""Learning-rate schedules as factors of the peak rate."""

import math


def learning_rate_factor(
    step: int, *, num_steps: int, num_warmup_steps: int, schedule: str
) -> float:
    """The factor at an optimiser step: a linear warm-up, then the schedule.

    Args:
        step: From 0.
        num_steps: Steps in all.
        num_warmup_steps: Steps of the warm-up.
        schedule: ``cosine`` (to 0), or ``step`` (divided by 10 at 50 % and again at 75 %).

    Raises:
        ValueError: If the schedule is neither.
    """
    if schedule not in ("cosine", "step"):
        raise ValueError(f"schedule must be cosine or step, got {schedule!r}")
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))
