"""The numbers of a simulated shop, in one frozen dataclass. What uses them: ``catalogue.py`` and ``shoppers.py``.

The shoppers are an autoregressive hidden Markov model. Everything that a shopper does next depends on the hidden state
and on what can be observed (what was done last, whether the cart is empty, the products of the session), so the true
P(purchase | observed so far) follows exactly by forward filtering over five states. One step is:

1. the action: ``idle_actions`` (empty cart) or ``cart_actions`` of the state, times the factors named ``*_factor`` for
   what was done last, normalised (``shoppers.action_probabilities``);
2. the time since the last step: a pace drawn from ``pace_shares`` of the state, then a truncated log-logistic;
3. for a detail the product: a mode from ``product_modes`` of the state, then a draw that knows only what was seen;
4. the next state: one row of the transition matrix that belongs to the action.

Searches with their clicks depend on the state only through the action. Prices matter once: in the row of the first add.
What tells a buyer is order and pace more than counts: who has decided does the same thing several times in a row, fast,
and returns to the cart's products; who doubts alternates, slowly, and leaves after taking something out.

Sources: "paper" = the challenge's papers; "clicks" = 70k real clicks of the yoochoose extract; "assumption" = neither.
"""

from dataclasses import dataclass, replace

Row = tuple[float, ...]
Matrix = tuple[Row, ...]

STATES = ("wander", "compare", "decided", "doubt", "leaving")
"""The hidden goal of a shopper; it drifts within the session."""

STEP_ACTIONS = ("view", "detail", "add", "remove", "purchase", "search", "end")
"""What a step can be. ``end`` leaves no trace; ``search`` may carry one click, and then the detail that it opens."""

PACES = ("quick", "steady", "slow", "away")
"""How long a shopper takes for the next step; everyone is away from the screen now and then."""

PRODUCT_MODES = ("same", "back", "cart", "related", "category", "anywhere")
"""How a shopper comes to a product: the one just seen, one seen before, one in the cart, one related to a product of
the session, another of the category, any."""


@dataclass(frozen=True)
class ShopParameters:
    """One shop. Shares are fractions of one; rows of matrices follow ``STATES``, columns the tuple named beside."""

    # -- products
    products_per_category: int = 25  # leaves of the category tree (assumption)
    popularity_sigma: float = 2.4  # of log weight: top 1 % of products get 34 % (paper)
    category_popularity_sigma: float = 0.5
    weekly_popularity_drift: float = 0.15  # standard deviation of a product's log weight from week to week (assumption)
    metadata_share: float = 0.6  # products with some metadata: 34,000 of 57,000 (paper)
    field_shares: Row = (0.92, 0.95, 0.85, 0.9)  # of those: description, category, image, price (assumption)
    vector_size: int = 50  # (paper)
    related_products: int = 20  # length of a product's list of successors (assumption)
    related_decay: float = 0.85  # each successor is this much less likely than the one before it
    related_popularity: float = 1.1  # exponent of popularity among candidates for successors
    related_elsewhere: float = 0.1  # share of successors from another category
    urls_per_product: float = 1.63  # 93,000 URLs, 57,000 products (paper)
    other_url_share: float = 0.3  # product events under another of the product's URLs (assumption)
    queries_per_category: int = 4
    results_per_query: int = 10

    # -- when
    weekday_weights: Row = (
        1.08,
        1.06,
        1.04,
        1.02,
        0.95,
        0.88,
        0.97,
    )  # Monday first (assumption: rhythm is real, not given)
    hour_weights: Row = (
        *(1.6, 0.9, 0.5, 0.35, 0.3, 0.35, 0.6, 1.1, 1.8, 2.4, 2.8, 3.0),
        *(3.0, 2.9, 2.9, 3.0, 3.1, 3.2, 3.4, 3.8, 4.2, 4.3, 3.7, 2.6),
    )  # UTC (assumption)
    longest_gap_s: float = 1790.0  # sessions end after 30 minutes of rest (paper)
    pace_medians_s: Row = (22.0, 60.0, 160.0, 1200.0)  # PACES; together: quartiles 25, 56 and 129 s (clicks)
    pace_spread: float = 0.6  # scale of log time in the log-logistic

    # -- sessions that never touch a product
    looking_only: float = 0.60
    looking_only_end: float = 0.22  # chance to end after each pageview
    looking_only_search: float = 0.1

    # -- shoppers: rows STATES
    first_state: Row = (0.55, 0.325, 0.04, 0.045, 0.04)
    first_action: Row = (0.45, 0.5, 0.0, 0.0, 0.0, 0.05, 0.0)  # STEP_ACTIONS
    idle_actions: Matrix = (  # STEP_ACTIONS, empty cart
        (0.27, 0.52, 0.006, 0.0, 0.0, 0.020, 0.18),
        (0.18, 0.66, 0.019, 0.0, 0.0, 0.018, 0.12),
        (0.34, 0.40, 0.140, 0.0, 0.0, 0.020, 0.08),
        (0.34, 0.40, 0.130, 0.0, 0.0, 0.020, 0.08),
        (0.35, 0.27, 0.001, 0.0, 0.0, 0.008, 0.38),
    )
    cart_actions: Matrix = (  # STEP_ACTIONS, something in the cart
        (0.40, 0.40, 0.030, 0.030, 0.003, 0.020, 0.12),
        (0.36, 0.44, 0.040, 0.030, 0.006, 0.020, 0.10),
        (0.36, 0.35, 0.040, 0.035, 0.140, 0.015, 0.01),
        (0.40, 0.40, 0.040, 0.040, 0.002, 0.015, 0.09),
        (0.40, 0.25, 0.005, 0.030, 0.001, 0.008, 0.30),
    )
    repeat_factor: Row = (1.0, 1.2, 4.0, 0.3, 1.0)  # on a view after a view, a detail after a detail
    add_elsewhere_factor: float = 0.25  # on an add that does not follow a detail
    transitions: Matrix = (  # after a view, detail, search or a later add
        (0.89, 0.07, 0.005, 0.01, 0.025),
        (0.06, 0.885, 0.015, 0.015, 0.025),
        (0.005, 0.01, 0.97, 0.012, 0.003),
        (0.01, 0.01, 0.005, 0.955, 0.02),
        (0.03, 0.02, 0.0, 0.0, 0.95),
    )
    first_add_cheap: Matrix = (  # after the first add, product in the cheaper half
        (0.10, 0.05, 0.23, 0.57, 0.05),
        (0.03, 0.10, 0.36, 0.48, 0.03),
        (0.0, 0.02, 0.90, 0.08, 0.0),
        (0.02, 0.0, 0.08, 0.88, 0.02),
        (0.05, 0.0, 0.05, 0.30, 0.60),
    )
    first_add_dear: Matrix = (
        (0.10, 0.05, 0.10, 0.70, 0.05),
        (0.03, 0.10, 0.17, 0.67, 0.03),
        (0.0, 0.02, 0.74, 0.24, 0.0),
        (0.02, 0.0, 0.03, 0.92, 0.03),
        (0.05, 0.0, 0.02, 0.33, 0.60),
    )
    after_remove: Matrix = (
        (0.75, 0.05, 0.0, 0.05, 0.15),
        (0.05, 0.75, 0.05, 0.05, 0.10),
        (0.0, 0.05, 0.93, 0.02, 0.0),
        (0.05, 0.0, 0.0, 0.55, 0.40),
        (0.0, 0.0, 0.0, 0.0, 1.0),
    )
    after_purchase: Matrix = (
        (0.4, 0.1, 0.0, 0.0, 0.5),
        (0.2, 0.3, 0.0, 0.0, 0.5),
        (0.2, 0.1, 0.1, 0.0, 0.6),
        (0.3, 0.1, 0.0, 0.1, 0.5),
        (0.1, 0.0, 0.0, 0.0, 0.9),
    )
    pace_shares: Matrix = (  # PACES
        (0.26, 0.53, 0.18, 0.03),
        (0.28, 0.50, 0.19, 0.03),
        (0.84, 0.13, 0.01, 0.02),
        (0.05, 0.22, 0.69, 0.04),
        (0.30, 0.49, 0.18, 0.03),
    )
    product_modes: Matrix = (  # PRODUCT_MODES; a mode that is not possible yet becomes "anywhere"
        (0.19, 0.02, 0.01, 0.48, 0.15, 0.15),
        (0.21, 0.03, 0.01, 0.57, 0.15, 0.03),
        (0.19, 0.02, 0.25, 0.40, 0.10, 0.04),
        (0.18, 0.03, 0.02, 0.42, 0.15, 0.20),
        (0.21, 0.03, 0.02, 0.35, 0.16, 0.23),
    )
    memory: int = 8  # products of the session that a shopper goes back to, or moves on from
    memory_decay: float = 0.7  # each product back is this much less likely as a starting point
    cart_limit: int = 4  # products in a cart
    click_share: float = 0.45  # searches with a click
    click_decay: float = 0.7  # per position in the results
    click_to_detail_s: tuple[float, float] = (2.0, 9.0)


YOOCHOOSE_LIKE = ShopParameters()
"""The default shop: shares of the challenge, repeats of the yoochoose clicks."""

CHALLENGE_LIKE = replace(
    YOOCHOOSE_LIKE,
    popularity_sigma=2.3,
    category_popularity_sigma=1.2,  # top 1 % 34 %, top 5 % 67 %, median product 5 (paper)
    weekly_popularity_drift=0.4,  # (assumption; with the tail: 6.7 % of the last days' products are new (paper))
    products_per_category=40,
    related_decay=0.8,
    idle_actions=(
        (0.18, 0.52, 0.006, 0.0, 0.0, 0.020, 0.17),  # longer sessions: 28 % of rows are product events (paper)
        (0.11, 0.66, 0.019, 0.0, 0.0, 0.018, 0.11),
        *YOOCHOOSE_LIKE.idle_actions[2:],
    ),
    product_modes=(  # 13 % of details repeat a product of the session (paper)
        (0.015, 0.0, 0.01, 0.74, 0.06, 0.175),
        (0.015, 0.0, 0.01, 0.74, 0.06, 0.175),
        (0.015, 0.0, 0.20, 0.55, 0.06, 0.175),
        (0.015, 0.0, 0.01, 0.74, 0.06, 0.175),
        (0.015, 0.0, 0.01, 0.74, 0.06, 0.175),
    ),
    memory_decay=0.5,
)
"""The second shop: tail, repeats and length of the challenge, products that come and go."""

SHOPS = {"yoochoose": YOOCHOOSE_LIKE, "challenge": CHALLENGE_LIKE}
"""Frozen: later work improves models, not the shop (``docs/the-shop.md``)."""
