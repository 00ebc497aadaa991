"""A campaign against the operator: faults from a seed, and checks that hold after any of them.

`docs/campaign.md` describes what it does and how to run it.
"""
