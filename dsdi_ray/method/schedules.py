"""Learning-rate schedules as factors of the peak rate."""

import math

SCHEDULES = ("cosine", "step", "cyclic")


def learning_rate_factor(
    step: int, *, num_steps: int, num_warmup_steps: int, schedule: str, num_cycles: int = 1
) -> float:
    r"""The factor at an optimiser step: a linear warm-up, then the schedule.

    ``cyclic`` is the schedule of snapshot ensembles (Huang et al. 2017, Eq. 2), M cycles of

    .. math:: \alpha(t) = \tfrac{1}{2} (\cos(\pi \, (t \bmod T / M) / (T / M)) + 1)

    whose first begins after the warm-up and ends where it would without one.

    Args:
        step: From 0.
        num_steps: Steps in all, T.
        num_warmup_steps: Steps of the warm-up.
        schedule: ``cosine`` (to 0), ``step`` (divided by 10 at 50 % and again at 75 %) or
            ``cyclic``.
        num_cycles: M, of ``cyclic``.

    Raises:
        ValueError: If the schedule is none of them.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    first, end = num_warmup_steps, float(num_steps)
    if schedule == "cyclic":
        cycle = min(step * num_cycles // num_steps, num_cycles - 1)
        first = max(first, math.ceil(cycle * num_steps / num_cycles))
        end = (cycle + 1) * num_steps / num_cycles
    if schedule == "step":
        return 0.1 ** ((step >= 0.5 * num_steps) + (step >= 0.75 * num_steps))
    progress = (step - first) / max(1, end - first)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
