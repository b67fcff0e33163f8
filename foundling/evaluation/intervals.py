"""Intervals of measured figures."""

import math


def wilson(num_hits: int, number: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share from `num_hits` of `number` independent trials (Wilson 1927, JASA 22(158)).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    if number == 0:
        return 0.0, 1.0
    share = num_hits / number
    centre = share + z * z / (2 * number)
    half = z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    scale = 1 + z * z / number
    return (centre - half) / scale, (centre + half) / scale
