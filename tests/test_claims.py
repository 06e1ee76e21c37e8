"""Rules of thumb about language models against the engines: docs/claims.md."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.claims.judge import VERDICTS, Claim, claims, least, span, worst
from tests.claims.page import PAGE, SUBJECTS, checks, found, page

ROWS = claims()


def pairs(truth: Any, ours: Any) -> Iterator[tuple[float, float]]:
    """The figures of a truth, each with ours."""
    if isinstance(truth, dict):
        assert truth.keys() == ours.keys()
        for key, value in truth.items():
            yield from pairs(value, ours[key])
    elif isinstance(truth, list):
        assert len(truth) == len(ours)
        for value, mine in zip(truth, ours, strict=True):
            yield from pairs(value, mine)
    else:
        yield float(truth), float(ours)


def test_every_claim_has_a_function_and_every_function_a_claim() -> None:
    assert len(ROWS) == len({claim.id for claim in ROWS})
    assert sorted(checks()) == sorted(claim.id for claim in ROWS)
    assert sum(len(module.CHECKS) for module in SUBJECTS.values()) == len(ROWS)


@pytest.mark.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in ROWS])
def test_claims(claim: Claim) -> None:
    _, ours = found()[claim.id]
    assert ours.verdict in VERDICTS
    assert ours.text.endswith((".", '"'))
    assert claim.verdict in (None, ours.verdict), ours.text
    if claim.truth is not None and not isinstance(claim.truth, str):
        known = {key: value for key, value in claim.truth.items() if key not in ours.given} if ours.given else claim.truth
        for truth, mine in pairs(known, ours.ours):
            assert mine == pytest.approx(truth, rel=claim.tolerance)


def test_the_page_of_claims_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.claims writes it anew"


@pytest.mark.parametrize(
    ("figure", "value", "half"),
    [("117M", 117e6, 0.5e6), ("1.5B", 1.5e9, 0.05e9), ("3.14e23", 3.14e23, 0.005e23), ("1,287 MWh", 1287, 0.5),
     ("93.3%", 0.933, 0.0005), ("4 KV heads", 4, 0.5), ("1.1^phi", 1.1, 0.05), ("67 GB", 67, 0.5)],
)  # fmt: skip
def test_figures_are_read_as_they_stand(figure: str, value: float, half: float) -> None:
    assert Claim("x", f"about {figure} or so").said(figure) == pytest.approx((value, half))


def test_only_what_a_claim_says_can_be_judged() -> None:
    with pytest.raises(ValueError, match="is not in"):
        Claim("x", "7B takes 14 GB").near("15 GB", 14)


@pytest.mark.parametrize(
    ("figure", "ours", "verdict"),
    # 117M within 2% of ours or ours rounded; loose up to a tenth
    [("117M", 116.5e6, "holds"), ("117M", 119.3e6, "holds"), ("117M", 119.5e6, "loose"), ("117M", 129e6, "loose"),
     ("117M", 131e6, "wrong"), ("7B", 6.738e9, "holds"), ("7B", 6.4e9, "loose"), ("7B", 8.03e9, "wrong")],
)  # fmt: skip
def test_verdicts_of_one_figure(figure: str, ours: float, verdict: str) -> None:
    assert Claim("x", f"it has {figure}").near(figure, ours) == verdict


def test_verdicts_of_ranges_bounds_and_several_figures() -> None:
    assert [span(10, 16, each) for each in ([10, 15], [4, 12], [4, 30], [17, 20], [1, 9])] == [
        "holds", "loose", "loose", "wrong", "wrong",
    ]  # fmt: skip
    assert [least(8, n) for n in (8, 5, 9)] == ["holds", "loose", "wrong"]
    assert worst("holds", "loose", "holds") == "loose"
    claim = Claim("x", "it is cut 10 times")
    assert [claim.among("10 times", each) for each in ([9.9, 10.1], [5, 57], [50, 57])] == ["holds", "loose", "wrong"]
    assert [claim.exactly("10 times", each) for each in (10, 10.05, 20)] == ["holds", "loose", "wrong"]
