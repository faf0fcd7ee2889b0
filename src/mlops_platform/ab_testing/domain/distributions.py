"""Distribution functions of `scipy.special`, loaded when the first one is needed: most processes never compute a result."""

from types import ModuleType


def normal_cdf(x: float) -> float:
    """P(Z <= x) of the standard normal distribution."""
    return float(_special().ndtr(x))


def normal_quantile(p: float) -> float:
    """The x with P(Z <= x) = p of the standard normal distribution."""
    return float(_special().ndtri(p))


def t_cdf(freedom: float, x: float) -> float:
    """P(T <= x) of Student's distribution."""
    return float(_special().stdtr(freedom, x))


def t_quantile(freedom: float, p: float) -> float:
    """The x with P(T <= x) = p of Student's distribution."""
    return float(_special().stdtrit(freedom, p))


def noncentral_t_cdf(freedom: float, shift: float, x: float) -> float:
    """P(T <= x) of the non-central Student's distribution."""
    return float(_special().nctdtr(freedom, shift, x))


def chi_square_tail(freedom: float, x: float) -> float:
    """P(X > x) of the chi-square distribution."""
    return float(_special().chdtrc(freedom, x))


def _special() -> ModuleType:
    from scipy import special  # noqa: PLC0415  # 18 MB, see above

    return special
