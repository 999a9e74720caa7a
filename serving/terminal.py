"""What others wrote, as a terminal may show it: control characters would move it, colour it, or hide what it shows."""


def visible(text: str, kept: str = "") -> str:
    """Whatever cannot be printed is escaped as Python does, but for the characters `kept`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else repr(each)[1:-1] for each in text)
