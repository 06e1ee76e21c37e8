"""Write docs/claims.md anew."""

import sys

from tests.claims.page import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
sys.stdout.write(f"{PAGE}\n")
