"""Who is mentioned in a comment."""

import re

MAX_MENTIONS = 50
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# An address such as a@b.c is no mention, nor is @@x; a full stop at the end belongs to the sentence.
_MENTION = re.compile(r"(?<![\w@./+-])@([A-Za-z0-9](?:[\w.-]{0,126}\w)?)(?![\w@])", re.ASCII)


def mentions(text: str) -> list[str]:
    """The names after `@`, each once, in the order of the text; code is not read.

    >>> mentions("@grace, see `@decorated` and mail ada@example.com (or @alan.t).")
    ['grace', 'alan.t']
    """
    found = _MENTION.findall(_CODE.sub(" ", text))
    return list(dict.fromkeys(found))[:MAX_MENTIONS]
