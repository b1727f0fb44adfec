"""Random mixtures and ledgers of four groups, for the tests of properties."""

from hypothesis import strategies as st

from titan_aioli.proportions import normalize

SIZES = (7, 11, 4, 30)


def mixtures(num_groups):
    weights = st.lists(
        st.sampled_from([0.0, 0.0, 0.01, 0.2, 1.0, 3.0]), min_size=num_groups, max_size=num_groups
    )
    return weights.filter(any).map(normalize)


LEDGERS = st.lists(st.tuples(mixtures(4), st.integers(1, 9)), min_size=1, max_size=5)
