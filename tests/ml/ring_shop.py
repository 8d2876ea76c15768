"""Made sessions of a shop whose products stand in a ring, so that what follows is known."""

import numpy as np

PLACES = 24


def ring_shop(sessions: int, seed: int) -> list[list[str]]:
    """Shoppers walk around the ring, onward after an even product and two steps on after an odd one."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(sessions):
        place, items = int(generator.integers(PLACES)), []
        for _ in range(generator.integers(2, 7)):
            items.append(f"p{place:02d}")
            place = (place + (1 if place % 2 == 0 else 2)) % PLACES
        result.append(items)
    return result
