"""How error messages name what exists and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["counted", "listed", "nearest"]


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Return at most `most` names as one readable list.

    >>> listed(["a", "b"])
    "'a', 'b'"
    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    >>> listed([])
    'none'
    """
    names = list(names)
    text = ", ".join(repr(name) for name in names[:most]) or "none"
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a sentence with the existing name most like `name`, or nothing.

    >>> nearest("Photon.Pt", ["Photon.PT", "Jet.PT"])
    " Did you mean 'Photon.PT'?"
    """
    by_lower = {existing.lower(): existing for existing in names}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "event"), counted(2000, "event")
    ('1 event', '2,000 events')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
