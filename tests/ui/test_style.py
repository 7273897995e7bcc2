"""The style sheet: one class, one meaning, whichever page it is on."""

import re
from collections import Counter

from rsm_app.ui.shell import STYLE

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_MEDIA = re.compile(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")


def test_no_class_is_given_the_same_property_by_two_rules_of_its_own():
    plain = _MEDIA.sub("", _COMMENT.sub("", STYLE.read_text(encoding="utf-8")))
    given = Counter()
    for selectors, body in _RULE.findall(plain):
        properties = {part.partition(":")[0].strip() for part in body.split(";") if ":" in part}
        for selector in selectors.split(","):
            if re.fullmatch(r"\.[\w-]+", selector.strip()):
                given.update((selector.strip(), name) for name in properties)
    assert len(given) > 200
    assert [key for key, count in given.items() if count > 1] == []
