"""Published weights and name mappings of each family: pure data, one file per family.

`WEIGHTS` and `NAME_MAPPINGS` have an entry for each model that has any. The first of several weights is "imagenet".
"""
