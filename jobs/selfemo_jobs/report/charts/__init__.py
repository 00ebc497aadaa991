"""The page's charts as inline SVG, drawn here: no script, nothing loaded.

Colors are CSS classes, so that one drawing serves light and dark; every chart has a title and a
description in words for those who cannot see it.
"""
