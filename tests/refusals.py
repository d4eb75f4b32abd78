"""What every refusal of the command line has in common."""


def refused(outcome, *words):
    """(exit code, error lines): code 2 and one line that holds all the words."""
    code, lines = outcome
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for word in words:
        assert str(word) in lines[0]
