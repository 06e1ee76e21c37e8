"""docs/claims.md: every rule of thumb, its verdict, and what it is exactly."""

from collections import Counter
from collections.abc import Iterator
from functools import cache
from types import ModuleType

from tests.claims import cache as caches
from tests.claims import convolutions, parameters, runs, scaling, serving, training, weights
from tests.claims.judge import VERDICTS, Check, Claim, Found, claims
from tests.conftest import DATA

PAGE = DATA.parents[1] / "docs" / "claims.md"
SUBJECTS: dict[str, ModuleType] = {
    "Parameters": parameters,
    "Weights": weights,
    "KV cache": caches,
    "Training memory": training,
    "Training runs": runs,
    "Scaling laws, attention, text": scaling,
    "Serving": serving,
    "Networks of convolutions": convolutions,
}
INTRO = """# Rules of thumb, computed

Figures and rules that circulate in tutorials and cheat sheets about language models, each computed by llmcalc's own engines, and
nothing left out. Written by `python -m tests.claims` from `tests/data/claims.yaml`; a test holds the page to it. Verdicts and
figures of ours are not typed in: a function per claim (`tests/claims`) asks the engines or the command line.

| verdict | means |
| --- | --- |
| holds | every figure is within the tolerance (2% unless the row of the claim says otherwise), or is ours rounded |
| loose | a figure is off by more than that, but within a tenth; a range or a bound is met by some of the usual readings, not all |
| wrong | further off |
| unknowable | what it is about was never published |

Of several figures in a claim the one that is furthest off decides. Where loose ends and wrong begins is a choice, and so is which
readings are usual; the figures stand beside. GB are 10^9 bytes, GiB 2^30.
"""


def checks() -> dict[str, Check]:
    """The function of every claim."""
    return {name: check for module in SUBJECTS.values() for name, check in module.CHECKS.items()}


@cache
def found() -> dict[str, tuple[Claim, Found]]:
    """Every claim with what we found, in the order of the file."""
    known = checks()
    return {claim.id: (claim, known[claim.id](claim)) for claim in claims()}


def table(module: ModuleType) -> Iterator[str]:
    """The claims of a subject."""
    yield "| claim | verdict | what it is, exactly |"
    yield "| --- | --- | --- |"
    for name, (claim, ours) in found().items():
        if name in module.CHECKS:
            cells = (each.replace("|", "\\|").replace("*", "\\*") for each in (claim.claim, ours.text))
            first, last = cells
            yield f"| {first} | {ours.verdict} | {last} |"


def page() -> str:
    """The whole page."""
    counted = Counter(ours.verdict for _, ours in found().values())
    held, *others = (f"{counted[verdict]} {verdict}" for verdict in VERDICTS)
    parts = [f"{INTRO}\nOf {len(found())} claims {held.removesuffix('s')}, {', '.join(others)}.\n"]
    parts += ["\n".join([f"## {title}\n", *table(module), ""]) for title, module in SUBJECTS.items()]
    return "\n".join(parts)
