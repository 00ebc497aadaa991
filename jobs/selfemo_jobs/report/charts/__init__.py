"""The page's charts as inline SVG: without scripts, and without loading any file.

Colors are CSS classes, so that one chart serves the light and the dark scheme. Each chart has a
title and a description for screen readers.
"""
