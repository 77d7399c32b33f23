"""Files that others made, damaged at random: each must be read as it is, or refused in a sentence.

    python -m tests.fuzz --count 10000       the long campaign, with a table of how inputs ended
    python -m tests.fuzz --kind spec --from 417 --count 1      one input again

An input is a kind and a number: the same two make the same input. `found/` holds inputs that once
ended badly, and the tests read them again.
"""
